"""When a measurement does not count, and why. Each rule returns reasons in words."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Optional

from android_bench import causes
from android_bench.cores import Cluster
from android_bench.delegation import NNAPI_REFERENCE, Execution
from android_bench.device import DeviceInfo, DeviceState
from android_bench.parse import BenchmarkRun
from android_bench.plan import Settings
from android_bench.tools import ANY_OTHER, PLAIN

# Android throttles from "moderate" on; "light" only warns apps.
_THROTTLING_STATUS = 2
# As much below its top as counts as capped.
_CAP_FRACTION = 0.9
# Of a normal distribution: standard deviation over median absolute deviation.
_SIGMA_OF_MAD = 1.4826
# At three, which a few of twice fifteen rounds pass by chance, equal models would be told apart in
# 6.7 % of the sessions instead of 5 %, for what is dropped is the slow rounds only.
_OUTLIER_SIGMAS = 5.0


def preflight(
    info: DeviceInfo, state: DeviceState, settings: Settings, cores: Sequence[int], need_kib: int
) -> list[str]:
    """Returns what keeps a device from giving figures that mean something.

    Args:
      info: The device.
      state: How it is now.
      settings: What it should be like.
      cores: Cores that the runs use.
      need_kib: Space that the files take.
    """
    reasons = heat(state, settings)
    if state.battery_percent is not None and state.battery_percent < settings.min_battery_percent:
        reasons.append(
            f"the battery is at {state.battery_percent:.0f} %, below"
            f" {settings.min_battery_percent:.0f} %"
        )
    if state.power_save:
        reasons.append("battery saver is on")
    if state.screen_on is False:
        reasons.append("the screen is off or the device dozes (wake it up and keep it so)")
    reasons += _switched_off(state, cores) + _caps(info, state, cores)
    if any(c.governor == "powersave" and set(c.cores) & set(cores) for c in info.clusters):
        reasons.append("the governor powersave holds the cores at their lowest frequency")
    if state.free_kib is not None and state.free_kib < need_kib:
        reasons.append(f"only {state.free_kib} KiB are free, {need_kib} KiB are needed")
    return reasons


def heat(state: DeviceState, settings: Settings) -> list[str]:
    """Returns why the device is too hot to start, if it is."""
    reasons = []
    if state.body_c is not None and state.body_c > settings.max_temperature_c:
        reasons.append(f"{state.body_c:.1f} °C, above {settings.max_temperature_c:.1f} °C")
    if state.thermal_status is not None and state.thermal_status >= _THROTTLING_STATUS:
        reasons.append(f"Android says that it throttles (thermal status {state.thermal_status})")
    return reasons


def run(
    benchmark: Optional[BenchmarkRun],
    exit_code: int,
    text: str,
    logged: Optional[str],
    runs_wanted: int,
) -> list[str]:
    """Returns what is wrong with one run of the program, by what it printed.

    Args:
      benchmark: The run; None if the output has none.
      exit_code: The program's.
      text: All that it printed.
      logged: What the log has to name as the delegate; see `tools.Tool`.
      runs_wanted: How many inferences were asked for, at least.
    """
    if exit_code or benchmark is None or not benchmark.complete or benchmark.inference is None:
        what = f"exit code {exit_code}" if exit_code else "the output has no summary"
        complete = benchmark is not None and benchmark.complete
        cause = causes.of(text) if complete else causes.last_words(text)
        reasons = [f"{what}: {cause}" if cause else what]
        if benchmark and benchmark.unconsumed_flags:
            reasons.append(_unknown_flags(benchmark))
        return reasons
    reasons = _delegation(benchmark.execution, logged)
    if benchmark.inference.count < runs_wanted:
        reasons.append(f"{benchmark.inference.count} inferences instead of {runs_wanted}")
    if benchmark.unconsumed_flags:
        reasons.append(_unknown_flags(benchmark))
    if any("Benchmarking failed" in line for line in benchmark.errors):
        reasons.append(f"the program says that it failed: {causes.of(text)}")
    return reasons


def remarks(benchmark: BenchmarkRun) -> list[str]:
    """Returns what a reader of a valid run should know: its errors, and half-way delegation."""
    notes = [f"an error in a completed run: {line}" for line in dict.fromkeys(benchmark.errors)]
    for delegation in benchmark.execution.delegations:
        if delegation.extent == "partial":
            notes.append(f"{delegation.delegate} took only a part of the model")
    if benchmark.execution.gpu_wanted:
        notes.append(
            f"{benchmark.execution.gpu_api} ran, because {benchmark.execution.gpu_wanted} failed"
        )
    return notes


def throttling(
    info: DeviceInfo, before: DeviceState, after: DeviceState, cores: Sequence[int]
) -> list[str]:
    """Returns signs that the device slowed its cores down during a run."""
    reasons = []
    if after.thermal_status is not None and after.thermal_status >= _THROTTLING_STATUS:
        reasons.append(f"throttled: thermal status {after.thermal_status} afterwards")
    if not _switched_off(before, cores):
        reasons += _switched_off(after, cores)
    if not _caps(info, before, cores):
        reasons += [f"throttled: {cap}" for cap in _caps(info, after, cores)]
    return reasons


def drift(latencies_us: Sequence[float], max_drift: float) -> list[Optional[str]]:
    """Returns for each round why it drifted too far, or None.

    A round is dropped if it is slower than the median by more than `max_drift`, and by more than
    the rounds scatter anyway: five standard deviations, as the median of the absolute deviations
    gives them. The fastest round is no measure: the more rounds, the faster it is.
    """
    if not latencies_us:
        return []
    median = statistics.median(latencies_us)
    scatter = _SIGMA_OF_MAD * statistics.median(abs(us - median) for us in latencies_us)
    limit = max(max_drift * median, _OUTLIER_SIGMAS * scatter)
    return [
        f"drift: {100 * (us / median - 1):.0f} % slower than its median round"
        if us - median > limit
        else None
        for us in latencies_us
    ]


def trend(latencies_us: Sequence[float], max_drift: float) -> Optional[str]:
    """Returns by how much the rounds became slower or faster in the course, if by too much.

    What the models share cancels in their ratio, so this is a remark, no reason to drop them.
    """
    if len(latencies_us) < 4:
        return None
    half = len(latencies_us) // 2
    change = statistics.median(latencies_us[-half:]) / statistics.median(latencies_us[:half]) - 1
    if abs(change) <= max_drift:
        return None
    word = "slower" if change > 0 else "faster"
    return f"its second half is {100 * abs(change):.0f} % {word} than its first"


def _delegation(execution: Execution, logged: Optional[str]) -> list[str]:
    if logged is None:
        return []
    if logged == PLAIN:
        taken = execution.taken()
        return [f"plain kernels were asked for, {taken[0].delegate} ran"] if taken else []
    if logged == "NNAPI" and execution.only_reference:
        return [f"not an NNAPI result: only {NNAPI_REFERENCE}, the CPU, was there"]
    own = [
        d
        for d in execution.delegations
        if d.delegate == logged or (logged == ANY_OTHER and d.delegate != "XNNPACK")
    ]
    name = "a delegate other than XNNPACK" if logged == ANY_OTHER else logged
    if any(d.extent == "none" for d in own):
        return [f"fell back to the CPU: {own[0].delegate} took no part of the model"]
    if not own:
        return [f"the log does not say that {name} took the model"]
    return []


def _unknown_flags(benchmark: BenchmarkRun) -> str:
    return f"the program does not know {benchmark.unconsumed_flags}"


def _switched_off(state: DeviceState, cores: Sequence[int]) -> list[str]:
    off = sorted(set(cores) - set(state.online)) if state.online else []
    return [f"cores {', '.join(map(str, off))} are switched off"] if off else []


def _caps(info: DeviceInfo, state: DeviceState, cores: Sequence[int]) -> list[str]:
    reasons = []
    for cluster in info.clusters:
        lowest = _lowest_cap(cluster, state, cores)
        if lowest is not None and cluster.max_khz and lowest < _CAP_FRACTION * cluster.max_khz:
            numbers = ", ".join(map(str, cluster.cores))
            reasons.append(
                f"cores {numbers} are capped at {lowest / 1e6:.2f} of"
                f" {cluster.max_khz / 1e6:.2f} GHz"
            )
    return reasons


def _lowest_cap(cluster: Cluster, state: DeviceState, cores: Sequence[int]) -> Optional[int]:
    used = set(cluster.cores) & set(cores)
    return min((state.max_khz[core] for core in used if core in state.max_khz), default=None)

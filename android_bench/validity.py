"""When a measurement does not count, and why. Each rule returns reasons in words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Optional

from android_bench.device import Cluster, DeviceInfo, DeviceState
from android_bench.parse import BenchmarkRun
from android_bench.plan import LOGGED_DELEGATES, Settings

# Android throttles from "moderate" on; "light" only warns apps.
_THROTTLING_STATUS = 2
# As much below its top as counts as capped.
_CAP_FRACTION = 0.9


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
    reasons += _caps(info, state, cores)
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
    benchmark: Optional[BenchmarkRun], exit_code: int, delegate: str, runs_wanted: int
) -> list[str]:
    """Returns what is wrong with one run of benchmark_model, by what it printed.

    Args:
      benchmark: The run; None if the output has none.
      exit_code: The binary's.
      delegate: What was asked for.
      runs_wanted: How many inferences were asked for, at least.
    """
    if exit_code:
        why = f": {benchmark.errors[0]}" if benchmark and benchmark.errors else ""
        return [f"exit code {exit_code}{why}"]
    if benchmark is None or not benchmark.complete or benchmark.inference is None:
        why = f": {benchmark.errors[0]}" if benchmark and benchmark.errors else ""
        return [f"the output has no summary{why}"]
    reasons = _delegation(benchmark, delegate)
    if benchmark.inference.count < runs_wanted:
        reasons.append(f"{benchmark.inference.count} inferences instead of {runs_wanted}")
    if benchmark.unconsumed_flags:
        reasons.append(f"the binary does not know {benchmark.unconsumed_flags}")
    if any("Benchmarking failed" in line for line in benchmark.errors):
        reasons.append("the binary says that it failed")
    return reasons


def is_partial(benchmark: BenchmarkRun, delegate: str) -> bool:
    """Whether only a part of the model was delegated."""
    name = LOGGED_DELEGATES.get(delegate)
    return any(d.delegate == name and d.extent == "partial" for d in benchmark.delegations)


def throttling(
    info: DeviceInfo, before: DeviceState, after: DeviceState, cores: Sequence[int]
) -> list[str]:
    """Returns signs that the device slowed its cores down during a run."""
    reasons = []
    if after.thermal_status is not None and after.thermal_status >= _THROTTLING_STATUS:
        reasons.append(f"throttled: thermal status {after.thermal_status} afterwards")
    if not _caps(info, before, cores):
        reasons += [f"throttled: {cap}" for cap in _caps(info, after, cores)]
    return reasons


def drift(latencies_us: Sequence[float], max_drift: float) -> list[Optional[str]]:
    """Returns for each round why it drifted too far, or None.

    The fastest round is what the device can do; whatever is much slower was slowed down, be it by
    heat or by another program.
    """
    if not latencies_us:
        return []
    fastest = min(latencies_us)
    excess = [latency / fastest - 1 for latency in latencies_us]
    return [
        f"drift: {100 * e:.0f} % slower than its fastest round" if e > max_drift else None
        for e in excess
    ]


def _delegation(benchmark: BenchmarkRun, delegate: str) -> list[str]:
    name = LOGGED_DELEGATES.get(delegate)
    if name is None:
        taken = [d for d in benchmark.delegations if d.extent != "none"]
        return [f"plain kernels were asked for, {taken[0].delegate} ran"] if taken else []
    own = [d for d in benchmark.delegations if d.delegate == name]
    if any(d.extent == "none" for d in own):
        return [f"fell back to the CPU: {name} took no part of the model"]
    if not own:
        return [f"the log does not say that {name} took the model"]
    return []


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

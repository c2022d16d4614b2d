"""The protocol on one device: look, wait, check, measure in rounds, profile, clean up.

preflight -> [private folder: push -> check each pair -> rounds -> profiles] -> analysis
                                 cool-down before every start
"""

from __future__ import annotations

import dataclasses
import datetime
import pathlib
import platform
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any, Optional

from android_bench import device, elf, outputs, parse, plan, results, validity
from android_bench.adb import Adb, AdbTimeout, DeviceConnection, DeviceLost, printable
from android_bench.device import DeviceInfo, DeviceState
from android_bench.outputs import Comparison
from android_bench.parse import BenchmarkRun
from android_bench.plan import Configuration, Model, Settings
from android_bench.remote_folder import RemoteFolder, private_folder, sha256
from android_bench.results import Check, Measurement, Profile, Session
from tff_autoprune import files
from tff_autoprune.errors import UserError

_COOL_POLL_S = 5.0
# Inputs, outputs and the file system's own needs, beside the pushed files.
_SPARE_KIB = 4096
# A pair that hangs twice is not waited for a third time.
_MAX_HANGS = 2


class NotFit(UserError):
    """The device is in no state to be measured, and `--force` was not given."""


def measure(
    adb: Adb,
    serial: str,
    binary: pathlib.Path,
    models: Sequence[Model],
    settings: Settings,
    folder: pathlib.Path,
    say: Callable[[str], None],
) -> Session:
    """Measures the models on one device and writes the result.

    Args:
      adb: The client.
      serial: The device, which has to be ready.
      binary: benchmark_model for the device's ABI.
      models: The first is the baseline.
      settings: What to do.
      folder: Where result.json, measurements.csv and logs/ go.
      say: Takes a line about the progress.

    Returns:
      The session. If the device was lost on the way, it has what was measured until then, and
      `stopped` says so.

    Raises:
      UserError: If nothing could be measured: wrong ABI, unfit device, no space.
    """
    connection = DeviceConnection(adb, serial)
    info = device.read_info(connection)
    abi = elf.abi(binary)
    if abi not in info.abis:
        raise UserError(
            f"{printable(serial)}: {binary.name} is for {abi}, the device runs"
            f" {', '.join(info.abis) or 'an unknown ABI'}; take the benchmark_model for it."
        )
    runner = _Runner(adb, connection, info, abi, binary, models, settings, folder, say)
    try:
        runner.run()
    finally:
        # Also after Ctrl-C: what was measured was measured.
        if runner.session.checks:
            results.mark_drift(runner.session)
            results.write(runner.session, folder)
    return runner.session


class _Runner:
    """One session while it runs."""

    def __init__(
        self,
        adb: Adb,
        connection: DeviceConnection,
        info: DeviceInfo,
        abi: str,
        binary: pathlib.Path,
        models: Sequence[Model],
        settings: Settings,
        folder: pathlib.Path,
        say: Callable[[str], None],
    ) -> None:
        self._connection = connection
        self._info = info
        self._binary = binary
        self._models = list(models)
        self._settings = settings
        self._folder = folder
        self._say = say
        self._masks = {
            c: device.core_mask(info, c.cores, c.threads) for c in settings.configurations
        }
        self._hangs: dict[tuple[Configuration, Model], int] = {}
        self.session = Session(
            created=_now(),
            backend=info.backend,
            adb=adb.version(),
            host={"system": platform.system(), "machine": platform.machine()},
            device=info,
            binary={"name": binary.name, "abi": abi, **_file_facts(binary)},
            models=[
                {"label": model.label, "name": model.path.name, **_file_facts(model.path)}
                for model in models
            ],
            settings=settings,
        )

    def run(self) -> None:
        self._preflight()
        try:
            with private_folder(self._connection) as remote:
                try:
                    self._run_in(remote)
                except (DeviceLost, AdbTimeout, NotFit) as error:
                    self._stop(str(error))
                except (KeyboardInterrupt, SystemExit):
                    self.session.stopped = "interrupted"
                    raise
        except (DeviceLost, AdbTimeout) as error:
            # Of the clean-up; before the first measurement there is nothing worth keeping.
            if not self.session.checks:
                raise
            self._stop(str(error))

    def _stop(self, why: str) -> None:
        if self.session.stopped:
            why = f"{self.session.stopped}; {why}"
        self.session.stopped = why
        self._say(f"stopped: {why}")

    def _run_in(self, remote: RemoteFolder) -> None:
        self._program = remote.put(self._binary, ".benchmark_model", executable=True)
        self._remote_models = {model: remote.put(model.path, ".tflite") for model in self._models}
        pairs = [(c, m) for c in self._settings.configurations for m in self._models]
        for configuration, model in pairs:
            self.session.checks.append(self._check(remote, configuration, model))
        fit = {(c, m) for (c, m), check in zip(pairs, self.session.checks) if not check.reasons}
        rounds = plan.order(
            self._models, self._settings.configurations, self._settings.rounds, self._settings.seed
        )
        for number, sequence in enumerate(rounds, start=1):
            for position, pair in enumerate(sequence, start=1):
                if pair in fit and self._hangs.get(pair, 0) < _MAX_HANGS:
                    self._measure(remote, number, position, *pair)
        if self._settings.profile:
            for configuration, model in pairs:
                if (configuration, model) in fit:
                    self._profile(remote, configuration, model)

    def _preflight(self) -> None:
        need_kib = _SPARE_KIB + sum(
            path.stat().st_size // 1024 + 1
            for path in (self._binary, *(model.path for model in self._models))
        )
        state = self._wait_until_cool()
        cores = sorted({core for c in self._masks for core in self._cores(c)})
        reasons = validity.preflight(self._info, state, self._settings, cores, need_kib)
        no_space = state.free_kib is not None and state.free_kib < need_kib
        if reasons and (no_space or not self._settings.force):
            hint = "" if no_space else "; --force measures all the same and marks it invalid"
            raise NotFit(
                f"{printable(self._connection.serial)}: not fit to be measured:"
                f" {'; '.join(reasons)}{hint}."
            )
        self.session.preflight = reasons

    def _check(self, remote: RemoteFolder, configuration: Configuration, model: Model) -> Check:
        """Runs the model once, as it will be measured, and compares its outputs."""
        title = f"check {model.label}, {configuration}"
        # A name of its own: what another model wrote must not stand in for this one.
        remote_output = f"{remote.path}/output{len(self.session.checks)}"
        reference, output_flags, why_not = self._reference(remote, model, remote_output)
        check = Check(model.label, configuration, [], Comparison(False, None, why_not))
        flags = [
            "--num_runs=1",
            "--min_secs=0",
            "--warmup_runs=1",
            "--warmup_min_secs=0",
            "--report_peak_memory_footprint=true",
            *output_flags,
        ]
        try:
            code, text = self._start(remote, configuration, model, flags)
        except AdbTimeout as error:
            check.log = self._keep_log(title, error.output)
            check.reasons = [f"hung: {error}"]
            self._say(f"{title}: INVALID: {check.reasons[0]}")
            return check
        check.log = self._keep_log(title, text)
        benchmark, reasons = _read(text)
        if benchmark and benchmark.unconsumed_flags:
            left = outputs.without_own_flags(benchmark.unconsumed_flags)
            if left != benchmark.unconsumed_flags:
                reference = None
                why_not = "not compared: this binary does not take inputs or write outputs"
                check.outputs = Comparison(False, None, why_not)
            benchmark = dataclasses.replace(benchmark, unconsumed_flags=left)
        check.reasons = reasons or validity.run(benchmark, code, configuration.delegate, 1)
        if benchmark:
            check.peak_memory_mb = benchmark.peak_memory_mb
            check.partially_delegated = validity.is_partial(benchmark, configuration.delegate)
        if reference and not check.reasons:
            raw = remote.fetch(remote_output) or b""
            check.outputs = reference.compare(raw, configuration.delegate)
            if check.outputs.match is False:
                check.reasons = [f"wrong result: {check.outputs.detail}"]
        outcome = f"INVALID: {'; '.join(check.reasons)}" if check.reasons else check.outputs.detail
        self._say(f"{title}: {outcome}")
        return check

    def _reference(
        self, remote: RemoteFolder, model: Model, remote_output: str
    ) -> tuple[Optional[outputs.Reference], list[str], str]:
        """Returns what to compare with, the flags that it takes, or else why there is none."""
        try:
            reference = outputs.Reference(model.path, self._settings.seed)
            with tempfile.TemporaryDirectory(prefix="android_bench_") as scratch:
                inputs = [remote.put(p) for p in reference.write_inputs(pathlib.Path(scratch))]
            return reference, reference.flags(inputs, remote_output), "not compared"
        except ImportError:
            why_not = "no tflite-runtime or tensorflow on this computer"
        except ValueError as error:
            why_not = str(error)
        return None, [], f"not compared: {why_not}"

    def _measure(
        self,
        remote: RemoteFolder,
        number: int,
        position: int,
        configuration: Configuration,
        model: Model,
    ) -> None:
        before = self._wait_until_cool()
        hot = validity.heat(before, self._settings)
        if hot and not self._settings.force:
            raise NotFit(
                f"it did not cool down within {self._settings.cool_timeout_s:g} s: {hot[0]}"
            )
        settings = self._settings
        measurement = Measurement(
            round=number,
            position=position,
            model=model.label,
            configuration=configuration,
            core_mask=self._masks[configuration],
            started=_now(),
            reasons=[f"before the start: {reason}" for reason in self.session.preflight],
            before_c=before.body_c,
            cpu_before_c=before.cpu_c,
        )
        self.session.measurements.append(measurement)
        title = f"round {number}, {model.label}, {configuration}"
        flags = [
            f"--num_runs={settings.num_runs}",
            f"--min_secs={settings.min_secs:g}",
            f"--max_secs={settings.max_secs:g}",
            f"--warmup_min_secs={settings.warmup_secs:g}",
        ]
        try:
            measurement.exit_code, text = self._start(remote, configuration, model, flags)
        except AdbTimeout as error:
            measurement.log = self._keep_log(title, error.output)
            measurement.reasons.append(f"hung: {error}")
            pair = (configuration, model)
            self._hangs[pair] = self._hangs.get(pair, 0) + 1
            self._say(f"{title}: INVALID: {measurement.reasons[-1]}")
            return
        except DeviceLost as error:
            measurement.log = self._keep_log(title, error.output)
            measurement.reasons.append("the device was lost")
            raise
        except (KeyboardInterrupt, SystemExit):
            measurement.reasons.append("interrupted")
            raise
        measurement.log = self._keep_log(title, text)
        benchmark, reasons = _read(text)
        measurement.benchmark = benchmark
        measurement.reasons += reasons or validity.run(
            benchmark, measurement.exit_code, configuration.delegate, settings.num_runs
        )
        after = device.read_state(self._connection)
        measurement.after_c, measurement.cpu_after_c = after.body_c, after.cpu_c
        measurement.reasons += validity.throttling(
            self._info, before, after, self._cores(configuration)
        )
        if measurement.reasons:
            outcome = f"INVALID: {'; '.join(measurement.reasons)}"
        else:
            outcome = f"{benchmark.inference.mean_us / 1e3:.3f} ms"
        self._say(f"{title}: {outcome}")

    def _profile(self, remote: RemoteFolder, configuration: Configuration, model: Model) -> None:
        title = f"profile {model.label}, {configuration}"
        flags = ["--num_runs=20", "--min_secs=0.2", "--enable_op_profiling=true"]
        try:
            code, text = self._start(remote, configuration, model, flags)
        except AdbTimeout as error:
            log = self._keep_log(title, error.output)
            reasons, operators = [f"hung: {error}"], ()
        else:
            log = self._keep_log(title, text)
            benchmark, reasons = _read(text)
            reasons = reasons or validity.run(benchmark, code, configuration.delegate, 1)
            operators = benchmark.operators if benchmark else ()
            if not operators and not reasons:
                reasons = ["the output has no per-operator table"]
        self.session.profiles.append(Profile(model.label, configuration, reasons, operators, log))
        self._say(f"{title}: {'; '.join(reasons) or f'{len(operators)} operators'}")

    def _start(
        self, remote: RemoteFolder, configuration: Configuration, model: Model, flags: list[str]
    ) -> tuple[int, str]:
        return remote.run(
            [
                self._program,
                f"--graph={self._remote_models[model]}",
                f"--num_threads={configuration.threads}",
                *plan.DELEGATE_FLAGS[configuration.delegate],
                *flags,
            ],
            self._settings.timeout_s,
            self._masks[configuration],
        )

    def _wait_until_cool(self) -> DeviceState:
        """Returns the device's state as soon as it is cool, or when the time is up."""
        deadline = time.monotonic() + self._settings.cool_timeout_s
        told = False
        while True:
            state = device.read_state(self._connection)
            hot = validity.heat(state, self._settings)
            left = deadline - time.monotonic()
            if not hot or self._settings.force or left <= 0:
                return state
            if not told:
                self._say(f"waiting until it is cooler: {hot[0]}")
                told = True
            time.sleep(min(_COOL_POLL_S, left))

    def _cores(self, configuration: Configuration) -> tuple[int, ...]:
        return device.cores_in_mask(self._masks[configuration], self._info)

    def _keep_log(self, title: str, text: str) -> str:
        """Writes what the binary printed; returns the file's name below the device's folder."""
        name = "".join(c if c.isalnum() else "_" for c in title)
        path = pathlib.Path("logs") / f"{name}.txt"
        files.write_text(self._folder / path, text)
        return str(path)


def _read(text: str) -> tuple[Optional[BenchmarkRun], list[str]]:
    """Returns the last run in the output, and what kept it from being read."""
    try:
        runs = parse.parse_log(text)
    except parse.ParseError as error:
        return None, [f"unknown output: {error}"]
    return (runs[-1] if runs else None), []


def _file_facts(path: pathlib.Path) -> dict[str, Any]:
    return {"sha256": sha256(path), "size_bytes": path.stat().st_size}


def _now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")

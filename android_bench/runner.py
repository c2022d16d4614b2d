"""The protocol on one device: look, wait, check, measure in rounds, and what else was asked for.

preflight -> [private folder: copy -> check each pair -> rounds -> profiles, sustained, energy]
                                 cool-down before every start
"""

from __future__ import annotations

import dataclasses
import datetime
import pathlib
import platform
import time
from collections.abc import Callable, Sequence

from android_bench import (
    checks,
    cores,
    device,
    energy,
    outputs,
    plan,
    results,
    sustained,
    validity,
)
from android_bench.adb import Adb, AdbTimeout, DeviceConnection, DeviceLost, printable
from android_bench.device import DeviceInfo, DeviceState
from android_bench.errors import UserError
from android_bench.plan import Configuration, Model, Settings
from android_bench.program import Program
from android_bench.records import Check, Measurement, Profile, Session
from android_bench.remote_folder import RemoteFolder, private_folder, sha256
from android_bench.starter import Starter

_COOL_POLL_S = 5.0
# Inputs, outputs and the file system's own needs, beside the pushed files.
_SPARE_KIB = 4096
# A pair that hangs twice is not waited for a third time.
_MAX_HANGS = 2
# Seconds of one start in a sustained run, and of the one that energy is estimated from.
_LONG_RUN_S = 10.0


class NotFit(UserError):
    """The device is in no state to be measured, and `--force` was not given."""


def measure(
    adb: Adb,
    serial: str,
    program: Program,
    models: Sequence[Model],
    settings: Settings,
    folder: pathlib.Path,
    say: Callable[[str], None],
) -> Session:
    """Measures the models on one device and writes the result.

    Args:
      adb: The client.
      serial: The device, which has to be ready.
      program: What measures; has to be for the device's ABI.
      models: The first is the baseline.
      settings: What to do.
      folder: Where result.json, measurements.csv and logs/ go. What an earlier session left there
        is moved into a folder of its own.
      say: Takes a line about the progress.

    Returns:
      The session. If the device was lost on the way, it has what was measured until then, and
      `stopped` says so.

    Raises:
      UserError: If nothing could be measured: wrong ABI, unfit device, no space. Nothing is written
        or moved then.
    """
    connection = DeviceConnection(adb, serial)
    info = device.read_info(connection)
    if not set(program.abis) & set(info.abis):
        raise UserError(
            f"{printable(serial)}: {program.path.name} is for {', '.join(program.abis)}, the"
            f" device runs {', '.join(info.abis) or 'an unknown ABI'}; take the one for it."
        )
    runner = _Runner(adb, connection, info, program, models, settings, folder, say)
    try:
        runner.run()
    finally:
        # Also after Ctrl-C: what was measured was measured.
        if runner.began:
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
        program: Program,
        models: Sequence[Model],
        settings: Settings,
        folder: pathlib.Path,
        say: Callable[[str], None],
    ) -> None:
        self._connection = connection
        self._info = info
        self._program = program
        self._models = list(models)
        self._settings = settings
        self._folder = folder
        self._say = say
        self._masks = {
            c: cores.core_mask(info, c.cores, c.threads) for c in settings.configurations
        }
        self._starter = Starter(program, settings, self._masks, folder)
        self._hangs: dict[tuple[Configuration, Model], int] = {}
        self.began = False
        self.session = Session(
            created=_now(),
            backend=info.backend,
            adb=adb.version(),
            host={"system": platform.system(), "machine": platform.machine()},
            device=info,
            program=program.facts(),
            models=[
                {
                    "label": model.label,
                    "name": model.path.name,
                    "sha256": sha256(model.path),
                    "size_bytes": model.path.stat().st_size,
                }
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
            # Of the clean-up, or before the folder was made: then there is nothing worth keeping.
            if not self.began:
                raise
            self._stop(str(error))

    def _stop(self, why: str) -> None:
        if self.session.stopped:
            why = f"{self.session.stopped}; {why}"
        self.session.stopped = why
        self._say(f"stopped: {why}")

    def _run_in(self, remote: RemoteFolder) -> None:
        settings = self._settings
        try:
            failures = self._starter.install(remote, self._models)
            results.set_aside_earlier(self._folder)
            self.began = True
            pairs = [(c, m) for c in settings.configurations for m in self._models]
            fit = self._check(remote, pairs, failures)
            rounds = plan.order(
                self._models, settings.configurations, settings.rounds, settings.seed
            )
            for number, sequence in enumerate(rounds, start=1):
                for position, pair in enumerate(sequence, start=1):
                    if pair in fit and self._hangs.get(pair, 0) < _MAX_HANGS:
                        self._measure(remote, number, position, *pair)
            for pair in pairs:
                if pair in fit:
                    self._measure_more(remote, *pair)
        finally:
            self._program.uninstall()

    def _measure_more(
        self, remote: RemoteFolder, configuration: Configuration, model: Model
    ) -> None:
        if self._settings.profile:
            self._profile(configuration, model)
        if self._settings.sustained_min:
            self._sustain(remote, configuration, model)
        if self._settings.energy:
            self._estimate_energy(remote, configuration, model)

    def _preflight(self) -> None:
        need_kib = _SPARE_KIB + sum(
            path.stat().st_size // 1024 + 1
            for path in (self._program.path, *(model.path for model in self._models))
        )
        state = self._wait_until_cool()
        used = sorted({core for c in self._masks for core in self._cores(c)})
        reasons = validity.preflight(self._info, state, self._settings, used, need_kib)
        no_space = state.free_kib is not None and state.free_kib < need_kib
        if reasons and (no_space or not self._settings.force):
            hint = "" if no_space else "; --force measures all the same and marks it invalid"
            raise NotFit(
                f"{printable(self._connection.serial)}: not fit to be measured:"
                f" {'; '.join(reasons)}{hint}."
            )
        self.session.preflight = reasons

    def _check(
        self,
        remote: RemoteFolder,
        pairs: Sequence[tuple[Configuration, Model]],
        failures: dict[Model, str],
    ) -> set[tuple[Configuration, Model]]:
        """Checks every pair; returns those that are measured."""
        for configuration, model in pairs:
            if model in failures:
                nothing = outputs.Comparison(False, None, "not compared")
                check = Check(model.label, configuration, [failures[model]], nothing)
                self._say(f"check {model.label}, {configuration}: INVALID: {failures[model]}")
            else:
                number = len(self.session.checks)
                check = checks.check(self._starter, remote, configuration, model, number, self._say)
            self.session.checks.append(check)
        return {pair for pair, check in zip(pairs, self.session.checks) if not check.reasons}

    def _measure(
        self,
        remote: RemoteFolder,
        number: int,
        position: int,
        configuration: Configuration,
        model: Model,
    ) -> None:
        before = self._cool_down(remote)
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
            outcome = self._starter.run(title, configuration, model, flags, settings.num_runs)
        except DeviceLost:
            measurement.reasons.append("the device was lost")
            raise
        except (KeyboardInterrupt, SystemExit):
            measurement.reasons.append("interrupted")
            raise
        measurement.log, measurement.exit_code = outcome.log, outcome.exit_code
        measurement.benchmark = outcome.benchmark
        measurement.reasons += outcome.reasons
        if outcome.hung:
            pair = (configuration, model)
            self._hangs[pair] = self._hangs.get(pair, 0) + 1
        else:
            after = device.read_state(self._connection)
            measurement.after_c, measurement.cpu_after_c = after.body_c, after.cpu_c
            measurement.reasons += validity.throttling(
                self._info, before, after, self._cores(configuration)
            )
        if measurement.reasons:
            text = f"INVALID: {'; '.join(measurement.reasons)}"
        else:
            text = f"{measurement.benchmark.inference.mean_us / 1e3:.3f} ms"
        self._say(f"{title}: {text}")

    def _profile(self, configuration: Configuration, model: Model) -> None:
        title = f"profile {model.label}, {configuration}"
        flags = ["--num_runs=20", "--min_secs=0.2", "--enable_op_profiling=true"]
        outcome = self._starter.run(title, configuration, model, flags, 1)
        reasons = outcome.reasons
        operators = outcome.benchmark.operators if outcome.benchmark else ()
        if not operators and not reasons:
            reasons = ["the output has no per-operator table"]
        self.session.profiles.append(
            Profile(model.label, configuration, reasons, operators, outcome.log)
        )
        self._say(f"{title}: {'; '.join(reasons) or f'{len(operators)} operators'}")

    def _sustain(self, remote: RemoteFolder, configuration: Configuration, model: Model) -> None:
        minutes = self._settings.sustained_min
        how = dataclasses.asdict(configuration)
        run = sustained.SustainedRun(model.label, how, minutes, [], [])
        self.session.sustained.append(run)
        self._cool_down(remote)
        title = f"sustained {model.label}, {configuration}"
        flags = _long_run_flags(min(_LONG_RUN_S, 60 * minutes / sustained.MIN_POINTS))
        begin = time.monotonic()
        while time.monotonic() - begin < 60 * minutes or len(run.points) < sustained.MIN_POINTS:
            outcome = self._starter.run(title, configuration, model, flags, 1)
            if outcome.reasons:
                run.reasons = outcome.reasons
                break
            state = device.read_state(self._connection)
            run.points.append(
                sustained.Point(
                    time.monotonic() - begin,
                    outcome.benchmark.inference.mean_us,
                    state.body_c,
                    state.cpu_c,
                    state.thermal_status,
                )
            )
        self._say(f"{title}: {'; '.join(run.reasons) or f'{len(run.points)} starts'}")

    def _estimate_energy(
        self, remote: RemoteFolder, configuration: Configuration, model: Model
    ) -> None:
        title = f"energy {model.label}, {configuration}"
        how = dataclasses.asdict(configuration)
        if self._cool_down(remote).charging:
            why = "no estimate while the phone is charged: connect over Wi-Fi, and unplug it"
            found = energy.EnergyEstimate(model.label, how, [why])
        else:
            gauge = energy.Gauge(remote)
            gauge.start()
            time.sleep(energy.IDLE_S)
            idle = gauge.stop()
            gauge.start()
            flags = _long_run_flags(_LONG_RUN_S)
            outcome = self._starter.run(title, configuration, model, flags, 1)
            running = gauge.stop()
            if outcome.reasons:
                found = energy.EnergyEstimate(model.label, how, outcome.reasons)
            else:
                mean_us = outcome.benchmark.inference.mean_us
                found = energy.estimate(model.label, how, idle, running, mean_us)
        self.session.energy.append(found)
        text = "; ".join(found.reasons) or f"about {found.millijoules:.3g} mJ an inference"
        self._say(f"{title}: {text}")

    def _cool_down(self, remote: RemoteFolder) -> DeviceState:
        """Returns the device's state when it is cool.

        Raises:
          NotFit: If it does not become so in time, and `--force` was not given.
        """
        remote.keep(self._settings.cool_timeout_s)
        state = self._wait_until_cool()
        hot = validity.heat(state, self._settings)
        if hot and not self._settings.force:
            raise NotFit(
                f"it did not cool down within {self._settings.cool_timeout_s:g} s: {hot[0]}"
            )
        return state

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
        return cores.cores_in_mask(self._masks[configuration], self._info)


def _long_run_flags(seconds: float) -> list[str]:
    return ["--num_runs=1", f"--min_secs={seconds:g}", "--warmup_runs=1", "--warmup_min_secs=0"]


def _now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")

"""One start of the program on the device: its flags, its log, what it printed, what was wrong."""

from __future__ import annotations

import dataclasses
import pathlib
import re
from collections.abc import Sequence
from typing import Optional

from android_bench import files, parse, tools, validity
from android_bench.adb import AdbError, AdbTimeout, DeviceLost
from android_bench.parse import BenchmarkRun
from android_bench.plan import Configuration, Model, Settings
from android_bench.program import Program
from android_bench.remote_folder import RemoteFolder

# Of the title in a log's name; file systems end at 255 bytes.
_TITLE_LENGTH = 60


@dataclasses.dataclass
class Outcome:
    """A start that ended, or was ended.

    Attributes:
      log: File with what it printed, below the session's folder.
      reasons: Why it does not count; empty if it does.
      exit_code: The program's; None if it hung.
      benchmark: What it printed; None if nothing could be read.
      hung: Whether it had to be ended.
    """

    log: str
    reasons: list[str]
    exit_code: Optional[int] = None
    benchmark: Optional[BenchmarkRun] = None
    hung: bool = False


class Starter:
    """Starts the program with models that it has copied to the device."""

    def __init__(
        self,
        program: Program,
        settings: Settings,
        masks: dict[Configuration, Optional[str]],
        folder: pathlib.Path,
    ) -> None:
        """Copies nothing yet.

        Args:
          program: What measures.
          settings: How.
          masks: Cores of each configuration.
          folder: Where logs/ goes.
        """
        self.program = program
        self.settings = settings
        self._masks = masks
        self._folder = folder
        self._remote_models: dict[Model, str] = {}
        self._logs = 0

    def install(self, remote: RemoteFolder, models: Sequence[Model]) -> dict[Model, str]:
        """Copies program and models to the device; returns why some models could not be.

        Raises:
          AdbError: If the program cannot be copied, or the device was lost.
        """
        self.program.install(remote)
        failures = {}
        for model in models:
            try:
                self._remote_models[model] = remote.put(model.path, ".tflite")
            except (DeviceLost, AdbTimeout):
                raise
            except AdbError as error:
                failures[model] = str(error)
        return failures

    def run(
        self,
        title: str,
        configuration: Configuration,
        model: Model,
        flags: Sequence[str],
        runs_wanted: int,
        optional_flags: Sequence[str] = (),
    ) -> Outcome:
        """Runs the program once.

        Args:
          title: What the log is called.
          configuration: How.
          model: What.
          flags: Besides those that follow from both.
          runs_wanted: Inferences, at least.
          optional_flags: More of them; that the program does not know one of these is no reason.

        Raises:
          DeviceLost: If the connection ended first; the log is kept.
        """
        settings = self.settings
        arguments = tools.command_flags(
            self.program.tool,
            configuration.delegate,
            configuration.threads,
            [f"--graph={self._remote_models[model]}", *flags, *optional_flags],
            settings.signature,
            settings.extra_flags,
        )
        try:
            code, text = self.program.start(
                arguments, settings.timeout_s, self._masks[configuration]
            )
        except AdbTimeout as error:
            log = self._keep_log(title, error.output)
            return Outcome(log, [f"hung: {error}"], hung=True)
        except DeviceLost as error:
            self._keep_log(title, error.output)
            raise
        log = self._keep_log(title, text)
        try:
            runs = parse.parse_log(text)
        except parse.ParseError as error:
            return Outcome(log, [f"unknown output: {error}"], code)
        benchmark = runs[-1] if runs else None
        judged = benchmark and _without_flags(benchmark, optional_flags)
        logged = tools.logged_name(self.program.tool, configuration.delegate, settings.extra_flags)
        reasons = validity.run(judged, code, text, logged, runs_wanted)
        return Outcome(log, reasons, code, benchmark)

    def _keep_log(self, title: str, text: str) -> str:
        """Writes what was printed; returns the file's name below the session's folder."""
        # The number tells apart titles that differ in what file names cannot say.
        self._logs += 1
        slug = re.sub(r"[^A-Za-z0-9.]+", "_", title)[:_TITLE_LENGTH]
        path = pathlib.Path("logs") / f"{self._logs:03}_{slug}.txt"
        files.write_text(self._folder / path, text)
        return str(path)


def _without_flags(benchmark: BenchmarkRun, flags: Sequence[str]) -> BenchmarkRun:
    names = {tools.flag_name(flag) for flag in flags}
    left = [f for f in benchmark.unconsumed_flags.split() if tools.flag_name(f) not in names]
    return dataclasses.replace(benchmark, unconsumed_flags=" ".join(left))

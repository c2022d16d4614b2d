"""What a session on one device records."""

from __future__ import annotations

import dataclasses
from typing import Any, Optional

from android_bench.device import DeviceInfo
from android_bench.energy import EnergyEstimate
from android_bench.outputs import Comparison
from android_bench.parse import BenchmarkRun
from android_bench.plan import Configuration, Settings
from android_bench.profile_table import OperatorTime
from android_bench.sustained import SustainedRun


@dataclasses.dataclass
class Check:
    """The run before all others: does the model run at all, as asked for, and correctly?

    Attributes:
      model: Label.
      configuration: How it ran.
      reasons: Why this pair is not measured; empty if it is.
      outputs: Comparison with this computer's interpreter.
      ran_on: What really ran, as far as the log says; see `delegation.Execution`.
      remarks: What a reader of a valid result should know.
      peak_memory_mb: By periodic monitoring, which would disturb timing.
      log: File with the output, below the session's folder.
    """

    model: str
    configuration: Configuration
    reasons: list[str]
    outputs: Comparison
    ran_on: str = ""
    remarks: list[str] = dataclasses.field(default_factory=list)
    peak_memory_mb: Optional[float] = None
    log: str = ""


@dataclasses.dataclass
class Measurement:
    """One start of the program within the rounds.

    Attributes:
      round: From 1.
      position: Place within the round, from 1.
      model: Label.
      configuration: How it ran.
      core_mask: As given to taskset; None without.
      started: UTC, ISO 8601.
      reasons: Why it does not count; empty if it does.
      exit_code: The program's; None if it did not end.
      benchmark: What it printed, without the operators; None if nothing could be read.
      before_c: Temperature that decides about throttling, before.
      after_c: And after.
      cpu_before_c: The CPU's, before.
      cpu_after_c: And after.
      log: File with the output.
    """

    round: int
    position: int
    model: str
    configuration: Configuration
    core_mask: Optional[str]
    started: str
    reasons: list[str]
    exit_code: Optional[int] = None
    benchmark: Optional[BenchmarkRun] = None
    before_c: Optional[float] = None
    after_c: Optional[float] = None
    cpu_before_c: Optional[float] = None
    cpu_after_c: Optional[float] = None
    log: str = ""


@dataclasses.dataclass
class Profile:
    """A profiling run, apart from the timing.

    Attributes:
      model: Label.
      configuration: How it ran.
      reasons: Why there are no operators, if there are none.
      operators: Rows of its table.
      log: File with the output.
    """

    model: str
    configuration: Configuration
    reasons: list[str]
    operators: tuple[OperatorTime, ...]
    log: str


@dataclasses.dataclass
class Session:
    """All that was done on one device.

    Attributes:
      created: UTC, ISO 8601.
      backend: "phone", "emulator", or the name of a stand-in.
      adb: Version of the client.
      host: System and machine of this computer.
      device: The device.
      program: Name, tool, sha256, ABIs and size of what measured.
      models: Label, file name, sha256 and size of each; the first is the baseline.
      settings: What was asked for.
      preflight: What was wrong with the device, if it was measured all the same.
      checks: One for each model and configuration.
      measurements: In the order in which they were made.
      profiles: If asked for, as are the next two.
      sustained: Runs without a pause.
      energy: Estimates.
      stopped: Why the session ended early; None if it did not.
    """

    created: str
    backend: str
    adb: str
    host: dict[str, str]
    device: DeviceInfo
    program: dict[str, Any]
    models: list[dict[str, Any]]
    settings: Settings
    preflight: list[str] = dataclasses.field(default_factory=list)
    checks: list[Check] = dataclasses.field(default_factory=list)
    measurements: list[Measurement] = dataclasses.field(default_factory=list)
    profiles: list[Profile] = dataclasses.field(default_factory=list)
    sustained: list[SustainedRun] = dataclasses.field(default_factory=list)
    energy: list[EnergyEstimate] = dataclasses.field(default_factory=list)
    stopped: Optional[str] = None

    def of(self, model: str, configuration: Configuration) -> list[Measurement]:
        """Returns the measurements of a pair."""
        return [
            m for m in self.measurements if m.model == model and m.configuration == configuration
        ]

"""What is measured, and in which order.

Models are interleaved and the order is reversed from round to round (A B, B A, A B, ...), so that
whatever drifts, such as heat, hits all of them alike; which order comes first is drawn.
"""

from __future__ import annotations

import dataclasses
import pathlib
import random
from collections.abc import Sequence
from typing import Optional


@dataclasses.dataclass(frozen=True)
class Model:
    """A model file to be measured.

    Attributes:
      label: What tables and plots call it; unique.
      path: The file.
    """

    label: str
    path: pathlib.Path


@dataclasses.dataclass(frozen=True)
class Configuration:
    """How a model is run.

    Attributes:
      threads: Number of threads.
      delegate: A key of the tool's `delegate_flags`.
      cores: "big", "little", "all" or a hexadecimal mask, as the user said it.
    """

    threads: int
    delegate: str
    cores: str

    def __str__(self) -> str:
        """E.g. "xnnpack, 4 threads, big cores"."""
        threads = "1 thread" if self.threads == 1 else f"{self.threads} threads"
        return f"{self.delegate}, {threads}, {self.cores} cores"


@dataclasses.dataclass(frozen=True)
class Settings:
    """Everything that decides what is run; goes into the result as it is.

    Attributes:
      configurations: In the order of the command line.
      rounds: Measurements of each model in each configuration.
      num_runs: At least as many inferences in a measurement.
      min_secs: And at least as long.
      warmup_secs: Warm-up before each measurement, at least one inference.
      max_secs: What the binary is told to stop after, for either.
      timeout_s: After which a run counts as hung.
      max_temperature_c: A measurement starts at most as hot (case, else battery).
      cool_timeout_s: How long to wait for that.
      min_battery_percent: Below it, phones save power.
      max_drift: How much slower than the median round a measurement may be, as a fraction.
      profile: Whether to make a profiling run of each model and configuration.
      signature: The model's signature to be run; None for its first.
      extra_flags: Passed on to the program as they are.
      sustained_min: Minutes of running each without a pause; 0 for none.
      energy: Whether to make a run of each that estimates energy.
      force: Measure in spite of the state of the device; the results are invalid and say so.
      seed: Of the order, and of the input of the output check.
    """

    configurations: tuple[Configuration, ...]
    rounds: int = 7
    num_runs: int = 50
    min_secs: float = 1.0
    warmup_secs: float = 0.5
    max_secs: float = 150.0
    timeout_s: float = 360.0
    max_temperature_c: float = 38.0
    cool_timeout_s: float = 300.0
    min_battery_percent: float = 20.0
    max_drift: float = 0.10
    profile: bool = False
    signature: Optional[str] = None
    extra_flags: tuple[str, ...] = ()
    sustained_min: float = 0.0
    energy: bool = False
    force: bool = False
    seed: int = 0


def order(
    models: Sequence[Model], configurations: Sequence[Configuration], rounds: int, seed: int
) -> list[list[tuple[Configuration, Model]]]:
    """Returns for each round what is run, in order.

    Every round has every pair once. Odd rounds are even ones reversed; the first order is random.
    """
    rng = random.Random(seed)
    configurations = rng.sample(list(configurations), len(configurations))
    models = rng.sample(list(models), len(models))
    forth = [(configuration, model) for configuration in configurations for model in models]
    return [forth if number % 2 == 0 else forth[::-1] for number in range(rounds)]

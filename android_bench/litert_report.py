"""The report of `benchmark_litert_model`, LiteRT's tool for its CompiledModel, in milliseconds.

    Model initialization: 23744.73 ms
    Warmup (avg):         7441.04 ms (1 runs)
    Inference (avg):      7430.20 ms (60 runs)

Format as in litert/tools/benchmark_litert_model.h. Some builds print lines in microseconds besides.
"""

from __future__ import annotations

import dataclasses
import re
from typing import Optional

from android_bench.profile_table import ParseError

# It rounds to 0.01 ms.
ROUNDING_US = 5.001

_NUMBER = r"\d+(?:\.\d+)?(?:[eE][+-]?\d+)?"
# The deviation is printed without a unit, so it is not taken.
_TIMES = {
    "Model initialization": "init",
    "Warmup (first)": "first",
    "Warmup (avg)": "warmup",
    "Inference (avg)": "inference",
    "Inference (min)": "min",
    "Inference (max)": "max",
}
_MEMORY = {
    "Init footprint": "memory_init_mb",
    "Overall footprint": "memory_overall_mb",
    "Peak memory": "peak_memory_mb",
}
LABELS = (*_TIMES, *_MEMORY)
_TIME = re.compile(rf"(?P<label>[^:]+):\s+(?P<value>{_NUMBER}) ms(?: \((?P<runs>\d+) runs\))?")
_SIZE = re.compile(rf"(?P<label>[^:]+):\s+(?P<value>-?{_NUMBER}) MB")


@dataclasses.dataclass
class Report:
    """What was read of it.

    Attributes:
      times_us: "init", "first", "warmup", "inference", "min", "max" -> microseconds.
      memory_mb: Field of `BenchmarkRun` -> megabytes, of 2^20 bytes.
      runs: Inferences in the measurement; None if not read yet.
    """

    times_us: dict[str, float] = dataclasses.field(default_factory=dict)
    memory_mb: dict[str, float] = dataclasses.field(default_factory=dict)
    runs: Optional[int] = None

    def read(self, number: int, message: str) -> None:
        """Takes a line that starts with one of `LABELS`.

        Raises:
          ParseError: If it has another unit, or none.
        """
        pattern = _TIME if message.split(":")[0] in _TIMES else _SIZE
        match = pattern.fullmatch(message)
        if not match:
            raise ParseError(number, message, "not a known format of this line")
        if pattern is _SIZE:
            self.memory_mb[_MEMORY[match["label"]]] = float(match["value"])
            return
        key = _TIMES[match["label"]]
        self.times_us[key] = 1e3 * float(match["value"])
        if key == "inference" and match["runs"]:
            self.runs = int(match["runs"])

    @staticmethod
    def ends_with(message: str) -> bool:
        """Whether the line is the one that makes a run complete."""
        return message.startswith("Inference (avg):")

"""Energy per inference, estimated from what the battery's gauge says while the model runs.

The kernel gives current and voltage of the battery (Documentation/ABI/testing/sysfs-class-power).
Gauges average over seconds, count the screen and the radio, and some give milliamperes instead of
microamperes. Idle power is subtracted, and what is left is an estimate, marked as one everywhere.
"""

from __future__ import annotations

import dataclasses
import statistics
from typing import Any, Optional

from android_bench.adb import quote
from android_bench.remote_folder import RemoteFolder

_COMMAND_TIMEOUT_S = 30.0
_GAUGE = "/sys/class/power_supply/battery"
# No phone with its screen on draws less than 10 mA; smaller numbers are milliamperes.
_MICROAMPERES_FROM = 10_000
# Volts of one or two cells.
_PLAUSIBLE_V = (2.5, 10.0)
_MIN_SAMPLES = 5
IDLE_S = 5


@dataclasses.dataclass
class EnergyEstimate:
    """Of one model in one configuration.

    Attributes:
      model: Label.
      configuration: How it ran, as a mapping.
      reasons: Why there is no estimate; empty if there is.
      idle_w: Power without the model, watts.
      power_w: Power while it ran.
      millijoules: Their difference times the time of an inference.
      samples: Readings while it ran.
    """

    model: str
    configuration: dict[str, Any]
    reasons: list[str]
    idle_w: Optional[float] = None
    power_w: Optional[float] = None
    millijoules: Optional[float] = None
    samples: int = 0


class Gauge:
    """Reads the battery's gauge in the background, on the device."""

    def __init__(self, folder: RemoteFolder) -> None:
        """Starts nothing."""
        self._folder = folder
        self._flag = f"{folder.path}/sampling"
        self._log = f"{folder.path}/power"

    def start(self) -> None:
        """Starts; ends by itself when the folder goes."""
        # Not every `sleep` knows fractions.
        loop = (
            f"while [ -e {quote(self._flag)} ]; do"
            f' echo "$(cat {_GAUGE}/current_now) $(cat {_GAUGE}/voltage_now)";'
            " sleep 0.2 || sleep 1; done"
        )
        self._shell(
            f"echo > {quote(self._flag)}; ( {loop} ) > {quote(self._log)} 2>/dev/null < /dev/null &"
        )

    def stop(self) -> list[float]:
        """Stops; returns watts, in the order in which they were read."""
        self._shell(f"rm -f {quote(self._flag)}")
        return parse((self._folder.fetch(self._log) or b"").decode(errors="replace"))

    def _shell(self, script: str) -> None:
        self._folder.connection.shell(script, _COMMAND_TIMEOUT_S)


def parse(text: str) -> list[float]:
    """Returns watts for each line of current and voltage that can be read."""
    watts = []
    for line in text.splitlines():
        words = line.split()
        if len(words) != 2 or not all(word.lstrip("-").isdigit() for word in words):
            continue
        # The sign says charging or not, differently by maker.
        current, volts = abs(int(words[0])), int(words[1]) / 1e6
        amperes = current / (1e6 if current >= _MICROAMPERES_FROM else 1e3)
        if current and _PLAUSIBLE_V[0] <= volts <= _PLAUSIBLE_V[1]:
            watts.append(amperes * volts)
    return watts


def estimate(
    model: str,
    configuration: dict[str, Any],
    idle: list[float],
    running: list[float],
    mean_us: float,
) -> EnergyEstimate:
    """Returns the estimate for a run.

    Args:
      model: Label.
      configuration: How it ran.
      idle: Watts before it.
      running: Watts while it ran.
      mean_us: Its mean time per inference.
    """
    found = EnergyEstimate(model, configuration, [], samples=len(running))
    if min(len(idle), len(running)) < _MIN_SAMPLES:
        found.reasons = ["the phone does not tell current and voltage of its battery"]
        return found
    found.idle_w, found.power_w = statistics.mean(idle), statistics.mean(running)
    if found.power_w <= found.idle_w:
        found.reasons = ["power while running was not above idle power"]
    else:
        found.millijoules = (found.power_w - found.idle_w) * mean_us / 1e3
    return found

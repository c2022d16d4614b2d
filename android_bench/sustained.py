"""Running without a pause until the phone throttles: how fast before, how fast after, and when."""

from __future__ import annotations

import dataclasses
import statistics
from typing import Any, Optional

# Slower than at the start by as much counts as throttled.
_THROTTLED = 1.10
# Starts of the program whose median stands for a phase.
_WINDOW = 3
# A first and a last phase.
MIN_POINTS = 2 * _WINDOW


@dataclasses.dataclass
class Point:
    """One start of the program.

    Attributes:
      at_s: Seconds since the first start, at its end.
      mean_us: Its mean time per inference.
      body_c: Temperature of case or battery, at its end.
      cpu_c: The CPU's.
      thermal_status: Android's.
    """

    at_s: float
    mean_us: float
    body_c: Optional[float]
    cpu_c: Optional[float]
    thermal_status: Optional[int]


@dataclasses.dataclass
class SustainedRun:
    """All starts of one model in one configuration.

    Attributes:
      model: Label.
      configuration: How it ran, as a mapping.
      minutes: How long it was to run.
      reasons: Why it ended early, or has no result.
      points: In the order of time.
    """

    model: str
    configuration: dict[str, Any]
    minutes: float
    reasons: list[str]
    points: list[Point]


def analyse(points: list[Point]) -> dict[str, Optional[float]]:
    """Returns the course of a run in four figures; None where there are too few points.

    Args:
      points: In the order of time.

    Returns:
      initial_us: Median of the first three points.
      final_us: Median of the last three.
      slowdown: Their ratio; above 1 is slower.
      throttled_after_s: When, for the first time, three points in a row were more than 10 % slower
        than at the start; None if never.
    """
    if len(points) < MIN_POINTS:
        return dict.fromkeys(("initial_us", "final_us", "slowdown", "throttled_after_s"))
    times = [point.mean_us for point in points]
    initial = statistics.median(times[:_WINDOW])
    final = statistics.median(times[-_WINDOW:])
    throttled = next(
        (
            points[i].at_s
            for i in range(len(points) - _WINDOW + 1)
            if min(times[i : i + _WINDOW]) > _THROTTLED * initial
        ),
        None,
    )
    return {
        "initial_us": initial,
        "final_us": final,
        "slowdown": final / initial,
        "throttled_after_s": throttled,
    }

"""The speed-up ratio and its interval, from rounds that ran side by side."""

from __future__ import annotations

import dataclasses
import random
import statistics
from collections.abc import Sequence
from typing import Optional

# Fewer pairs say nothing about their scatter.
_MIN_PAIRS = 3
# The ends of the interval then scatter by far less than the interval is wide.
_RESAMPLES = 4_000
CONFIDENCE = 0.95


@dataclasses.dataclass(frozen=True)
class Ratio:
    """How much faster one model is than another.

    Attributes:
      ratio: Median time of the baseline over median time of the model; above 1 is faster.
      low: Lower end of the 95 % interval; None if there are fewer than three rounds.
      high: Upper end.
      rounds: Rounds in which both are valid.
    """

    ratio: float
    low: Optional[float]
    high: Optional[float]
    rounds: int

    @property
    def verdict(self) -> str:
        """In words, no stronger than the interval allows."""
        if self.low is None or self.high is None:
            return "too few rounds for an interval"
        if self.low > 1:
            return "faster"
        if self.high < 1:
            return "slower"
        return "no difference shown"


def ratio_of_medians(baseline: Sequence[float], model: Sequence[float], seed: int) -> Ratio:
    """Returns the speed-up of `model` over `baseline`.

    The interval is the percentile bootstrap (Efron and Tibshirani 1993, chapter 13). Rounds are
    drawn, not single values, so that what two neighbours share stays shared.

    Args:
      baseline: One time per round.
      model: Its partner of the same round, same unit.
      seed: Of the draws.
    """
    if len(baseline) != len(model) or not baseline:
        raise ValueError(f"expected pairs, found {len(baseline)} and {len(model)} values")
    count = len(baseline)
    ratio = statistics.median(baseline) / statistics.median(model)
    if count < _MIN_PAIRS:
        return Ratio(ratio, None, None, count)
    rng = random.Random(seed)
    ratios = []
    for _ in range(_RESAMPLES):
        drawn = rng.choices(range(count), k=count)
        ratios.append(
            statistics.median([baseline[i] for i in drawn])
            / statistics.median([model[i] for i in drawn])
        )
    ratios.sort()
    tail = (1 - CONFIDENCE) / 2
    return Ratio(
        ratio,
        low=ratios[int(tail * _RESAMPLES)],
        high=ratios[int((1 - tail) * _RESAMPLES) - 1],
        rounds=count,
    )

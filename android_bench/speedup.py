"""The speed-up ratio and its interval, from rounds that ran side by side."""

from __future__ import annotations

import dataclasses
import functools
import math
import statistics
from collections.abc import Sequence
from typing import Optional

CONFIDENCE = 0.95
# With fewer pairs no interval of the signed-rank test reaches 95 %: with five it ends at 93.75 %.
MIN_PAIRS = 6


@dataclasses.dataclass(frozen=True)
class Ratio:
    """How much faster one model is than another.

    Attributes:
      ratio: Time of the baseline over time of the model; above 1 is faster.
      low: Lower end of the 95 % interval; None if there are fewer than six rounds.
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
            return f"too few rounds for an interval ({self.rounds}, at least {MIN_PAIRS})"
        if self.low > 1:
            return "faster"
        if self.high < 1:
            return "slower"
        return "no difference shown"


def paired_ratio(baseline: Sequence[float], model: Sequence[float]) -> Ratio:
    """Returns the speed-up of `model` over `baseline`.

    The estimate is Hodges and Lehmann's of the logarithm of the ratio, and the interval the one of
    Wilcoxon's signed-rank test (Hollander, Wolfe and Chicken 2014, section 3.3). Its level is exact
    for any number of rounds if the pairs scatter alike in both directions, as two equal models do
    whatever the noise; a bootstrap covers too little with so few. What two neighbours share, such
    as the heat of their round, cancels.

    Args:
      baseline: One time per round.
      model: Its partner of the same round, same unit.
    """
    if len(baseline) != len(model) or not baseline:
        raise ValueError(f"expected pairs, found {len(baseline)} and {len(model)} values")
    logs = [math.log(b / m) for b, m in zip(baseline, model)]
    count = len(logs)
    # The means of every two, each with itself too.
    means = sorted((a + b) / 2 for i, a in enumerate(logs) for b in logs[i:])
    ratio = math.exp(statistics.median(means))
    if count < MIN_PAIRS:
        return Ratio(ratio, None, None, count)
    cut = _cut(count)
    return Ratio(ratio, math.exp(means[cut]), math.exp(means[-1 - cut]), count)


@functools.cache
def _cut(count: int) -> int:
    """How many of the sorted means lie outside the interval, on either side."""
    # ways[s]: with how many choices of signs the ranks of the positive values sum to s.
    ways = [1] + [0] * (count * (count + 1) // 2)
    for rank in range(1, count + 1):
        for total in range(len(ways) - 1, rank - 1, -1):
            ways[total] += ways[total - rank]
    tail, cut = 0.0, 0
    while True:
        tail += ways[cut] / 2**count
        if tail > (1 - CONFIDENCE) / 2:
            return cut - 1
        cut += 1

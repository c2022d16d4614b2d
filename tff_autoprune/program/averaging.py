"""The mean of the weights over the last rounds.

A round's weights are those of its cohort: they jitter around where training goes, small networks'
more than large ones'. Their mean does not (Izmailov et al., arXiv 1803.05407).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Optional

import numpy as np


class WeightAverage:
    """A running mean of weights; starts anew when the architecture changes."""

    def __init__(self) -> None:
        """Starts without weights."""
        self._sums: Optional[list[np.ndarray]] = None
        self._count = 0

    def add(self, weights: Sequence[np.ndarray]) -> None:
        """Adds the weights of a round."""
        shapes = [np.shape(value) for value in weights]
        if self._sums is None or shapes != [value.shape for value in self._sums]:
            self._sums, self._count = [np.zeros(shape) for shape in shapes], 0
        self._sums = [total + value for total, value in zip(self._sums, weights)]
        self._count += 1

    def mean(self) -> Optional[list[np.ndarray]]:
        """Returns the mean, float64; None before the first round."""
        return self._sums and [total / self._count for total in self._sums]

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Returns what a checkpoint keeps."""
        if self._sums is None:
            return {}
        arrays = {f"{index:06d}": total for index, total in enumerate(self._sums)}
        return {"count": np.int64(self._count), **arrays}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> WeightAverage:
        """Undoes `to_arrays`."""
        found = cls()
        if arrays:
            found._count = int(arrays["count"])
            found._sums = [arrays[name] for name in sorted(set(arrays) - {"count"})]
        return found

"""A channel's energy: its share of what its group passes on.

    e_c = |producers_c|^2 |consumers_c|^2 / sum over the group

Each kernel counts as a share of its own total first, so that layers of different scale that are
tied to each other count the same. What a normalization follows has no scale of its own: there, the
normalization's scale (gamma) stands for the producer. In a ReLU network the product does not change
when a filter grows and its readers shrink by the same factor. Shares compare across layers.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tff_autoprune.search.importance import Importance, Update
from tff_autoprune.surgery.groups import FilterGroup, Member


class Energy(Importance):
    """Squared norms of what makes a channel times those of what reads it; sums to 1."""

    def __call__(
        self, group: FilterGroup, weights: Sequence[np.ndarray], *, update: Update = None
    ) -> np.ndarray:
        """Returns each channel's share of its group's energy, float64 [channels]."""
        del update
        makers = _share(group.makers, group.channels, weights)
        energy = makers * _share(group.readers, group.channels, weights)
        if energy.sum() <= 0:
            energy = np.ones(group.channels)
        return energy / energy.sum()


def _share(members: Sequence[Member], channels: int, weights: Sequence[np.ndarray]) -> np.ndarray:
    """Returns the sum over members of each channel's share of the squared weights."""
    total = np.zeros(channels)
    for member in members:
        rows = np.moveaxis(np.asarray(weights[member.position], np.float64), member.axis, 0)
        rows = rows[member.positions].reshape(len(member.positions), -1)
        squares = np.bincount(member.channel_of, np.square(rows).sum(axis=1), minlength=channels)
        if squares.sum() > 0:
            total += squares / squares.sum()
    return total if total.sum() > 0 else np.ones(channels)

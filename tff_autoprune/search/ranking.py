"""Which channels go first: all groups of the network ranked together.

A channel's energy is the product of the squared norms of what makes it and of what reads it, as a
share of its group's:

    e_c = |producers_c|^2 |consumers_c|^2 / sum over the group

Each kernel counts as a share of its own total first, so that layers of different scale that are
tied to each other count the same. What a normalization follows has no scale of its own: there, the
normalization's scale (gamma) stands for the producer. In a ReLU network the product does not change
when a filter grows and its readers shrink by the same factor, and the share says how much of the
next layer's input goes with the channel, in units that compare across layers. Channels are removed
in the order of the energy lost per cost saved, so no layer has a quota.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence

import numpy as np

from tff_autoprune.surgery.groups import FilterGroup, Member

Selection = dict[str, list[int]]


def energies(groups: Sequence[FilterGroup], weights: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    """Returns each channel's share of its group's energy.

    Args:
      groups: Prunable groups of a model.
      weights: Values of `model.weights`.

    Returns:
      float64 [channels] by group name; each sums to 1.
    """
    return {group.name: _energy(group, weights) for group in groups}


def weakest(
    groups: Sequence[FilterGroup],
    channel_energies: Mapping[str, np.ndarray],
    savings: Mapping[str, float],
    amount: float,
    *,
    least_left: float,
) -> Selection:
    """Selects the channels that lose the least energy for what they save.

    Args:
      groups: Prunable groups.
      channel_energies: From `energies`.
      savings: What removing one channel of each group saves, in any unit.
      amount: What shall be saved in total, in the same unit, to first order; reached or exceeded by
        less than one channel, unless `least_left` forbids it.
      least_left: Share of a group's channels that stays at least. One channel always stays.

    Returns:
      Channel indices by group name, the weakest first.
    """
    order = {g.name: np.argsort(channel_energies[g.name], kind="stable") for g in groups}
    room = {g.name: min(int(g.channels * (1 - least_left)), g.channels - 1) for g in groups}
    # The weakest channel of each group; the next of the group follows when it is taken.
    queue: list[tuple[float, str, int]] = []

    def push(name: str, position: int) -> None:
        if position < room[name] and savings[name] > 0:
            energy = channel_energies[name][order[name][position]]
            heapq.heappush(queue, (float(energy / savings[name]), name, position))

    for group in groups:
        push(group.name, 0)
    saved, selection = 0.0, {}
    while queue and saved < amount:
        _, name, position = heapq.heappop(queue)
        selection.setdefault(name, []).append(int(order[name][position]))
        saved += savings[name]
        push(name, position + 1)
    return selection


def _energy(group: FilterGroup, weights: Sequence[np.ndarray]) -> np.ndarray:
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

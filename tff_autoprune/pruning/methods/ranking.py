"""Which channels go first: all groups of the network ranked together.

A channel's energy is the product of the norms of what makes it and of what reads it, squared, as a
share of its group's:

    e_c = (|producers_c| |consumers_c|)^2 / sum over the group

For layers that are linear or ReLU the product does not change when a filter is scaled up and its
readers down by the same factor, and the share says how much of the next layer's input goes with the
channel, in units that compare across layers. Channels are removed in the order of the energy lost
per cost saved, so no layer has a quota.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence

import numpy as np

from tff_autoprune.pruning.groups import FilterGroup
from tff_autoprune.pruning.roles import Role

# A single cut leaves at least this share of a group's channels: the ranking of those that remain
# has changed by then, and the next cut sees it.
_LEFT_IN_A_CUT = 0.5

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


def _energy(group: FilterGroup, weights: Sequence[np.ndarray]) -> np.ndarray:
    squares = {Role.PRODUCER: np.zeros(group.channels), Role.CONSUMER: np.zeros(group.channels)}
    for member in group.members:
        if member.kind.endswith("kernel") and member.role in squares:
            rows = np.moveaxis(np.asarray(weights[member.position], np.float64), member.axis, 0)
            rows = rows[member.positions].reshape(len(member.positions), -1)
            norm = np.square(rows)
            total = norm.sum()
            if total > 0:
                squares[member.role] += np.bincount(
                    member.channel_of, norm.sum(axis=1) / total, group.channels
                )
    parts = [s for s in squares.values() if s.sum() > 0]
    if not parts:
        return np.full(group.channels, 1 / group.channels)
    energy = np.prod(parts, axis=0)
    return energy / energy.sum() if energy.sum() > 0 else np.full_like(energy, 1 / len(energy))


def weakest(
    groups: Sequence[FilterGroup],
    channel_energies: Mapping[str, np.ndarray],
    savings: Mapping[str, float],
    amount: float,
    *,
    overshoot: bool = False,
) -> Selection:
    """Selects the channels that lose the least energy for what they save.

    Args:
      groups: Prunable groups.
      channel_energies: From `energies`.
      savings: What removing one channel of each group saves, in any unit.
      amount: What shall be saved in total, in the same unit, to first order.
      overshoot: Whether the last channel may save more than is left to save.

    Returns:
      Channel indices by group name.
    """
    room = {g.name: int(g.channels * (1 - _LEFT_IN_A_CUT)) for g in groups}
    room = {name: min(count, _channels(groups, name) - 1) for name, count in room.items()}
    queue: list[tuple[float, str, int]] = []
    order = {g.name: np.argsort(channel_energies[g.name], kind="stable") for g in groups}
    for group in groups:
        if room[group.name] > 0 and savings[group.name] > 0:
            _push(queue, group.name, 0, order, channel_energies, savings)
    heapq.heapify(queue)
    saved, selection = 0.0, {}
    while queue and saved < amount:
        _, name, position = heapq.heappop(queue)
        if not overshoot and saved + savings[name] > amount:
            continue  # Too dear for what is left; cheaper groups may still fit.
        selection.setdefault(name, []).append(int(order[name][position]))
        saved += savings[name]
        if position + 1 < room[name]:
            _push(queue, name, position + 1, order, channel_energies, savings)
    return selection


def _channels(groups: Sequence[FilterGroup], name: str) -> int:
    return next(group.channels for group in groups if group.name == name)


def _push(queue, name, position, order, channel_energies, savings) -> None:
    energy = channel_energies[name][order[name][position]]
    heapq.heappush(queue, (float(energy / savings[name]), name, position))

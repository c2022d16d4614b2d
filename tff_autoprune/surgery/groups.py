"""Dependency groups: which channels of which weights must be removed together.

A *channel* of a group is the smallest unit that can be removed: one filter of a convolution with
the matching batch-norm scale, the matching input of every layer that reads it, and the filters that
an addition ties to it. A *group* is the set of all channels that occupy the same places, so that
any removal that leaves at least one channel of every group leaves a valid model.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import cached_property
from typing import Optional

import numpy as np
import pandas as pd

from tff_autoprune.surgery.record import Tie
from tff_autoprune.surgery.roles import Role
from tff_autoprune.surgery.trace import Trace


@dataclasses.dataclass(frozen=True, eq=False)
class Member:
    """One axis of one weight that shrinks with its group.

    Attributes:
      layer: Name of the layer, after the names of the models and wrappers around it.
      weight: Name of the variable.
      kind: Last part of that name: "kernel", "bias", "gamma", ...
      position: Its index in `model.weights`.
      axis: The axis that shrinks.
      role: What the axis does with the channels.
      positions: Places on the axis, int64 [n].
      channel_of: The group's channel that each of them belongs to, int64 [n].
      size: Size of the axis.
      copies: How often the axis has each filter (once for each gate of an LSTM).
    """

    layer: str
    weight: str
    kind: str
    position: int
    axis: int
    role: Role
    positions: np.ndarray
    channel_of: np.ndarray
    size: int
    copies: int = 1

    @cached_property
    def indices(self) -> list[np.ndarray]:
        """For each channel of the group, its places on the axis."""
        order = np.argsort(self.channel_of, kind="stable")
        counts = np.bincount(self.channel_of)
        return np.split(self.positions[order], np.cumsum(counts)[:-1])

    def __str__(self) -> str:
        places = _ranges(self.positions)
        return (
            f"{self.role.value:<9} {self.layer:<32} {self.weight} axis {self.axis} "
            f"[{places}] of {self.size}"
        )


@dataclasses.dataclass(frozen=True, eq=False)
class FilterGroup:
    """Channels that can only be removed together with all their places.

    Attributes:
      name: Name of the first layer that makes them, the same before and after pruning. If the
        filters of that layer fall into several groups, "#1", "#2", ... is added.
      channels: Number of channels.
      prunable: Whether they may be removed (all but one of them).
      reason: Why not, or "".
      members: Every weight axis that shrinks, in the order of the graph.
    """

    name: str
    channels: int
    prunable: bool
    reason: str
    members: tuple[Member, ...]
    # The channel numbers of the trace, one for each channel of the group.
    roots: np.ndarray = dataclasses.field(repr=False)

    @property
    def producers(self) -> list[Member]:
        """The members that make the channels."""
        return [member for member in self.members if member.role == Role.PRODUCER]

    @property
    def makers(self) -> list[Member]:
        """The members that give the channels their scale.

        What a normalization follows has none of its own: there, these are the normalizations'
        scales (gamma), else the producers.
        """
        return [member for member in self.members if member.kind == "gamma"] or self.producers

    @property
    def readers(self) -> list[Member]:
        """The members that read the channels and sum over them."""
        return [member for member in self.members if member.role == Role.CONSUMER]

    @property
    def filters_of(self) -> np.ndarray:
        """For each channel its number of filters in the first producing layer, int64 [channels]."""
        first = self.producers[0]
        return np.bincount(first.channel_of, minlength=self.channels) // first.copies

    def __str__(self) -> str:
        state = "prunable" if self.prunable else f"fixed: {self.reason}"
        each = self.filters_of.max()
        unit = "channels" if each == 1 else f"channels of up to {each} filters"
        head = f"{self.name}: {self.channels} {unit}, {state}"
        return "\n".join([head, *(f"  {member}" for member in self.members)])


def groups_table(groups: Sequence[FilterGroup]) -> pd.DataFrame:
    """Returns one row for each member of each group.

    Args:
      groups: From `find_filter_groups`.

    Returns:
      Columns group, channels, prunable, reason, role, layer, weight, axis, places, size.
    """
    rows = [
        {
            "group": group.name,
            "channels": group.channels,
            "prunable": group.prunable,
            "reason": group.reason,
            "role": member.role.value,
            "layer": member.layer,
            "weight": member.weight,
            "axis": member.axis,
            "places": len(member.positions),
            "size": member.size,
        }
        for group in groups
        for member in group.members
    ]
    columns = [
        "group",
        "channels",
        "prunable",
        "reason",
        "role",
        "layer",
        "weight",
        "axis",
        "places",
        "size",
    ]
    return pd.DataFrame(rows, columns=columns)


def groups_of(trace: Trace) -> list[FilterGroup]:
    """Returns the groups of a traced model."""
    partition = _partition(trace)
    weight_positions = {id(weight): i for i, weight in enumerate(trace.model.weights)}
    members = _members(trace, partition, weight_positions)
    firsts = [next((m for m in some if m.role == Role.PRODUCER), None) for some in members]
    order = sorted(
        (index for index, first in enumerate(firsts) if first is not None),
        key=lambda index: int(partition.roots[index].min()),
    )
    layers = [firsts[index].layer for index in order]
    seen: dict[str, int] = {}
    groups = []
    for index, layer in zip(order, layers):
        seen[layer] = seen.get(layer, 0) + 1
        name = layer if layers.count(layer) == 1 else f"{layer}#{seen[layer]}"
        roots = partition.roots[index]
        reason = trace.channels.reason(int(roots[0]))
        if reason is None and len(roots) == 1:
            reason = f"has one channel only: all filters of '{layer}' depend on each other"
        groups.append(
            FilterGroup(
                name, len(roots), reason is None, reason or "", tuple(members[index]), roots
            )
        )
    return groups


@dataclasses.dataclass
class _Partition:
    """The channels of a model, sorted into groups.

    Attributes:
      roots: For each group its channel numbers, ascending.
      group_of: Group of each channel number, -1 if it is not a representative.
      channel_of: Index in its group of each channel number.
    """

    roots: list[np.ndarray]
    group_of: np.ndarray
    channel_of: np.ndarray


def _partition(trace: Trace) -> _Partition:
    """Sorts channels by the set of places that they occupy and by whether they are fixed.

    Sets are compared by the exclusive or of a random number for each place (Zobrist hashing).
    """
    number = len(trace.channels)
    generator = np.random.default_rng(0)
    signature = np.zeros(number, np.uint64)
    used = np.zeros(number, bool)
    for tie in trace.record.ties:
        roots = np.unique(trace.channels.find(tie.ids))
        roots = roots[roots >= 0]
        signature[roots] ^= generator.integers(0, 2**64, dtype=np.uint64)
        used[roots] = True
    reasons: dict[Optional[str], int] = {}
    by_group: dict[tuple[int, int], list[int]] = {}
    for root in np.flatnonzero(used).tolist():
        reason = trace.channels.reason(root)
        code = reasons.setdefault(reason, len(reasons))
        by_group.setdefault((int(signature[root]), code), []).append(root)
    group_of, channel_of = np.full(number, -1), np.full(number, -1)
    roots = [np.array(some) for some in by_group.values()]
    for index, some in enumerate(roots):
        group_of[some] = index
        channel_of[some] = np.arange(len(some))
    return _Partition(roots, group_of, channel_of)


def _members(
    trace: Trace, partition: _Partition, weight_positions: dict[int, int]
) -> list[list[Member]]:
    members: list[list[Member]] = [[] for _ in partition.roots]
    if not members:
        return members
    for tie in trace.record.ties:
        if tie.weight is None:
            continue
        roots = trace.channels.find(tie.ids)
        groups = np.where(roots >= 0, partition.group_of[roots], -1)
        for index in np.unique(groups[groups >= 0]):
            positions = np.flatnonzero(groups == index)
            members[index].append(_member(tie, positions, roots, partition, weight_positions))
    return members


def _member(
    tie: Tie,
    positions: np.ndarray,
    roots: np.ndarray,
    partition: _Partition,
    weight_positions: dict[int, int],
) -> Member:
    return Member(
        layer=tie.path,
        weight=tie.weight.name,
        kind=tie.weight.name.split("/")[-1].split(":")[0],
        position=weight_positions[id(tie.weight)],
        axis=tie.axis,
        role=tie.role,
        positions=positions,
        channel_of=partition.channel_of[roots[positions]],
        size=len(roots),
        copies=tie.copies,
    )


def _ranges(positions: np.ndarray) -> str:
    """Returns e.g. "0-15, 32-47" for ascending positions."""
    if not len(positions):
        return ""
    starts = np.flatnonzero(np.diff(positions, prepend=positions[0] - 2) != 1)
    ends = np.append(starts[1:], len(positions)) - 1
    pieces = [
        f"{positions[a]}" if a == b else f"{positions[a]}-{positions[b]}"
        for a, b in zip(starts, ends)
    ]
    return ", ".join(pieces if len(pieces) <= 6 else [*pieces[:5], f"... {pieces[-1]}"])

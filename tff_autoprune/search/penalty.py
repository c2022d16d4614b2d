"""A group lasso over channels, for the clients' loss: unneeded channels shrink as a whole.

    R(w) = sum over groups, channels c of  sqrt(n_c) || all weights that make or read channel c ||_2

n_c is the number of these weights. Without it (Yuan and Lin, 2006) the channels of few weights, in
early and narrow layers, die first, whatever they are worth: their norms are small to begin with.

Source of the group lasso on filters: Wen et al., arXiv 1608.03665. Summing over every weight of the
dependency group, not only over the filters, keeps a network from shrinking a filter while growing
what reads it. What a normalization follows has no scale of its own, so that there the
normalization's scale counts, not the filter (`FilterGroup.makers`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Optional

import numpy as np

from tff_autoprune.surgery.groups import FilterGroup, Member
from tff_autoprune.surgery.network import find_filter_groups

if TYPE_CHECKING:
    import tensorflow as tf

# Keeps the square root differentiable for a channel that is all zero.
_EPSILON = 1e-12


def group_lasso(model: tf.keras.Model) -> Callable[[Sequence[tf.Tensor]], tf.Tensor]:
    """Returns the group lasso of a model's prunable groups.

    Args:
      model: A built model.

    Returns:
      A function from tensors shaped like `model.trainable_weights` to a float32 scalar. It reads
      the number of channels from the tensors, so it serves smaller versions of the model too.
    """
    import tensorflow as tf

    place = {id(weight): number for number, weight in enumerate(model.trainable_weights)}
    number_of = {p: place[id(w)] for p, w in enumerate(model.weights) if id(w) in place}
    groups = find_filter_groups(model)
    axes = _axes(groups, number_of)
    # What tells the number of channels of a group: an axis that has nothing else.
    counted = {
        axis.segments[0].group: axis
        for axis in axes.values()
        if len(axis.segments) == 1 and axis.segments[0].inner
    }
    plan = []
    for index, group in enumerate(groups):
        found = [axes.get((m.position, m.axis)) for m in (*group.makers, *group.readers)]
        own = [axis for axis in found if axis and axis.can_tell(index, counted)]
        if group.prunable and own:
            plan.append((index, own))

    def penalty(weights: Sequence[tf.Tensor]) -> tf.Tensor:
        channels = {
            index: tf.shape(weights[axis.number])[axis.axis]
            // (axis.tiles * axis.segments[0].inner)
            for index, axis in counted.items()
        }
        total = tf.zeros([])
        for index, own in plan:
            squares = tf.add_n([axis.squares(index, weights, channels) for axis in own])
            size = tf.add_n([axis.size(index, weights) for axis in own])
            total += tf.sqrt(size) * tf.reduce_sum(tf.sqrt(squares + _EPSILON))
        return total

    return penalty


@dataclasses.dataclass(frozen=True)
class _Segment:
    """Consecutive places on an axis.

    Attributes:
      group: Index of the group that they belong to; None if to none.
      inner: Consecutive places of each channel; 0 if the group's channels do not follow each other.
      size: Number of places.
    """

    group: Optional[int]
    inner: int
    size: int

    def length(self, channels: Mapping[int, tf.Tensor]) -> int | tf.Tensor:
        return self.size if self.group is None else channels[self.group] * self.inner


@dataclasses.dataclass(frozen=True)
class _Axis:
    """An axis of a trainable weight, as copies of a row of segments.

    A layer after a concatenation has a segment for each branch; one after Flatten, a copy of them
    for each pixel.

    Attributes:
      number: Index in the trainable weights.
      axis: The axis.
      tiles: Number of copies.
      segments: What is in each of them.
    """

    number: int
    axis: int
    tiles: int
    segments: tuple[_Segment, ...]

    def can_tell(self, group: int, counted: Mapping[int, _Axis]) -> bool:
        """Whether a group's places can be found in narrower versions too."""
        known = all(s.group is None or (s.inner and s.group in counted) for s in self.segments)
        return known and sum(s.group == group for s in self.segments) == 1

    def size(self, group: int, weights: Sequence[tf.Tensor]) -> tf.Tensor:
        """Returns the number of weights of one of a group's channels, float32."""
        import tensorflow as tf

        shape = tf.shape(weights[self.number])
        others = tf.reduce_prod(shape) // shape[self.axis]
        inner = next(s.inner for s in self.segments if s.group == group)
        return tf.cast(self.tiles * inner * others, tf.float32)

    def squares(
        self, group: int, weights: Sequence[tf.Tensor], channels: Mapping[int, tf.Tensor]
    ) -> tf.Tensor:
        """Returns the sum of the squared weights of each of a group's channels."""
        import tensorflow as tf

        weight = weights[self.number]
        others = [a for a in range(len(weight.shape)) if a != self.axis]
        rows = tf.reshape(tf.reduce_sum(tf.square(weight), others), [self.tiles, -1])
        start = 0
        for segment in self.segments:
            if segment.group == group:
                rows = rows[:, start : start + segment.length(channels)]
                return tf.reduce_sum(tf.reshape(rows, [self.tiles, -1, segment.inner]), [0, 2])
            start += segment.length(channels)
        raise AssertionError(f"group {group} has no segment")


def _axes(
    groups: Sequence[FilterGroup], number_of: Mapping[int, int]
) -> dict[tuple[int, int], _Axis]:
    """Returns the axes of trainable weights that groups have places on."""
    found: dict[tuple[int, int], list[tuple[int, Member]]] = {}
    for index, group in enumerate(groups):
        for member in group.members:
            if member.position in number_of:
                found.setdefault((member.position, member.axis), []).append((index, member))
    axes = {}
    for (position, axis), members in found.items():
        # What is at each place: the group, and its channel.
        group_of, channel_of = np.full((2, members[0][1].size), -1)
        for index, member in members:
            group_of[member.positions] = index
            channel_of[member.positions] = member.channel_of
        size = _period(np.stack([group_of, channel_of]))
        cuts = np.flatnonzero(np.diff(group_of[:size])) + 1
        segments = tuple(
            _segment(part, groups)
            for part in zip(np.split(group_of[:size], cuts), np.split(channel_of[:size], cuts))
        )
        tiles = len(group_of) // size
        axes[position, axis] = _Axis(number_of[position], axis, tiles, segments)
    return axes


def _segment(part: tuple[np.ndarray, np.ndarray], groups: Sequence[FilterGroup]) -> _Segment:
    group_of, channel_of = part
    if group_of[0] < 0:
        return _Segment(None, 0, len(group_of))
    channels = groups[group_of[0]].channels
    inner = len(group_of) // channels
    in_order = np.array_equal(channel_of, np.repeat(np.arange(channels), inner))
    return _Segment(int(group_of[0]), inner if in_order else 0, len(group_of))


def _period(rows: np.ndarray) -> int:
    """Returns after how many columns an array [rows, columns] repeats itself."""
    columns = rows.shape[1]
    for size in range(1, columns):
        if columns % size == 0 and (rows == np.tile(rows[:, :size], columns // size)).all():
            return size
    return columns

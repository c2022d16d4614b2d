"""Removes channels from a model: everything is checked first, then a smaller model is built."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Union

import numpy as np
import tensorflow as tf

from tff_autoprune.errors import UserError
from tff_autoprune.surgery.groups import FilterGroup, groups_of
from tff_autoprune.surgery.rebuild import Rebuilder
from tff_autoprune.surgery.roles import Role
from tff_autoprune.surgery.trace import Trace

Selection = Mapping[str, Union[Sequence[int], np.ndarray]]


class Removal:
    """A checked removal of channels, not yet carried out.

    Attributes:
      model: The model that it is about; not changed.
      selection: Channels to remove by name of the group, ascending; what `round_to` gave back and
        groups that lose nothing are not in it.
      groups: All groups of the model.
    """

    def __init__(
        self, trace: Trace, groups: Sequence[FilterGroup], selection: Mapping[str, np.ndarray]
    ) -> None:
        self.model = trace.model
        self.groups = list(groups)
        self.selection = {name: np.sort(ids) for name, ids in selection.items() if len(ids)}
        self._trace = trace
        self._removed = np.zeros(len(trace.channels) + 1, bool)
        for group in groups:
            if group.name in self.selection:
                self._removed[group.roots[self.selection[group.name]]] = True
        self._keep = self._kept_places()

    def _kept(self, ids: np.ndarray) -> np.ndarray:
        # NONE is -1: the last place, which is never removed.
        return ~self._removed[self._trace.channels.find(ids)]

    def _kept_places(self) -> list[list[tuple[int, np.ndarray]]]:
        """Returns for every weight of the model the axes that shrink and the places that stay."""
        position = {id(weight): i for i, weight in enumerate(self.model.weights)}
        keep: list[list[tuple[int, np.ndarray]]] = [[] for _ in position]
        for tie in self._trace.ties:
            if tie.weight is not None:
                kept = self._kept(tie.ids)
                if not kept.all():
                    keep[position[id(tie.weight)]].append((tie.axis, np.flatnonzero(kept)))
        return keep

    def slice_weights(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Slices arrays that belong to the model's weights, e.g. optimizer state.

        Args:
          arrays: Aligned with `model.weights` and of their shapes.

        Returns:
          Arrays aligned with the weights of the new model and of their shapes.
        """
        return self._slice(arrays, self.model.weights, "weights")

    def slice_trainable(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Like `slice_weights`, for arrays aligned with `model.trainable_weights`."""
        return self._slice(arrays, self.model.trainable_weights, "trainable_weights")

    def _slice(
        self, arrays: Sequence[np.ndarray], weights: Sequence[tf.Variable], name: str
    ) -> list[np.ndarray]:
        if len(arrays) != len(weights):
            raise UserError(
                f"Expected one array for each of the {len(weights)} model.{name}, "
                f"found {len(arrays)}."
            )
        position = {id(weight): i for i, weight in enumerate(self.model.weights)}
        sliced = []
        for array, weight in zip(arrays, weights):
            array = np.asarray(array)
            if array.shape != tuple(weight.shape):
                raise UserError(
                    f"Expected an array of shape {tuple(weight.shape)} for {weight.name}, "
                    f"found {array.shape}."
                )
            for axis, places in self._keep[position[id(weight)]]:
                array = np.take(array, places, axis=axis)
            sliced.append(array)
        return sliced

    def apply(self, reinitialize: bool = False) -> tf.keras.Model:
        """Builds the smaller model.

        Args:
          reinitialize: Leave the new random weights instead of inheriting those of the surviving
            channels.

        Returns:
          An ordinary Keras model, not compiled: the same layer names, inputs, outputs, trainable
          flags, dtype policies and regularizers.
        """
        model = self.model
        new = Rebuilder(self._trace, self._kept).copy(model)
        self._check(new)
        if not reinitialize:
            for index, (old_weight, new_weight) in enumerate(zip(model.weights, new.weights)):
                value = old_weight.numpy()
                for axis, places in self._keep[index]:
                    value = np.take(value, places, axis=axis)
                new_weight.assign(value)
            for layer in new._flatten_layers(include_self=False):
                # Normalization computes with constants that it derives from its weights.
                if hasattr(layer, "finalize_state"):
                    layer.finalize_state()
        return new

    def _check(self, new: tf.keras.Model) -> None:
        """Raises unless the new model is the one that was planned; a rule is wrong otherwise."""
        model = self.model
        expected = [list(weight.shape) for weight in model.weights]
        for shape, keep in zip(expected, self._keep):
            for axis, places in keep:
                shape[axis] = len(places)
        found = [list(weight.shape) for weight in new.weights]
        for index, weight in enumerate(model.weights):
            if index >= len(found) or found[index] != expected[index]:
                other = new.weights[index] if index < len(found) else None
                raise AssertionError(
                    f"{weight.name} should have shape {expected[index]}, found "
                    f"{other.name if other is not None else None} with "
                    f"{found[index] if other is not None else None}."
                )
        if len(found) != len(expected):
            raise AssertionError(f"Expected {len(expected)} weights, found {len(found)}.")
        for before, after in zip(model.outputs, new.outputs):
            if before.shape.as_list() != after.shape.as_list():
                raise AssertionError(f"The output shape changed: {before.shape} to {after.shape}.")


def plan_removal(model: tf.keras.Model, selection: Selection, round_to: int = 1) -> Removal:
    """Checks a removal of channels without building anything.

    Args:
      model: A built functional or sequential model.
      selection: Channels to remove by name of a group, or filters to remove by name of a layer that
        is not a group's name. The order is the order of preference: `round_to` gives back the last.
      round_to: The number of filters that a pruned group keeps is rounded up to a multiple of this.

    Returns:
      The checked removal.

    Raises:
      UserError: If a name is unknown or stands for a fixed group, an index is out of range or
        repeated, filters that depend on each other are torn apart, or nothing of a group is left.
    """
    if not isinstance(round_to, (int, np.integer)) or round_to < 1:
        raise UserError(f"round_to must be an integer of at least 1, found {round_to!r}.")
    trace = Trace(model)
    groups = groups_of(trace)
    by_name = {group.name: group for group in groups}
    chosen: dict[str, list[int]] = {}
    for name, indices in selection.items():
        indices = _as_indices(name, indices)
        parts = {name: indices} if name in by_name else _channels_of_layer(groups, name, indices)
        for group_name, channels in parts.items():
            chosen.setdefault(group_name, []).extend(channels)
    for name, channels in chosen.items():
        _check_channels(by_name[name], channels, groups)
    rounded = {
        name: np.array(_give_back(by_name[name], channels, round_to), np.int64)
        for name, channels in chosen.items()
    }
    return Removal(trace, groups, rounded)


def remove_filters(
    model: tf.keras.Model, selection: Selection, round_to: int = 1
) -> tf.keras.Model:
    """Removes channels from a model.

    The new model computes what the original computes once every layer that reads one of the removed
    channels has its weights for it set to zero.

    Args:
      model: A built functional or sequential model; not changed.
      selection: See `plan_removal`.
      round_to: See `plan_removal`.

    Returns:
      A new, dense, ordinary Keras model with the weights of the surviving channels.

    Raises:
      UserError: See `plan_removal`.

    Example:
    >>> from tff_autoprune import models, surgery
    >>> model = models.build("resnet", input_shape=(28, 28, 1), num_classes=62)
    >>> smaller = surgery.remove_filters(model, {"stem": [0, 5], "block_1_shortcut": [3]})
    >>> model.get_layer("stem").filters, smaller.get_layer("stem").filters
    (16, 14)
    >>> smaller.get_layer("block_1_conv_2").filters  # Added to the shortcut, so cut with it.
    15
    """
    return plan_removal(model, selection, round_to).apply()


def _as_indices(name: str, indices: Union[Sequence[int], np.ndarray]) -> list[int]:
    array = np.asarray(indices)
    if array.ndim != 1 or (array.size and not np.issubdtype(array.dtype, np.integer)):
        raise UserError(f"The indices for '{name}' must be a list of integers, found {indices!r}.")
    return array.astype(np.int64).tolist()


def _channels_of_layer(
    groups: Sequence[FilterGroup], name: str, filters: Sequence[int]
) -> dict[str, list[int]]:
    """Translates filters of a layer to channels of its groups."""
    made = [
        (group, member)
        for group in groups
        for member in group.members
        if member.role == Role.PRODUCER and member.layer == name
    ]
    if not made:
        raise UserError(
            f"'{name}' is neither a filter group nor a layer that makes channels. "
            f"{_allowed(groups)}"
        )
    size = made[0][1].size
    wrong = [i for i in filters if not 0 <= i < size]
    if wrong:
        raise UserError(f"'{name}' has filters 0 to {size - 1}, found {wrong[0]}.")
    if len(set(filters)) != len(filters):
        raise UserError(f"The filters for '{name}' are repeated: {list(filters)}.")
    wanted = set(filters)
    result: dict[str, list[int]] = {}
    for group, member in made:
        channel_at = dict(zip(member.positions.tolist(), member.channel_of.tolist()))
        channels = list(dict.fromkeys(channel_at[i] for i in filters if i in channel_at))
        for channel in channels:
            together = set(member.indices[channel].tolist())
            if not together <= wanted:
                raise UserError(
                    f"Filters {sorted(together)} of '{name}' can only be removed together, found "
                    f"only {sorted(together & wanted)}."
                )
        if channels:
            result[group.name] = channels
    return result


def _allowed(groups: Sequence[FilterGroup]) -> str:
    names = ", ".join(group.name for group in groups if group.prunable)
    return f"Prunable groups: {names or 'none'}."


def _check_channels(
    group: FilterGroup, channels: Sequence[int], groups: Sequence[FilterGroup]
) -> None:
    if not channels:
        return
    if not group.prunable:
        raise UserError(
            f"The filter group '{group.name}' must stay: it {group.reason}. {_allowed(groups)}"
        )
    wrong = [i for i in channels if not 0 <= i < group.channels]
    if wrong:
        raise UserError(
            f"The filter group '{group.name}' has channels 0 to {group.channels - 1}, "
            f"found {wrong[0]}."
        )
    if len(set(channels)) != len(channels):
        raise UserError(
            f"Channels of the filter group '{group.name}' are repeated: {list(channels)}."
        )
    if len(channels) == group.channels:
        raise UserError(
            f"All {group.channels} channels of the filter group '{group.name}' would be removed: "
            "keep at least one."
        )


def _give_back(group: FilterGroup, channels: list[int], round_to: int) -> list[int]:
    """Returns the channels that go if the number of kept filters is to be a multiple."""
    if round_to == 1 or not channels:
        return channels
    counts = group.filters_of
    total = int(counts.sum())
    kept = total - int(counts[channels].sum())
    target = min(total, -(-kept // round_to) * round_to)
    channels = list(channels)
    while channels and kept < target:
        kept += int(counts[channels.pop()])
    return channels

"""Removes channels from a model: everything is checked first, then a smaller model is built."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Union

import numpy as np
import tensorflow as tf

from tff_autoprune.errors import UserError
from tff_autoprune.surgery.groups import FilterGroup
from tff_autoprune.surgery.network import Network
from tff_autoprune.surgery.rebuild import Rebuilder
from tff_autoprune.surgery.roles import Role

Selection = Mapping[str, Union[Sequence[int], np.ndarray]]


class Removal:
    """A checked removal of channels, not yet carried out.

    Attributes:
      network: The network that it is about.
      model: Its model; not changed.
      groups: Its groups.
      selection: Channels to remove by name of the group, ascending; what `round_to` gave back and
        groups that lose nothing are not in it.
    """

    def __init__(self, network: Network, selection: Mapping[str, np.ndarray]) -> None:
        self.network = network
        self.model = network.model
        self.groups = network.groups
        self.selection = {name: np.sort(ids) for name, ids in selection.items() if len(ids)}
        self._record = network.trace.record
        self._removed = np.zeros(len(self._record.channels) + 1, bool)
        for group in self.groups:
            if group.name in self.selection:
                self._removed[group.roots[self.selection[group.name]]] = True
        self._position = {id(weight): i for i, weight in enumerate(self.model.weights)}
        self._keep = self._kept_places()
        self._rebuilder().check()

    def _rebuilder(self) -> Rebuilder:
        def places(weight: tf.Variable) -> list[tuple[int, np.ndarray]]:
            return self._keep[self._position[id(weight)]] if id(weight) in self._position else []

        return Rebuilder(self.network.trace, self._kept, places)

    def _kept(self, ids: np.ndarray) -> np.ndarray:
        # NONE is -1: the last place, which is never removed.
        return ~self._removed[self._record.channels.find(ids)]

    def _kept_places(self) -> list[list[tuple[int, np.ndarray]]]:
        """Returns for every weight of the model the axes that shrink and the places that stay."""
        keep: list[list[tuple[int, np.ndarray]]] = [[] for _ in self._position]
        for tie in self._record.ties:
            if tie.weight is not None:
                kept = self._kept(tie.ids)
                if not kept.all():
                    keep[self._position[id(tie.weight)]].append((tie.axis, np.flatnonzero(kept)))
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
        sliced = []
        for array, weight in zip(arrays, weights):
            array = np.asarray(array)
            if array.shape != tuple(weight.shape):
                raise UserError(
                    f"Expected an array of shape {tuple(weight.shape)} for {weight.name}, "
                    f"found {array.shape}."
                )
            for axis, places in self._keep[self._position[id(weight)]]:
                array = np.take(array, places, axis=axis)
            sliced.append(array)
        return sliced

    def silence(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Returns weights with which the original computes what the smaller model will.

        Args:
          arrays: Values of `model.weights`.

        Returns:
          A copy in which all that reads a removed channel has its weights for it set to zero.
        """
        arrays = [np.array(array) for array in arrays]
        for group in self.groups:
            gone = self.selection.get(group.name, ())
            for member in group.readers if len(gone) else ():
                index = [slice(None)] * arrays[member.position].ndim
                index[member.axis] = member.positions[np.isin(member.channel_of, gone)]
                arrays[member.position][tuple(index)] = 0
        return arrays

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
        new = self._rebuilder().build()
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
        """Raises unless the new model is the one that was planned."""
        model = self.model
        found = {weight.name: list(weight.shape) for weight in new.weights}
        for index, (weight, keep) in enumerate(zip(model.weights, self._keep)):
            expected = list(weight.shape)
            for axis, places in keep:
                expected[axis] = len(places)
            other = new.weights[index] if index < len(new.weights) else None
            if other is None or list(other.shape) != expected:
                raise UserError(
                    f"'{weight.name}' should have shape {expected} in the smaller model, found "
                    f"{found.get(weight.name, 'no such weight')}: the layer that holds it makes "
                    "other weights when it is made again from its get_config(), or its rule "
                    "(surgery.register_layer) is wrong."
                )
        if len(new.weights) != len(model.weights):
            raise UserError(
                f"Expected {len(model.weights)} weights in the smaller model, found "
                f"{len(new.weights)}: '{new.weights[len(model.weights)].name}' is new. Layers that "
                "share a weight must hold it in an attribute of their own."
            )
        for before, after in zip(model.outputs, new.outputs):
            if before.shape.as_list() != after.shape.as_list():
                raise AssertionError(f"The output shape changed: {before.shape} to {after.shape}.")


def plan_removal(
    model: Union[tf.keras.Model, Network], selection: Selection, round_to: int = 1
) -> Removal:
    """Checks a removal of channels without building anything.

    Args:
      model: A built functional or sequential model, or a network, whose graph is known already.
      selection: Channels to remove by name of a group, or filters to remove by name of a layer that
        is not a group's name; what several layers of a group name is removed once. The order is
        the order of preference: `round_to` gives back the last.
      round_to: The number of filters that a pruned group keeps is rounded up to a multiple of this.

    Returns:
      The checked removal.

    Raises:
      UserError: If a name is unknown or stands for a fixed group, an index is out of range or
        repeated, filters that depend on each other are torn apart, nothing of a group is left, or
        a layer cannot be made again.
    """
    if not isinstance(round_to, (int, np.integer)) or round_to < 1:
        raise UserError(f"round_to must be an integer of at least 1, found {round_to!r}.")
    if not isinstance(selection, Mapping):
        raise UserError(
            "The selection must be a dictionary from names of groups to lists of channels, found "
            f"{selection!r}."
        )
    network = Network.of(model)
    groups = network.groups
    by_name = {group.name: group for group in groups}
    chosen: dict[str, dict[int, None]] = {}
    for name, indices in selection.items():
        indices = _as_indices(name, indices)
        if name in by_name:
            _check_channels(by_name[name], indices, groups)
            parts = {name: indices}
        else:
            parts = _channels_of_layer(groups, name, indices)
        for group_name, channels in parts.items():
            chosen.setdefault(group_name, {}).update(dict.fromkeys(channels))
    rounded = {}
    for name, channels in chosen.items():
        _check_channels(by_name[name], list(channels), groups)
        rounded[name] = np.array(_give_back(by_name[name], list(channels), round_to), np.int64)
    return Removal(network, rounded)


def remove_filters(
    model: Union[tf.keras.Model, Network], selection: Selection, round_to: int = 1
) -> tf.keras.Model:
    """Removes channels from a model.

    The new model computes what the original computes once every layer that reads one of the removed
    channels has its weights for it set to zero.

    Args:
      model: A built functional or sequential model, or its network; not changed.
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
    try:
        array = np.asarray(indices)
    except ValueError:  # Lists of unequal lengths.
        array = np.zeros(())
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

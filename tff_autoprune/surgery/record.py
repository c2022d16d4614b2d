"""What the rules have said of one model: channels, the weight axes tied to them, edits that follow.

Rules write here by way of `call.Call`; groups, removals and costs read from here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection
from typing import Any, Optional, Union

import numpy as np
import tensorflow as tf

from tff_autoprune.surgery.channels import NONE, Channels
from tff_autoprune.surgery.roles import Role
from tff_autoprune.surgery.traced_tensor import Kept

#: Changes a layer's configuration in place, see `Call.configure`.
ConfigEdit = Callable[[dict[str, Any], Kept], None]
#: Returns the new value of a call's argument, see `Call.replace_argument`.
ArgumentEdit = Callable[[Any, Kept], Any]


@dataclasses.dataclass
class Tie:
    """One axis of one weight and the channels along it.

    Attributes:
      path: Path of the layer that has the weight.
      layer: The layer.
      weight: The variable; None for a place outside weights that must not become empty.
      axis: The axis, counted from the front.
      ids: Channel numbers along the axis, NONE where a position belongs to none.
      role: What the axis does with the channels.
      copies: How often the axis has each filter (once for each gate of an LSTM).
    """

    path: str
    layer: tf.keras.layers.Layer
    weight: Optional[tf.Variable]
    axis: int
    ids: np.ndarray
    role: Role
    copies: int = 1


class Record:
    """What is known of a model's channels.

    Args:
      walk: Traces a layer inside a wrapper: (layer, path, args, outputs, times) -> outputs.
      within_groups: By id the grouped convolutions that lose the same places of all their groups;
        all others lose whole groups.

    Attributes:
      channels: Which channels are one, which are fixed.
      ties: All tied weight axes, in the order of the graph.
      settings: Changes of layer configurations, by id of the layer.
      arguments: Changes of constant call arguments, by id of the node.
      grouped: The grouped convolutions that were seen.
      walk: As given.
      within_groups: As given.
    """

    def __init__(self, walk: Callable[..., Any], within_groups: Collection[int] = ()) -> None:
        self.walk = walk
        self.within_groups = frozenset(within_groups)
        self.channels = Channels()
        self.ties: list[Tie] = []
        self.settings: dict[int, list[ConfigEdit]] = {}
        self.arguments: dict[int, list[tuple[Union[str, int], ArgumentEdit]]] = {}
        self.grouped: list[tf.keras.layers.Layer] = []
        self._by_axis: dict[tuple[int, int], Tie] = {}

    def ties_of(self, weight: tf.Variable) -> list[Tie]:
        """Returns the ties of all axes of a weight."""
        keys = ((id(weight), axis) for axis in range(len(weight.shape)))
        return [self._by_axis[key] for key in keys if key in self._by_axis]

    def produce(
        self, path: str, layer: tf.keras.layers.Layer, weight: tf.Variable, axis: int, copies: int
    ) -> np.ndarray:
        """Returns the channels along an axis, new ones at the first call."""
        axis %= len(weight.shape)
        tie = self._by_axis.get((id(weight), axis))
        if tie is None:
            ids = self.channels.new(weight.shape[axis])
            if len(ids) == 1:
                self.channels.fix(ids, f"is the only channel of '{path}'")
            tie = self._add(Tie(path, layer, weight, axis, ids, Role.PRODUCER, copies))
        return self.channels.find(tie.ids)

    def tie(
        self,
        path: str,
        layer: tf.keras.layers.Layer,
        weight: Optional[tf.Variable],
        axis: int,
        ids: Optional[np.ndarray],
        role: Role,
    ) -> None:
        """Ties an axis of a weight to channels; at a further call of the layer they become one."""
        if weight is not None:
            axis %= len(weight.shape)
            known = self._by_axis.get((id(weight), axis))
            if known is not None:
                if ids is None:
                    self.channels.fix(known.ids, f"'{path}' is also applied to other values")
                else:
                    self.channels.unify(
                        known.ids, ids, f"'{path}' is also applied to values that must stay"
                    )
                return
            if ids is None:
                # Remembered, so that a later call of the same layer cannot cut this axis.
                ids = np.full(weight.shape[axis], NONE)
            if len(ids) != weight.shape[axis]:
                raise AssertionError(
                    f"{path}: axis {axis} of {weight.name} has {weight.shape[axis]} places, "
                    f"the rule of {type(layer).__name__} ties {len(ids)}."
                )
        if ids is not None:
            self._add(Tie(path, layer, weight, axis, np.array(ids), role))

    def _add(self, tie: Tie) -> Tie:
        self.ties.append(tie)
        if tie.weight is not None:
            self._by_axis[id(tie.weight), tie.axis] = tie
        return tie

    def configure(self, layer: tf.keras.layers.Layer, edit: ConfigEdit) -> None:
        """Registers a change of a layer's configuration."""
        self.settings.setdefault(id(layer), []).append(edit)

    def replace_argument(self, node: Any, name: Union[str, int], edit: ArgumentEdit) -> None:
        """Registers a change of a constant argument of a call."""
        self.arguments.setdefault(id(node), []).append((name, edit))

    def fix_weight(self, weight: tf.Variable, reason: str) -> None:
        """Keeps all channels along all axes of a weight."""
        for tie in self.ties_of(weight):
            self.channels.fix(tie.ids, reason)

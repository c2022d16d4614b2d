"""Exchanges layers of a model for others; everything else is inherited.

Rewrite ──┬── FactorizationPlan   one layer becomes two
          ├── MergePlan           two become one
          └── BranchRemoval       a branch goes with its addition
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Optional

import numpy as np
import tensorflow as tf

from tff_autoprune.errors import UserError
from tff_autoprune.surgery.rebuild import Rebuilder
from tff_autoprune.surgery.trace import Trace


class Rewrite:
    """A checked exchange of layers, not yet carried out.

    Attributes:
      model: The model that it is about; not changed.
    """

    def __init__(self, trace: Trace) -> None:
        self.model = trace.model
        self._trace = trace
        self._position = {id(weight): i for i, weight in enumerate(trace.model.weights)}
        self._carried: Optional[list[tuple[Optional[int], tuple[int, ...]]]] = None

    def apply(self, weights: Optional[Sequence[np.ndarray]] = None) -> tf.keras.Model:
        """Builds the new model.

        Args:
          weights: Values of `model.weights` to start from; None for the present ones.

        Returns:
          An ordinary Keras model, not compiled. Everything but the exchanged layers is as before:
          names, inputs, outputs, weights, trainable flags, dtype policies.
        """
        raise NotImplementedError

    def slice_trainable(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Carries what belongs to the trainable weights, e.g. optimizer state, over.

        Args:
          arrays: Aligned with `model.trainable_weights` and of their shapes.

        Returns:
          Arrays aligned with the trainable weights of the new model: those of weights that stay as
          they are, zeros for new kernels. What an optimizer knows of a product does not tell what
          it would know of the factors.

        Raises:
          UserError: If the arrays do not belong to the model.
        """
        weights = self.model.trainable_weights
        if len(arrays) != len(weights):
            raise UserError(
                f"Expected one array for each of the {len(weights)} model.trainable_weights, "
                f"found {len(arrays)}."
            )
        for array, weight in zip(arrays, weights):
            if np.shape(array) != tuple(weight.shape):
                raise UserError(
                    f"Expected an array of shape {tuple(weight.shape)} for {weight.name}, "
                    f"found {np.shape(array)}."
                )
        if self._carried is None:
            self.apply()  # Keras decides on the order of the weights.
        at = {self._position[id(weight)]: np.asarray(a) for weight, a in zip(weights, arrays)}
        dtype = np.asarray(arrays[0]).dtype if len(arrays) else np.float32
        return [
            np.zeros(shape, dtype) if origin is None else at[origin]
            for origin, shape in self._carried
        ]

    def _values(self, weights: Optional[Sequence[np.ndarray]]) -> list[np.ndarray]:
        return self.model.get_weights() if weights is None else list(weights)

    def _inherit(
        self,
        rebuilder: Rebuilder,
        new: tf.keras.Model,
        values: Sequence[np.ndarray],
        more: Mapping[int, int],
    ) -> None:
        """Gives a new model the weights of all layers that were copied.

        Args:
          rebuilder: What copied the model.
          new: The copy.
          values: Values of `model.weights`.
          more: Weights of exchanged layers that stay as they are: by id of the new weight the place
            of the old one in `model.weights`.
        """
        # Keras may order the layers of parallel branches anew: weights go by layer, not by place.
        origin = {
            id(copy): self._position[id(old)]
            for old_layer, new_layer in rebuilder.pairs()
            for old, copy in zip(old_layer.weights, new_layer.weights)
        }
        origin.update(more)
        for weight in new.weights:
            if id(weight) in origin:
                weight.assign(values[origin[id(weight)]])
        for layer in new._flatten_layers(include_self=False):
            # Normalization computes with constants that it derives from its weights.
            if hasattr(layer, "finalize_state"):
                layer.finalize_state()
        self._carried = [
            (origin.get(id(weight)), tuple(weight.shape)) for weight in new.trainable_weights
        ]


def all_kept(ids: Any) -> np.ndarray:
    """Says that every channel stays, bool of the shape of `ids`."""
    return np.ones(np.shape(ids), bool)

"""Carries a structure out: from the present network to the smaller one, weights inherited.

    weights ──survivors stand in──> remove filters ──> factorize ──> smaller model
                      └──────────────> the same function, in the present architecture

The second way serves trials: a client that has the present network evaluates many structures of it
without downloading one of them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from tff_autoprune import surgery
from tff_autoprune.search import compensation
from tff_autoprune.search.structure import Structure
from tff_autoprune.surgery.equivalence import silenced_weights

if TYPE_CHECKING:
    import tensorflow as tf


def layers_to_examine(network: surgery.Network) -> list[str]:
    """Returns the layers whose inputs tell how survivors can stand in for what goes."""
    readers = compensation.readers(network.model, network.groups)
    factorizable = [
        candidate.layer
        for candidate in surgery.candidates(network.model)
        if candidate.max_rank and "/" not in candidate.layer
    ]
    return list(dict.fromkeys([*(reader.layer for reader in readers), *factorizable]))


class Change:
    """What a structure makes of a network.

    Attributes:
      model: The smaller model; built when it is first asked for.
    """

    def __init__(
        self,
        network: surgery.Network,
        structure: Structure,
        moments: Mapping[str, np.ndarray],
    ) -> None:
        """Plans the change.

        Args:
          network: The present network.
          structure: What shall become of it.
          moments: Second moments of what layers read, by layer; without those of a layer, nothing
            stands in for the channels that it no longer reads.
        """
        self._network = network
        self._removal = surgery.plan_removal(network, structure.removed)
        self._weights = self._stand_in(moments)
        narrow = self._removal.apply()
        narrow.set_weights(self._removal.slice_weights(self._weights))
        self._plan = surgery.plan_factorization(
            narrow, structure.factorized, moments=self._kept_moments(moments)
        )
        self._model = None

    def _stand_in(self, moments: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """Returns the present weights, with survivors standing in for what goes."""
        network, values = self._network, silenced_weights(self._removal)
        found = [
            reader
            for reader in compensation.readers(network.model, network.groups)
            if reader.layer in moments
        ]
        mixes = compensation.stand_ins(network.groups, found, self._removal.selection, moments)
        refitted = compensation.compensate(found, network.model.get_weights(), mixes)
        for reader in found:
            if reader.layer in mixes:
                values[reader.position] = refitted[reader.position]
        return values

    def _kept_moments(self, moments: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Returns the moments of the channels that layers of the narrow model still read."""
        kept, places = {}, self._flat_places()
        for name, moment in moments.items():
            kernel = self._network.model.get_layer(name).kernel
            shape = tuple(kernel.shape)
            if shape[-2] != len(moment):
                continue  # It reads the output of a Flatten.
            rows = np.unravel_index(places[self._position(kernel)].ravel(), shape)[-2]
            kept[name] = np.asarray(moment)[np.ix_(np.unique(rows), np.unique(rows))]
        return kept

    def _position(self, kernel: tf.Variable) -> int:
        weights = self._network.model.weights
        return next(index for index, weight in enumerate(weights) if weight is kernel)

    def _flat_places(self) -> list[np.ndarray]:
        """Returns for each weight which of its elements stay."""
        shapes = [tuple(weight.shape) for weight in self._network.model.weights]
        numbers = [np.arange(math.prod(shape)).reshape(shape) for shape in shapes]
        return self._removal.slice_weights(numbers)

    @property
    def model(self) -> tf.keras.Model:
        """The smaller model."""
        if self._model is None:
            self._model = self._plan.apply()
        return self._model

    def in_place(self) -> dict[int, np.ndarray]:
        """Returns the weights with which the present architecture computes what `model` does.

        Returns:
          New values by index in the present `model.weights`; the others stay.
        """
        # A copy in C order: what is flattened below has to be a view.
        values = [np.array(value, order="C") for value in self._weights]
        places = self._flat_places()
        for value, where, narrow in zip(values, places, self._plan.weights_in_place()):
            value.reshape(-1)[where.ravel()] = narrow.ravel()
        old = self._network.model.get_weights()
        return {
            index: value
            for index, (value, before) in enumerate(zip(values, old))
            if not np.array_equal(value, before)
        }

    def slice_trainable(self, values: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Carries arrays like the old trainable weights (optimizer moments) over.

        What was removed is dropped; new factors start from zeros.
        """
        self.model  # noqa: B018 - the plan knows what is carried once the model is built.
        return self._plan.slice_trainable(self._removal.slice_trainable(values))

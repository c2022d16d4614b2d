"""A network in training: what the server holds of it between rounds.

    learner ──a round──> learner ──a change──> learner of a smaller network

A race has several of them at a time; each is a value, and none knows of the others.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Optional

import numpy as np
import tensorflow as tf

from tff_autoprune import federated, surgery
from tff_autoprune.search.change import Change


@dataclasses.dataclass(frozen=True)
class Learner:
    """An architecture, the engine that trains it, and the state of its learning process.

    Attributes:
      engine: Runs its rounds.
      state: The process state; holds the weights.
      network: The architecture and its cost. The weights of its model are those of `present`.
    """

    engine: federated.Engine
    state: federated.State
    network: surgery.Network

    @classmethod
    def of(
        cls, engine: federated.Engine, state: federated.State, ignore_layers: Sequence[str] = ()
    ) -> Learner:
        """Returns the learner of an engine and one of its states."""
        return cls(engine, state, surgery.Network(engine.keras_model(state), ignore_layers))

    def with_state(self, state: federated.State) -> Learner:
        """Returns the learner after a round."""
        return dataclasses.replace(self, state=state)

    def present(self) -> surgery.Network:
        """Returns the network with the weights of now."""
        weights, model = self.state.global_model_weights, self.network.model
        for variables, values in (
            (model.trainable_weights, weights.trainable),
            (model.non_trainable_weights, weights.non_trainable),
        ):
            for variable, value in zip(variables, values):
                variable.assign(value)
        return self.network

    def changed(self, change: Change, ignore_layers: Sequence[str] = ()) -> Learner:
        """Returns the learner of the smaller network, which inherits weights and state."""
        engine = self.engine.with_model(change.model)
        return Learner.of(engine, engine.carry_state(self.state, change), ignore_layers)

    def restarted(self, model: tf.keras.Model, ignore_layers: Sequence[str] = ()) -> Learner:
        """Returns the learner of a network with new weights; the run's progress goes on."""
        engine = self.engine.with_model(model)
        return Learner.of(engine, engine.carry_state(self.state, None), ignore_layers)

    def assigned(self, weights: Sequence[np.ndarray]) -> Learner:
        """Returns the learner with other weights of the same architecture."""
        model = self.engine.keras_model(self.state)
        model.set_weights(weights)
        return self.with_state(self.engine.set_weights(self.state, model))

    def weights(self) -> list[np.ndarray]:
        """Returns the weights of now, in the order of `model.weights`."""
        return self.present().model.get_weights()

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Returns the state as a flat dict of arrays, bit exact."""
        return self.engine.state_to_arrays(self.state)

    def restored(
        self,
        model: Optional[tf.keras.Model],
        arrays: Mapping[str, np.ndarray],
        ignore_layers: Sequence[str] = (),
    ) -> Learner:
        """Returns the learner of a checkpoint: its architecture, and its state as arrays."""
        engine = self.engine if model is None else self.engine.with_model(model)
        return Learner.of(engine, engine.state_from_arrays(arrays), ignore_layers)

"""Magnitude pruning of single weights by tfmot's schedule: what sparsity gives, for comparison.

The model keeps its shape: zeros compress, but they cost the same FLOPs, and a client receives them.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Optional

import numpy as np

from tff_autoprune.errors import UserError
from tff_autoprune.search import base

if TYPE_CHECKING:
    import tensorflow as tf

    from tff_autoprune import surgery

# The schedule's default shape: from none to all of the sparsity over this span of the run.
_BEGIN, _END = 0.1, 0.6


@dataclasses.dataclass(frozen=True)
class UnstructuredState:
    """The share of the kernels' weights that shall be zero in the end."""

    sparsity: float


class UnstructuredPruning(base.PruningMethod):
    """Zeroes the smallest weights of all kernels together, more of them every round."""

    def __init__(self, target_parameters: Optional[int]) -> None:
        """Sets how many non-zero weights shall be left at the end.

        Raises:
          UserError: If that is not said.
        """
        if target_parameters is None:
            raise UserError(
                "pruning.target_parameters: unstructured pruning needs the parameters to reach,"
                " found None."
            )
        self._target_parameters = target_parameters

    def initialize(self, network: surgery.Network) -> UnstructuredState:
        """Returns the sparsity of the kernels that meets the target.

        Raises:
          UserError: If the target is not below the model's parameters, or below its biases.
        """
        model = network.model
        kernels = sum(int(np.prod(w.shape)) for w in model.weights if _is_kernel(w))
        kept = self._target_parameters - (model.count_params() - kernels)
        if not 0 < kept <= kernels:
            raise UserError(
                "pruning.target_parameters: expected between"
                f" {model.count_params() - kernels + 1} and {model.count_params()} for unstructured"
                f" pruning of this model, found {self._target_parameters}."
            )
        return UnstructuredState(1.0 - kept / kernels)

    def state_from_json(self, document: dict[str, Any]) -> UnstructuredState:
        """Returns the state from its JSON form."""
        return UnstructuredState(**document)

    def step(self, state: UnstructuredState, observation: base.Observation) -> base.Outcome:
        """Returns the weights with the smallest ones at zero, as tfmot's schedule wants it."""
        import tensorflow_model_optimization as tfmot

        total = observation.total_rounds
        schedule = tfmot.sparsity.keras.PolynomialDecay(
            initial_sparsity=0.0,
            final_sparsity=state.sparsity,
            begin_step=int(_BEGIN * total),
            end_step=max(int(_BEGIN * total) + 1, int(_END * total)),
            frequency=1,
        )
        if observation.round_num < int(_BEGIN * total):
            return state, []
        sparsity = float(schedule(observation.round_num)[1])
        weights = observation.network.model.get_weights()
        kernels = [i for i, w in enumerate(observation.network.model.weights) if _is_kernel(w)]
        sizes = np.concatenate([np.abs(weights[i]).ravel() for i in kernels])
        dropped = round(sparsity * sizes.size)
        if not dropped:
            return state, []
        threshold = np.partition(sizes, dropped - 1)[dropped - 1]
        for i in kernels:
            weights[i] = np.where(np.abs(weights[i]) > threshold, weights[i], 0)
        decision = base.Decision(
            base.Action.ASSIGN, f"sparsity {sparsity:.3f} by magnitude", weights=weights
        )
        return state, [decision]


def _is_kernel(weight: tf.Variable) -> bool:
    return len(weight.shape) > 1

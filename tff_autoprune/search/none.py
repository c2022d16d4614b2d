"""No pruning: plain federated averaging, the baseline of every comparison."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tff_autoprune.search import base

if TYPE_CHECKING:
    import tensorflow as tf


class NoPruning(base.PruningMethod):
    """Never decides anything."""

    def initialize(self, model: tf.keras.Model) -> base.State:
        """Returns an empty state."""
        del model
        return {}

    def step(
        self, state: base.State, observation: base.Observation
    ) -> tuple[base.State, list[base.Decision]]:
        """Returns the state unchanged and no decision."""
        del observation
        return state, []

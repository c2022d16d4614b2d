"""Carries a structure out: from the present network to the smaller one, weights inherited."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from tff_autoprune import surgery
from tff_autoprune.search.structure import Structure

if TYPE_CHECKING:
    import tensorflow as tf


class Change:
    """What a structure makes of a network.

    Attributes:
      model: The smaller model: filters are removed first, then layers factorized.
    """

    def __init__(self, network: surgery.Network, structure: Structure) -> None:
        """Builds the smaller model.

        Args:
          network: The present network.
          structure: What shall become of it.

        Raises:
          UserError: If the structure does not fit the network.
        """
        self._removal = surgery.plan_removal(network, structure.removed)
        self._plan = surgery.plan_factorization(self._removal.apply(), structure.factorized)
        self.model: tf.keras.Model = self._plan.apply()

    def slice_trainable(self, values: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Carries arrays like the old trainable weights (optimizer moments) over.

        What was removed is dropped; new factors start from zeros.
        """
        return self._plan.slice_trainable(self._removal.slice_trainable(values))

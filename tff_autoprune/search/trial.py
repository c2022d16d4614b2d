"""Trying cuts on held-out clients before one is made.

The clients download the present model once. They tell how well it does and what its layers read;
then they try any number of cuts, of each of which they are sent only what the survivors take over.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tff_autoprune import surgery
from tff_autoprune.search import base, ranking
from tff_autoprune.search.compensation import compensate, readers, stand_ins, unexplained
from tff_autoprune.surgery.roles import Role


class Trial:
    """The present model on the held-out clients, and what cuts would do to it.

    Attributes:
      seen: How well the present model does: "calibrated_loss", "accuracy".
    """

    def __init__(
        self, observation: base.Observation, groups: Sequence[surgery.FilterGroup]
    ) -> None:
        """Sends the model to the clients.

        Args:
          observation: Shows the model, and reaches the clients.
          groups: The model's prunable groups.
        """
        self._observation = observation
        self._model = observation.model
        self._groups = groups
        self._readers = readers(self._model, groups)
        self._layers = {reader.layer: reader.places for reader in self._readers}
        self.seen, self._moments = observation.examine(self._layers)

    def weights_without(self, selection: ranking.Selection) -> list[np.ndarray]:
        """Returns the present weights, with survivors standing in for a selection."""
        mixes = stand_ins(self._groups, self._readers, selection, self._moments)
        return compensate(self._readers, self._model.get_weights(), mixes)

    def unexplained(self) -> dict[str, np.ndarray]:
        """Returns by group how much hangs on each channel alone; without groups out of reach."""
        reached = [group for group in self._groups if self._told_by_readers([{group.name: ()}])]
        return unexplained(reached, self._readers, self._model.get_weights(), self._moments)

    def losses(self, selections: Sequence[ranking.Selection]) -> list[float]:
        """Returns the held-out, calibrated loss of the model without each of some selections."""
        if self._told_by_readers(selections):
            return self._losses_of_mixes(selections)
        return [self._loss_of_model(selection) for selection in selections]

    def _told_by_readers(self, selections: Sequence[ranking.Selection]) -> bool:
        """Whether all that reads what goes is in reach, so that no smaller model is needed."""
        known = {reader.position for reader in self._readers}
        touched = set().union(*selections)
        return all(
            member.position in known
            for group in self._groups
            if group.name in touched
            for member in group.members
            if member.role == Role.CONSUMER
        )

    def _losses_of_mixes(self, selections: Sequence[ranking.Selection]) -> list[float]:
        if not selections:
            return []
        mixes = [
            stand_ins(self._groups, self._readers, selection, self._moments)
            for selection in selections
        ]
        stacked = {
            layer: np.stack([mix.get(layer, np.eye(len(moments))) for mix in mixes])
            for layer, moments in self._moments.items()
        }
        found = self._observation.try_candidates(self._layers, stacked)
        return [feedback["calibrated_loss"] for feedback in found]

    def _loss_of_model(self, selection: ranking.Selection) -> float:
        removal = surgery.plan_removal(self._model, selection)
        smaller = removal.apply()
        smaller.set_weights(removal.slice_weights(self.weights_without(selection)))
        return self._observation.evaluate(smaller)["calibrated_loss"]

"""No pruning: the dense model is trained as it is."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from tff_autoprune.search import base

if TYPE_CHECKING:
    from tff_autoprune import surgery


@dataclasses.dataclass(frozen=True)
class NoState:
    """Nothing passes between rounds."""


class NoPruning(base.PruningMethod):
    """Removes nothing."""

    def initialize(self, network: surgery.Network) -> NoState:
        """Returns the empty state."""
        del network
        return NoState()

    def state_from_json(self, document: dict[str, Any]) -> NoState:
        """Returns the empty state."""
        del document
        return NoState()

    def step(self, state: NoState, observation: base.Observation) -> base.Outcome:
        """Decides nothing."""
        del observation
        return state, []

"""The rule of arXiv 2411.01759, to the letter, so that its figures can be reproduced.

Before each round r = 1..R_p, for every convolution with kernel W [kh, kw, c_in, c_out]:

    s_i = sum |W[:, :, :, i]|      keep i iff  mean(s) - k sd(s) <= s_i <= mean(s) + k sd(s)

(sd is the population's). A model with the surviving counts, at least one filter a layer, starts
from new random weights. The search ends after R_p rounds, or when `patience` rounds in a row
removed nothing; the rest of the run trains what was found. Where the reference prunes only
hand-marked layers, every prunable convolution takes part here, once for each filter group.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np

from tff_autoprune.search import base, importance
from tff_autoprune.search.structure import Structure

if TYPE_CHECKING:
    from tff_autoprune import surgery


@dataclasses.dataclass(frozen=True)
class PaperState:
    """What passes between rounds.

    Attributes:
      unchanged: Rounds in a row without a removal.
    """

    unchanged: int = 0


class PaperPruning(base.PruningMethod):
    """Two-sided bounds on the L1 norms of filters; re-initialises after every cut."""

    def __init__(self, *, k: float, rounds: int, patience: int) -> None:
        """Sets the rule's constants.

        Args:
          k: Width of the bounds in standard deviations.
          rounds: R_p, the rounds of structure search at most.
          patience: Rounds in a row without a removal that end the search.
        """
        self._k = k
        self._rounds = rounds
        self._patience = patience

    def initialize(self, network: surgery.Network) -> PaperState:
        """Returns that no round has gone by without a removal."""
        del network
        return PaperState()

    def state_from_json(self, document: dict[str, Any]) -> PaperState:
        """Returns the state from its JSON form."""
        return PaperState(**document)

    def step(self, state: PaperState, observation: base.Observation) -> base.Outcome:
        """Returns the cut before the next round, or the end of the search."""
        if state.unchanged >= self._patience:
            reason = f"{state.unchanged} rounds in a row removed nothing"
            return state, [base.Decision(base.Action.STOP, reason)]
        if observation.round_num >= self._rounds:
            reason = f"{self._rounds} rounds of structure search are over"
            return state, [base.Decision(base.Action.STOP, reason)]
        network = observation.network
        weights = network.model.get_weights()
        score = importance.L1(normalize=None)
        removed = {}
        for group in network.prunable:
            if _makes_filters(group, network):
                outliers = outside_bounds(score(group, weights), self._k)
                if len(outliers):
                    removed[group.name] = tuple(outliers.tolist())
        if not removed:
            return PaperState(state.unchanged + 1), []
        reason = f"L1 norm outside mean +- {self._k:g} standard deviations"
        cut = base.Decision(
            base.Action.MOVE, reason, structure=Structure(removed), reinitialize=True
        )
        return PaperState(), [cut]


def outside_bounds(scores: np.ndarray, k: float) -> np.ndarray:
    """Returns the indices of scores further than k standard deviations from the mean.

    Args:
      scores: float [n].
      k: Number of population standard deviations.

    Returns:
      int64 [m], ascending; never all indices: the score nearest to the mean stays.
    """
    distance = np.abs(scores - scores.mean())
    outliers = np.flatnonzero(distance > k * scores.std())
    if len(outliers) == len(scores):
        outliers = np.delete(outliers, np.argmin(distance))
    return outliers


def _makes_filters(group: surgery.FilterGroup, network: surgery.Network) -> bool:
    """Whether a convolution, not a Dense layer, makes the group's channels."""
    return any(len(network.model.weights[member.position].shape) > 2 for member in group.producers)

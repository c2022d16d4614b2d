"""The rule of arXiv 2411.01759, to the letter, so that its figures can be reproduced.

Before each round r = 1..R_p, for every convolution with kernel W [kh, kw, c_in, c_out]:

    s_i = sum |W[:, :, :, i]|      keep i iff  mean(s) - k sd(s) <= s_i <= mean(s) + k sd(s)

(sd is the population's). A model with the surviving counts, at least one filter a layer, starts
from new random weights. The search ends after R_p rounds, or when `patience` rounds in a row
removed nothing; the rest of the run trains what was found. Where the reference prunes only
hand-marked layers, every prunable convolution takes part here, once for each filter group.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tff_autoprune import surgery
from tff_autoprune.search import base, importance

if TYPE_CHECKING:
    import tensorflow as tf


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

    def initialize(self, model: tf.keras.Model) -> base.State:
        """Returns that no round has gone by without a removal."""
        del model
        return {"unchanged": 0}

    def step(
        self, state: base.State, observation: base.Observation
    ) -> tuple[base.State, list[base.Decision]]:
        """Returns the cut before the next round, or the end of the search."""
        unchanged = state["unchanged"]
        if unchanged >= self._patience:
            reason = f"{unchanged} rounds in a row removed nothing"
            return state, [base.Decision(base.Action.STOP, reason)]
        if observation.round_num >= self._rounds:
            reason = f"{self._rounds} rounds of structure search are over"
            return state, [base.Decision(base.Action.STOP, reason)]
        weights = observation.model.get_weights()
        score = importance.L1(normalize=None)
        selection = {}
        for group in surgery.find_filter_groups(observation.model):
            if group.prunable and _makes_filters(group, observation.model):
                outliers = outside_bounds(score(group, weights), self._k)
                if len(outliers):
                    selection[group.name] = outliers.tolist()
        if not selection:
            return {"unchanged": unchanged + 1}, []
        reason = f"L1 norm outside mean +- {self._k:g} standard deviations"
        cut = base.Decision(base.Action.CUT, reason, selection=selection, reinitialize=True)
        return {"unchanged": 0}, [cut]


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


def _makes_filters(group: surgery.FilterGroup, model: tf.keras.Model) -> bool:
    """Whether a convolution, not a Dense layer, makes the group's channels."""
    return any(len(model.weights[m.position].shape) > 2 for m in group.producers)

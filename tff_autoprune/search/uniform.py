"""The same share of filters in every layer, by L1 norm, in one cut: the usual baseline.

The survivors inherit their weights, and learn at a rate that suits the width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Optional

import numpy as np

from tff_autoprune import surgery
from tff_autoprune.search import base, budget, importance
from tff_autoprune.search.width import learning_rate_scale, width
from tff_autoprune.surgery import cost

if TYPE_CHECKING:
    import tensorflow as tf

# Halvings of the interval in which the share that meets a target lies: finer than one filter.
_BISECTIONS = 14


class UniformPruning(base.PruningMethod):
    """Cuts once, the same share everywhere."""

    def __init__(
        self, *, fraction: float, round_num: int, target_parameters: Optional[int] = None
    ) -> None:
        """Sets the cut.

        Args:
          fraction: Share of the channels of each group to remove.
          round_num: Rounds before the cut.
          target_parameters: If set, the smallest share that leaves no more parameters is taken
            instead of `fraction`.
        """
        self._fraction = fraction
        self._round_num = round_num
        self._target_parameters = target_parameters

    def initialize(self, model: tf.keras.Model) -> base.State:
        """Returns the state before the first round.

        Raises:
          UserError: If the target is less than what the smallest version of the model has.
        """
        if self._target_parameters is not None:
            budget.counted("parameters", self._target_parameters).check_reachable(model)
        dense_width = width(model)
        return {"dense_width": dense_width, "width": dense_width}

    def controls(self, state: base.State) -> base.Controls:
        """Returns a learning rate that suits the width."""
        scale = learning_rate_scale(state["dense_width"], state["width"])
        return base.Controls(learning_rate_scale=scale)

    def step(
        self, state: base.State, observation: base.Observation
    ) -> tuple[base.State, list[base.Decision]]:
        """Returns the one cut, in its round."""
        if observation.round_num != self._round_num:
            return state, []
        model = observation.model
        groups = [g for g in surgery.find_filter_groups(model) if g.prunable]
        order = _weakest_first(groups, model.get_weights())
        fraction = self._fraction
        if self._target_parameters is not None:
            fraction = _fraction_for(self._target_parameters, model, groups, order)
        selection = _selection(groups, order, fraction)
        stop = base.Decision(base.Action.STOP, "uniform pruning cuts once")
        if not selection:
            return state, [stop]
        reason = f"the weakest {fraction:.1%} of every group"
        state = {**state, "width": width(model, selection)}
        return state, [base.Decision(base.Action.CUT, reason, selection=selection), stop]


def _weakest_first(groups: list[surgery.FilterGroup], weights: list) -> dict[str, np.ndarray]:
    score = importance.L1()
    return {group.name: np.argsort(score(group, weights), kind="stable") for group in groups}


def _selection(
    groups: list[surgery.FilterGroup], order: dict[str, np.ndarray], fraction: float
) -> dict[str, list[int]]:
    counts = {g.name: min(g.channels - 1, int(fraction * g.channels + 0.5)) for g in groups}
    return {name: order[name][:count].tolist() for name, count in counts.items() if count}


def _fraction_for(
    target: int,
    model: tf.keras.Model,
    groups: list[surgery.FilterGroup],
    order: dict[str, np.ndarray],
) -> float:
    def parameters(fraction: float) -> int:
        selection = _selection(groups, order, fraction)
        if not selection:
            return model.count_params()
        return cost.of(surgery.remove_filters(model, selection)).parameters

    low, high = 0.0, 1.0
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        low, high = (low, middle) if parameters(middle) <= target else (middle, high)
    return high

"""A budget for the model's size, and cuts that meet it exactly.

What one channel saves depends on how many channels its neighbours have, so a selection made from
the savings of single channels misses a budget by a little. `fit` corrects it: it takes channels
back, or swaps a channel of one group for one of another, and counts the cost of each such model.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from tff_autoprune import surgery
from tff_autoprune.errors import UserError
from tff_autoprune.search import ranking
from tff_autoprune.surgery import cost

if TYPE_CHECKING:
    import tensorflow as tf

# A budget counts as met from here on. One filter of a small network can be more than this.
TOLERANCE = 0.02
# Channels that return to one group (that go, if negative); another group makes up for them.
_CHANGES = (0, 1, -1, 2, -2, 3, -3)
# Models that are built and counted in the search for an exact fit.
_CANDIDATES = 16
# Corrections of the first-order estimate until the budget is no longer exceeded.
_ATTEMPTS = 12


@dataclasses.dataclass(frozen=True)
class Budget:
    """What the pruned model may cost at most.

    Attributes:
      what: The unit, for messages: "parameters", "flops", "bytes" or "latency_ms".
      value: The most that is allowed.
      measure: Cost of a model in that unit.
      savings: What removing one channel of each group saves, by name, in that unit and to first
        order; takes the model, its groups, and its cost.
    """

    what: str
    value: float
    measure: Callable[[tf.keras.Model], float]
    savings: Callable[[tf.keras.Model, Sequence[surgery.FilterGroup], float], dict[str, float]]

    def check_reachable(self, model: tf.keras.Model) -> None:
        """Raises UserError if even one channel in each group costs more than the budget."""
        selection = {
            group.name: list(range(1, group.channels))
            for group in surgery.find_filter_groups(model)
            if group.prunable
        }
        least = self.measure(surgery.remove_filters(model, selection) if selection else model)
        if least > self.value:
            raise UserError(
                f"pruning.target_{self.what}: expected at least {least:g}, what the model costs"
                f" with a single channel in each filter group, found {self.value:g}."
            )


def counted(what: str, value: float) -> Budget:
    """Returns a budget of "parameters", "flops" or "bytes"."""
    return Budget(
        what,
        value,
        measure=lambda model: float(getattr(cost.of(model), what)),
        savings=lambda model, groups, now: cost.per_channel(model, groups, what),
    )


def fit(
    budget: Budget,
    model: tf.keras.Model,
    groups: Sequence[surgery.FilterGroup],
    costs: Mapping[str, np.ndarray],
) -> tuple[ranking.Selection, float]:
    """Selects channels so that what is left costs as much as the budget allows, and no more.

    Args:
      budget: The budget.
      model: The model; costs more than the budget.
      groups: Its prunable groups.
      costs: What each channel costs, by group name: from `prices.measured`, say.

    Returns:
      The channels to remove by group name, and the cost of the model without them.
    """
    now = budget.measure(model)
    savings = budget.savings(model, groups, now)
    search = _Search(budget, model, groups, costs)
    amount = now - budget.value
    for _ in range(_ATTEMPTS):
        selection = ranking.weakest(groups, costs, savings, amount, least_left=0.0)
        counts = {group.name: len(selection.get(group.name, ())) for group in groups}
        reached = search.visit(counts)
        if reached <= budget.value:
            break
        amount += reached - budget.value
    search.come_closer()
    return search.selection, search.reached


class _Search:
    """The best cut found so far, as numbers of channels that go, and its neighbours."""

    def __init__(
        self,
        budget: Budget,
        model: tf.keras.Model,
        groups: Sequence[surgery.FilterGroup],
        costs: Mapping[str, np.ndarray],
    ) -> None:
        self._budget = budget
        self._model = model
        self._channels = {group.name: group.channels for group in groups}
        self._order = {name: np.argsort(costs[name], kind="stable") for name in self._channels}
        self._tried: set[tuple[int, ...]] = set()
        self._counts = dict.fromkeys(self._channels, 0)
        self._best = model
        self.reached = math.inf

    @property
    def selection(self) -> ranking.Selection:
        """Channels to remove by group name."""
        return self._selected(self._counts)

    def _selected(self, counts: Mapping[str, int]) -> ranking.Selection:
        return {name: self._order[name][:n].tolist() for name, n in counts.items() if n > 0}

    def visit(self, counts: dict[str, int]) -> float:
        """Counts the cost of a cut; keeps it if it is the best: within the budget, near it."""
        self._tried.add(tuple(counts.values()))
        candidate = surgery.remove_filters(self._model, self._selected(counts))
        found = self._budget.measure(candidate)
        inside, was_inside = found <= self._budget.value, self.reached <= self._budget.value
        better = found > self.reached if inside and was_inside else found < self.reached
        if better and (inside or not was_inside):
            self._counts, self._best, self.reached = dict(counts), candidate, found
        return found

    def come_closer(self) -> None:
        """Visits neighbours of the best cut until the budget is met."""
        for _ in range(_CANDIDATES):
            if (1 - TOLERANCE) * self._budget.value <= self.reached <= self._budget.value:
                return
            options = self._neighbours()
            if not options:
                return
            self.visit(dict(min(options)[1]))

    def _neighbours(self) -> list[tuple[float, tuple[tuple[str, int], ...]]]:
        """Returns untried neighbours, each with how far it probably is from the budget."""
        groups = surgery.find_filter_groups(self._best)
        savings = self._budget.savings(self._best, groups, self.reached)
        goal = (1 - TOLERANCE / 2) * self._budget.value
        options = []
        for first, second in itertools.permutations(self._channels, 2):
            for change in _CHANGES:
                missing = goal - self.reached - change * savings[first]
                saved = savings[second]
                others = round(missing / saved) if saved > 0 else 0
                new = dict(self._counts)
                new[first] -= change
                new[second] -= others
                possible = all(0 <= n < self._channels[name] for name, n in new.items())
                if possible and tuple(new.values()) not in self._tried:
                    options.append((abs(missing - others * saved), tuple(new.items())))
        return options

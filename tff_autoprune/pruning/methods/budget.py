"""A budget for the model's size, and cuts that meet it exactly.

What one channel saves depends on how many channels its neighbours have, so a selection made from
the savings of single channels misses a budget by a little. `fit` corrects it: it takes channels
back, or swaps a channel of one group for one of another, and counts the cost of each such model.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from tff_autoprune import pruning
from tff_autoprune.errors import UserError
from tff_autoprune.pruning import cost
from tff_autoprune.pruning.methods import ranking

if TYPE_CHECKING:
    import tensorflow as tf

# A budget counts as met from here on. One filter of a small network can be more than this.
TOLERANCE = 0.02
# Models that are built and counted in the search for an exact fit.
_CANDIDATES = 12
# Corrections of the first-order estimate until the budget is no longer exceeded.
_ATTEMPTS = 12


@dataclasses.dataclass(frozen=True)
class Budget:
    """What the pruned model may cost at most.

    Attributes:
      what: The unit, for messages: "parameters", "flops", "bytes" or "latency_ms".
      value: The most that is allowed.
      proxy: What a channel is taken to save: a `what` of `cost.per_channel`.
      measure: Cost of a model in that unit.
    """

    what: str
    value: float
    proxy: str
    measure: Callable[[tf.keras.Model], float]

    def check_reachable(self, model: tf.keras.Model) -> None:
        """Raises UserError if even one channel in each group costs more than the budget."""
        selection = {
            group.name: list(range(1, group.channels))
            for group in pruning.find_filter_groups(model)
            if group.prunable
        }
        least = self.measure(pruning.remove_filters(model, selection) if selection else model)
        if least > self.value:
            raise UserError(
                f"pruning.target_{self.what}: expected at least {least:g}, what the model costs"
                f" with a single channel in each filter group, found {self.value:g}."
            )


def counted(what: str, value: float) -> Budget:
    """Returns a budget of "parameters", "flops" or "bytes"."""
    return Budget(what, value, what, lambda model: float(getattr(cost.of(model), what)))


def fit(
    budget: Budget,
    model: tf.keras.Model,
    groups: Sequence[pruning.FilterGroup],
    energies: Mapping[str, np.ndarray],
) -> tuple[ranking.Selection, float]:
    """Selects channels so that what is left costs as much as the budget allows, and no more.

    Args:
      budget: The budget.
      model: The model; costs more than the budget.
      groups: Its prunable groups.
      energies: From `ranking.energies`.

    Returns:
      The channels to remove by group name, and the cost of the model without them.
    """
    savings = cost.per_channel(model, groups, budget.proxy)
    order = {group.name: np.argsort(energies[group.name], kind="stable") for group in groups}
    now = budget.measure(model)
    unit = now / float(getattr(cost.of(model), budget.proxy))
    amount = (now - budget.value) / unit

    def selected(counts: Mapping[str, int]) -> ranking.Selection:
        return {name: order[name][:n].tolist() for name, n in counts.items() if n > 0}

    def left(counts: Mapping[str, int]) -> float:
        return budget.measure(pruning.remove_filters(model, selected(counts)))

    counts: dict[str, int] = {}
    reached = now
    for _ in range(_ATTEMPTS):
        selection = ranking.weakest(groups, energies, savings, amount, least_left=0.0)
        counts = {group.name: len(selection.get(group.name, ())) for group in groups}
        reached = left(counts)
        if reached <= budget.value:
            break
        amount += (reached - budget.value) / unit
    return _closest(budget, groups, savings, counts, reached, unit, left, selected)


def _closest(
    budget: Budget,
    groups: Sequence[pruning.FilterGroup],
    savings: Mapping[str, float],
    counts: dict[str, int],
    reached: float,
    unit: float,
    left: Callable[[Mapping[str, int]], float],
    selected: Callable[[Mapping[str, int]], ranking.Selection],
) -> tuple[ranking.Selection, float]:
    channels = {group.name: group.channels for group in groups}
    tried = {tuple(counts.values())}
    for _ in range(_CANDIDATES):
        if (1 - TOLERANCE) * budget.value <= reached <= budget.value:
            break
        options = []
        for give, take in itertools.product(channels, [None, *channels]):
            for given, taken in ((1, 1), (1, 2), (2, 1), (1, 3), (3, 1)):
                new = dict(counts)
                new[give] -= given
                if take is not None:
                    new[take] += taken
                inside = all(0 <= n < channels[name] for name, n in new.items())
                if take == give or not inside or tuple(new.values()) in tried:
                    continue
                change = given * savings[give] - (taken * savings[take] if take else 0.0)
                expected = reached + unit * change
                if reached < expected or reached > budget.value:
                    miss = abs((1 - TOLERANCE / 2) * budget.value - expected)
                    options.append((miss, tuple(new.items())))
        if not options:
            break
        new = dict(min(options)[1])
        tried.add(tuple(new.values()))
        found = left(new)
        if found <= budget.value and (found > reached or reached > budget.value):
            counts, reached = new, found
    return selected(counts), reached

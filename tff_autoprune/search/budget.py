"""A budget for the model's size, and structures that meet it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING

from tff_autoprune import surgery
from tff_autoprune.errors import UserError
from tff_autoprune.search.counted_cost import CostWeights
from tff_autoprune.search.structure import Space, Structure

if TYPE_CHECKING:
    import tensorflow as tf

# A budget counts as met from here on. One filter of a small network can be more than this.
TOLERANCE = 0.02
# Networks that are built and measured in the search for a fit.
_CANDIDATES = 16


@dataclasses.dataclass(frozen=True)
class Budget:
    """What the pruned model may cost at most.

    Attributes:
      what: The unit, for messages: "parameters", "flops", "bytes" or "latency_ms".
      value: The most that is allowed.
      measure: Cost of a network in that unit.
      weights: What counts towards it, for the ranking of what goes; takes the network.
    """

    what: str
    value: float
    measure: Callable[[surgery.Network], float]
    weights: Callable[[surgery.Network], CostWeights]

    def check_reachable(self, network: surgery.Network) -> None:
        """Raises UserError if even one channel in each group costs more than the budget."""
        selection = {group.name: list(range(1, group.channels)) for group in network.prunable}
        selection = {name: ids for name, ids in selection.items() if ids}
        least = surgery.Network(surgery.plan_removal(network, selection).apply())
        if self.measure(least) > self.value:
            raise UserError(
                f"pruning.target_{self.what}: expected at least {self.measure(least):g}, what the"
                " model costs with a single channel in each filter group, found"
                f" {self.value:g}."
            )


def counted(what: str, value: float) -> Budget:
    """Returns a budget of "parameters", "flops" or "bytes"."""
    weights = CostWeights(0.0, 1.0) if what == "flops" else CostWeights(1.0, 0.0)
    return Budget(
        what,
        value,
        measure=lambda network: float(getattr(network.cost, what)),
        weights=lambda network: weights,
    )


def fit(
    budget: Budget,
    space: Space,
    network: surgery.Network,
    build: Callable[[Structure], tf.keras.Model],
) -> tuple[Structure, float]:
    """Finds the structure that costs as much as a budget allows, and no more.

    Args:
      budget: The budget.
      space: Ranks what goes by `budget.weights`.
      network: The present network; costs more than the budget.
      build: Carries a structure out.

    Returns:
      The structure, and what it costs. The ranking's estimate of the cost is corrected by what the
      built network costs, until that is met from below.
    """
    now = budget.measure(network)
    # Estimates and measures differ in unit (bytes) and by what no channel changes.
    low, high = 0.0, space.cost
    target = high * budget.value / now
    best, reached = Structure(), now
    for _ in range(_CANDIDATES):
        (structure,) = space.ladder([target], exact=True)
        found = budget.measure(surgery.Network(build(structure)))
        inside = found <= budget.value
        if inside and (reached > budget.value or found > reached):
            best, reached = structure, found
        if inside and found >= (1 - TOLERANCE) * budget.value:
            break
        low, high = (target, high) if inside else (low, target)
        # The first steps follow the error; then the interval is halved.
        corrected = target * budget.value / max(found, 1e-9)
        target = corrected if low < corrected < high else (low + high) / 2
    return best, reached

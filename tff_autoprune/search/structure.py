"""Smaller structures of a network, from one ranking of filters and ranks together.

A structure says how many channels each filter group keeps and to which rank each layer is
factorized. What a channel is worth is its share of its group's energy (`energy`); what a rank is
worth is its share of the layer's energy (its squared singular value). Both are shares of what one
layer computes, so they compare. Channels and ranks go in the order of the energy lost for the cost
saved, until the cost is small enough: no layer has a quota, and one pass gives a whole ladder.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Optional

import numpy as np

from tff_autoprune import surgery
from tff_autoprune.search.counted_cost import CostWeights, CountedCost, Counts, layer_of
from tff_autoprune.search.energy import Energy
from tff_autoprune.search.importance import Importance

if TYPE_CHECKING:
    from tff_autoprune.surgery import Factorization

# How many of a unit's channels or ranks may go in one step, as shares of those that are left. Long
# steps are considered too: a factorization pays only below some rank.
_STEPS = (0.04, 0.1, 0.2, 0.35, 0.5, 0.7, 0.85)
# A target counts as met from this share below it.
_CLOSE = 0.02
# Channels or ranks that one unit gives or takes for another to come close to a target.
_TRADES = (0, 1, -1, 2, -2, 3, -3)


@dataclasses.dataclass(frozen=True)
class Structure:
    """A smaller network, described by what differs from the present one.

    Attributes:
      removed: Channels that go, by filter group.
      factorized: How layers are factorized, by layer.
      cost: What it costs; estimated.
      lost: Energy that is lost, in units of one layer's.
    """

    removed: Mapping[str, tuple[int, ...]] = dataclasses.field(default_factory=dict)
    factorized: Mapping[str, Factorization] = dataclasses.field(default_factory=dict)
    cost: float = 1.0
    lost: float = 0.0

    @property
    def changes(self) -> bool:
        """Whether it differs from the present network."""
        return bool(self.removed or self.factorized)


class Space:
    """What could go from a network, ranked, and what it would cost then."""

    def __init__(
        self,
        network: surgery.Network,
        weights: CostWeights,
        *,
        importance: Optional[Importance] = None,
        factorize: bool = True,
        round_to: int = 1,
    ) -> None:
        """Ranks the channels and ranks of a network.

        Args:
          network: The present network.
          weights: What counts as its cost.
          importance: What channels are worth; `Energy` by default. Its scores count as shares of
            their sum over the group.
          factorize: Whether layers may be factorized.
          round_to: Widths and ranks that shrink stay multiples of this.
        """
        self._round_to = round_to
        self._costs = CountedCost(network, weights, factorize=factorize)
        score, values = importance or Energy(), network.model.get_weights()
        shares = {group.name: _shares(score(group, values)) for group in network.prunable}
        self._order = {name: np.argsort(share, kind="stable") for name, share in shares.items()}
        # By unit: the energy that is lost when its n weakest channels or ranks go.
        weakest_first = {name: shares[name][order] for name, order in self._order.items()}
        for unit, factors in self._costs.factors.items():
            weakest_first[unit] = factors.energy[::-1]
        self._lost = {
            unit: np.concatenate([[0.0], np.cumsum(energies)])
            for unit, energies in weakest_first.items()
        }
        #: The present network.
        self.present = Counts(
            {name: 0 for name in self._order},
            {unit: len(factors.energy) for unit, factors in self._costs.factors.items()},
        )

    @property
    def cost(self) -> float:
        """The cost of the present network; estimated."""
        return self._costs.of(self.present)

    def ladder(self, targets: Sequence[float], *, exact: bool = False) -> list[Structure]:
        """Returns the structures that lose least energy for their cost.

        Args:
          targets: Costs, falling.
          exact: Whether a target may not be undercut by much, at the expense of energy.

        Returns:
          A structure for each target, which costs no more if anything is left to remove.
        """
        costs, counts = self._costs, self.present
        units = list(self._lost)
        near = {
            unit: [other for other in units if costs.touched[unit] & costs.touched[other]]
            for unit in units
        }
        steps = {unit: self._best_step(unit, counts) for unit in units}
        found = []
        for target in targets:
            while (missing := costs.of(counts) - target) > 0:
                options = [(step[0], unit) for unit, step in steps.items() if step]
                if not options:
                    break
                _, unit = min(options)
                counts = counts.less(unit, self._enough(unit, counts, steps[unit][1], missing))
                steps.update({other: self._best_step(other, counts) for other in near[unit]})
            close = self._closer(counts, target) if exact else counts
            found.append(self._structure(close))
        return found

    # ------------------------------------------------------------ steps

    def _gone(self, unit: str, counts: Counts) -> int:
        """Returns how many of a unit's channels or ranks are gone."""
        if unit in counts.removed:
            return counts.removed[unit]
        return self.present.ranks[unit] - counts.ranks[unit]

    def _saved(self, unit: str, counts: Counts, count: int) -> float:
        less, places = counts.less(unit, count), self._costs.touched[unit]
        return sum(
            self._costs.of_weight(place, counts) - self._costs.of_weight(place, less)
            for place in places
        )

    def _best_step(self, unit: str, counts: Counts) -> Optional[tuple[float, int]]:
        """Returns the energy lost for the cost saved of a unit's best step, and its length."""
        lost, gone = self._lost[unit], self._gone(unit, counts)
        left = len(lost) - 1 - gone
        lengths = {min(left - 1, max(1, round(share * left))) for share in _STEPS}
        best = None
        for count in sorted(length for length in lengths if length > 0):
            saved = self._saved(unit, counts, count)
            if saved > 0:
                ratio = max(float(lost[gone + count] - lost[gone]), 1e-9) / saved
                if best is None or ratio < best[0]:
                    best = (ratio, count)
        return best

    def _enough(self, unit: str, counts: Counts, most: int, missing: float) -> int:
        """Returns the fewest of a unit's next channels that save what is missing, or all."""
        if self._saved(unit, counts, most) <= missing:
            return most
        return next(n for n in range(1, most + 1) if self._saved(unit, counts, n) >= missing)

    def _closer(self, counts: Counts, target: float) -> Counts:
        """Trades a little of two units so that a target is hardly undercut.

        One filter of a small network can be more than a target is missed by.
        """
        least = (1 - _CLOSE) * target
        if self._costs.of(counts) >= least:
            return counts
        options = []
        for one, other in itertools.permutations(self._lost, 2):
            for change in _TRADES:
                new = counts.less(one, change)
                if not self._possible(new):
                    continue
                missing = self._costs.of(new) - (1 - _CLOSE / 2) * target
                each = self._saved(other, new, 1 if missing > 0 else -1) or math.inf
                for more in (-1, 0, 1):
                    last = new.less(other, round(missing / abs(each)) + more)
                    if self._possible(last) and least <= self._costs.of(last) <= target:
                        options.append((self._energy_lost(last), len(options), last))
        return min(options)[2] if options else counts

    def _possible(self, counts: Counts) -> bool:
        return all(
            0 <= self._gone(unit, counts) < len(lost) - 1 for unit, lost in self._lost.items()
        )

    # ------------------------------------------------------------ from counts to a structure

    def _energy_lost(self, counts: Counts) -> float:
        """Returns the energy that is lost; factors that do not pay are not made."""
        return float(
            sum(
                lost[self._gone(unit, counts)]
                for unit, lost in self._lost.items()
                if unit in counts.removed or self._costs.pays(unit, counts)
            )
        )

    def _structure(self, counts: Counts) -> Structure:
        """Returns the structure of counts, with widths and ranks rounded up."""
        for unit, lost in self._lost.items():
            gone = self._gone(unit, counts)
            back = min(gone, -(len(lost) - 1 - gone) % self._round_to)
            counts = counts.less(unit, -back)
        factorized = {}
        for unit, factors in self._costs.factors.items():
            if self._costs.pays(unit, counts):
                rank = min(counts.ranks[unit], self._costs.max_rank(unit, counts))
                factorized[layer_of(unit)] = surgery.Factorization(factors.kind, rank)
        removed = {
            name: tuple(self._order[name][:count].tolist())
            for name, count in counts.removed.items()
            if count
        }
        return Structure(removed, factorized, self._costs.of(counts), self._energy_lost(counts))


def _shares(scores: np.ndarray) -> np.ndarray:
    scores = np.maximum(np.asarray(scores, np.float64), 0.0)
    total = scores.sum()
    return scores / total if total > 0 else np.full(len(scores), 1 / len(scores))

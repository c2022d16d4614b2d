"""Finds the network's size in a few moves, each judged by a race; see docs/how_it_works.md.

    weights ──> ranking of filters and ranks ──> ladder of smaller structures
                                                        │
    smallest that loses little enough <──test── race <──┘   (the present network runs too)

A few times, early in the run, some structures and the present network train side by side for the
next rounds, on the same clients. Then held-out clients compare them. The smallest one wins with

    lasting * (lost + error) <= tolerance - spent,

where `lasting` is the share of a race's loss that remains when the run ends. What is lost early is
learned again: it is the share of the rounds that are over when the race ends. `lasting * lost` is
booked with its sign, so that noise averages out. A budget replaces the test.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Optional

from tff_autoprune import surgery
from tff_autoprune.search import base, change, requests
from tff_autoprune.search import budget as budget_lib
from tff_autoprune.search.counted_cost import CostWeights
from tff_autoprune.search.importance import Importance
from tff_autoprune.search.penalty import group_lasso
from tff_autoprune.search.structure import Space, Structure

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclasses.dataclass(frozen=True)
class Constants:
    """The controller's constants, the same for every data set and model.

    Attributes:
      begin: Share of the rounds before the first move. Early: what small networks cost is bytes of
        the dense one.
      end: Share of the rounds before the last move.
      moves: How many times the network may shrink.
      rungs: Costs of the structures that race, as shares of the present one's.
      race_rounds: Rounds of a race.
      errors: Standard errors that are added to what a structure loses.
    """

    begin: float = 0.05
    end: float = 0.25
    moves: int = 3
    rungs: tuple[float, ...] = (0.55, 0.2)
    race_rounds: int = 3
    errors: float = 1.0


@dataclasses.dataclass(frozen=True)
class AutoState:
    """What passes between rounds.

    Attributes:
      dense: "parameters" and "flops" of the dense network.
      moves: Times that the method has decided.
      spent: Points of accuracy that the moves made so far will have cost, as far as was measured.
      done: Whether the search is over.
    """

    dense: Mapping[str, float]
    moves: int = 0
    spent: float = 0.0
    done: bool = False


class AutoPruning(base.PruningMethod):
    """Shrinks the network in a few raced moves."""

    regularizer_fn = staticmethod(group_lasso)

    def __init__(
        self,
        *,
        tolerance: float = 1.0,
        budget: Optional[budget_lib.Budget] = None,
        factorize: bool = True,
        importance: Optional[Importance] = None,
        round_to: int = 1,
        penalty: float = 0.0,
        constants: Constants = Constants(),
    ) -> None:
        """Sets what the user wants.

        Args:
          tolerance: Points of accuracy that may be lost.
          budget: What the model may cost; the tolerance then does not count.
          factorize: Whether layers may be factorized, besides removing filters.
          importance: What filters are worth; their energy by default.
          round_to: Filters that a pruned group keeps are a multiple of this.
          penalty: Strength of the group lasso in the clients' loss while the search lasts.
          constants: The controller's constants.
        """
        self._tolerance = tolerance
        self._budget = budget
        self.asks_clients = budget is None
        self._factorize = factorize
        self._importance = importance
        self._round_to = round_to
        self._penalty = penalty
        self._constants = constants

    def initialize(self, network: surgery.Network) -> AutoState:
        """Returns the state before the first round; see the base class."""
        if self._budget is not None:
            self._budget.check_reachable(network)
        return AutoState({"parameters": network.cost.parameters, "flops": network.cost.flops})

    def state_from_json(self, document: dict[str, Any]) -> AutoState:
        """Returns the state from its JSON form."""
        return AutoState(**document)

    def controls(self, state: AutoState) -> base.Controls:
        """Returns the penalty, which ends with the search."""
        return base.Controls(penalty=0.0 if state.done else self._penalty)

    def decision_rounds(self, total_rounds: int) -> list[int]:
        """Returns the rounds after which the network may shrink."""
        constants = self._constants
        steps = max(1, constants.moves - 1)
        shares = [
            constants.begin + (constants.end - constants.begin) * number / steps
            for number in range(constants.moves)
        ]
        rounds = [max(1, round(share * total_rounds)) for share in shares]
        return sorted(set(rounds))

    def steps(self, state: AutoState, observation: base.Observation) -> base.Steps:
        """Decides whether the network shrinks, and to what."""
        rounds = self.decision_rounds(observation.total_rounds)
        if state.done or observation.round_num < rounds[min(state.moves, len(rounds) - 1)]:
            return state, []
        network = observation.network
        state = dataclasses.replace(
            state, moves=state.moves + 1, done=state.moves + 1 >= len(rounds)
        )
        if self._budget is not None:
            decisions = self._follow_budget(state, network, len(rounds))
            return self._ended(state, decisions)
        rounds_left = observation.total_rounds - observation.round_num
        if rounds_left < self._constants.race_rounds:
            return self._ended(dataclasses.replace(state, done=True), [], "no rounds are left")
        space = self._space(network, self._mean_cost(state))
        share = space.cost
        structures = _distinct(space.ladder([rung * share for rung in self._constants.rungs]))
        if not structures:
            return self._ended(
                dataclasses.replace(state, done=True), [], "nothing can be removed any more"
            )
        comparison = yield requests.Race(structures, self._constants.race_rounds)
        raced = observation.round_num + self._constants.race_rounds
        lasting = raced / observation.total_rounds
        state, decisions = self._judge(state, structures, comparison, lasting)
        return self._ended(state, decisions)

    def _judge(
        self,
        state: AutoState,
        structures: Sequence[Structure],
        comparison: requests.Comparison,
        lasting: float,
    ) -> tuple[AutoState, list[base.Decision]]:
        """Picks the smallest structure that loses little enough."""
        constants = self._constants
        left = self._tolerance - state.spent
        order = sorted(range(len(structures)), key=lambda i: structures[i].cost)
        for index in order:
            found = comparison.candidates[index]
            lost = -found.points
            bound = lasting * (lost + constants.errors * found.points_error)
            if not bound <= left:  # Also where a network that fell apart says NaN.
                continue
            booked = lasting * lost
            reason = (
                f"{found.points:+.2f} points (error {found.points_error:.2f}) in a race; about"
                f" {-booked:+.2f} of the {left:.2f} left to lose will last"
            )
            move = base.Decision(
                base.Action.MOVE,
                reason,
                structure=structures[index],
                raced=index,
                measured=base.Estimate(found.points, found.points_error),
            )
            return dataclasses.replace(state, spent=state.spent + booked), [move]
        largest = max(range(len(structures)), key=lambda i: structures[i].cost)
        found = comparison.candidates[largest]
        refused = base.Decision(
            base.Action.REFUSE,
            f"{found.points:+.2f} points (error {found.points_error:.2f}) in a race; {left:.2f} may"
            " be lost",
            structure=structures[largest],
            measured=base.Estimate(found.points, found.points_error),
        )
        return state, [refused]

    def _follow_budget(
        self,
        state: AutoState,
        network: surgery.Network,
        moves: int,
    ) -> list[base.Decision]:
        """Moves towards the budget; the last move meets it."""
        now, budget = self._budget.measure(network), self._budget
        if now <= budget.value:
            return []
        left = moves - state.moves + 1
        goal = now * (budget.value / now) ** (1 / left)
        wanted = dataclasses.replace(budget, value=goal)
        space = self._space(network, budget.weights(network))
        structure, reached = budget_lib.fit(
            wanted, space, network, lambda s: change.Change(network, s).model
        )
        if not structure.changes:
            return []
        reason = f"{reached:g} {budget.what} left, the budget is {budget.value:g}"
        return [base.Decision(base.Action.MOVE, reason, structure=structure)]

    def _ended(
        self, state: AutoState, decisions: list[base.Decision], reason: str = ""
    ) -> base.Outcome:
        if state.done:
            reason = reason or "the rest of the run trains what was found"
            decisions = [*decisions, base.Decision(base.Action.STOP, reason)]
        return state, decisions

    def _space(self, network: surgery.Network, weights: CostWeights) -> Space:
        return Space(
            network,
            weights,
            importance=self._importance,
            factorize=self._factorize,
            round_to=self._round_to,
        )

    def _mean_cost(self, state: AutoState) -> CostWeights:
        """Returns what makes the cost the mean of the shares of parameters and FLOPs left."""
        return CostWeights(0.5 / state.dense["parameters"], 0.5 / max(1, state.dense["flops"]))


def _distinct(structures: Sequence[Structure]) -> list[Structure]:
    """Returns the structures that change something, each once, the largest first."""
    found: list[Structure] = []
    for structure in structures:
        if structure.changes and all(structure.cost < other.cost for other in found):
            found.append(structure)
    return found

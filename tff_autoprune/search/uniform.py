"""The same share of filters in every layer, in one cut: the usual baseline.

With `factorize`, every layer that can be is factorized too, to the same share of the rank at which
its factors cost what the layer does. So it shows what comes from the space, what from the search.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Optional

import numpy as np

from tff_autoprune import surgery
from tff_autoprune.search import base, budget, change, importance
from tff_autoprune.search.structure import Structure

# Halvings of the interval in which the share that meets a target lies: finer than one filter.
_BISECTIONS = 14


@dataclasses.dataclass(frozen=True)
class UniformState:
    """Whether the cut was made."""

    done: bool = False


class UniformPruning(base.PruningMethod):
    """Cuts once, the same share everywhere; the survivors inherit their weights."""

    def __init__(
        self,
        *,
        fraction: float,
        round_num: int,
        target_parameters: Optional[int] = None,
        factorize: bool = False,
        score: Optional[importance.Importance] = None,
    ) -> None:
        """Sets the cut.

        Args:
          fraction: Share of the channels of each group to remove.
          round_num: Rounds before the cut.
          target_parameters: If set, the smallest share that leaves no more parameters is taken
            instead of `fraction`.
          factorize: Whether layers are factorized too.
          score: What channels are worth; L1 norms by default.
        """
        self._fraction = fraction
        self._round_num = round_num
        self._target_parameters = target_parameters
        self._factorize = factorize
        self._score = score or importance.L1()

    def initialize(self, network: surgery.Network) -> UniformState:
        """Returns the state before the first round; see the base class."""
        if self._target_parameters is not None:
            budget.counted("parameters", self._target_parameters).check_reachable(network)
        return UniformState()

    def state_from_json(self, document: dict[str, Any]) -> UniformState:
        """Returns the state from its JSON form."""
        return UniformState(**document)

    def step(self, state: UniformState, observation: base.Observation) -> base.Outcome:
        """Decides on the one cut, in its round."""
        if state.done or observation.round_num < self._round_num:
            return state, []
        network = observation.network
        weights = network.model.get_weights()
        order = {
            group.name: np.argsort(self._score(group, weights), kind="stable")
            for group in network.prunable
        }
        fraction = self._fraction
        if self._target_parameters is not None:
            fraction = self._fraction_for(self._target_parameters, network, order)
        structure = self._structure(network, order, fraction)
        stop = base.Decision(base.Action.STOP, "uniform pruning cuts once")
        if not structure.changes:
            return UniformState(done=True), [stop]
        reason = f"the weakest {fraction:.1%} of every group"
        move = base.Decision(base.Action.MOVE, reason, structure=structure)
        return UniformState(done=True), [move, stop]

    def _structure(
        self, network: surgery.Network, order: dict[str, np.ndarray], fraction: float
    ) -> Structure:
        counts = {
            group.name: min(group.channels - 1, int(fraction * group.channels + 0.5))
            for group in network.prunable
        }
        removed = {name: tuple(order[name][:n].tolist()) for name, n in counts.items() if n}
        return Structure(removed, self._ranks(network, 1 - fraction) if self._factorize else {})

    def _ranks(self, network: surgery.Network, share: float) -> dict[str, surgery.Factorization]:
        ranks = {}
        for candidate in surgery.candidates(network.model):
            wanted = "dense" if candidate.kind == "dense" else "spatial"
            if not candidate.max_rank or candidate.kind != wanted or "/" in candidate.layer:
                continue
            shape = tuple(network.model.get_layer(candidate.layer).kernel.shape)
            first = shape[0] if wanted == "spatial" else 1
            second = math.prod(shape[1:-2]) if wanted == "spatial" else 1
            # Both sides shrink by the share, so the rank at which factors pay does too.
            inputs, outputs = (max(1, round(share * size)) for size in shape[-2:])
            even = first * second * inputs * outputs / (first * inputs + second * outputs)
            rank = int(min(share * even, first * inputs, second * outputs))
            if rank >= 1:
                ranks[candidate.layer] = surgery.Factorization(wanted, rank)
        return ranks

    def _fraction_for(
        self, target: int, network: surgery.Network, order: dict[str, np.ndarray]
    ) -> float:
        def parameters(fraction: float) -> int:
            structure = self._structure(network, order, fraction)
            if not structure.changes:
                return network.cost.parameters
            made = change.Change(network, structure)
            return made.model.count_params()

        low, high = 0.0, 1.0
        for _ in range(_BISECTIONS):
            middle = (low + high) / 2
            low, high = (low, middle) if parameters(middle) <= target else (middle, high)
        return high

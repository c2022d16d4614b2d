"""Smaller structures of a network, from one ranking of filters and ranks together.

A structure says how many channels each filter group keeps and to which rank each layer is
factorized. What a channel is worth is its share of its group's energy (`energy`); what a rank is
worth is its share of the layer's output energy (its squared singular value). Both are shares of what one layer computes, so they compare. Channels and ranks go in
the order of the energy lost for the cost saved, until the cost is small enough: no layer has a
quota, and one pass gives a whole ladder of structures.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Optional

import numpy as np

from tff_autoprune import surgery
from tff_autoprune.search.energy import Energy
from tff_autoprune.search.importance import Importance

if TYPE_CHECKING:
    import tensorflow as tf

    from tff_autoprune.surgery import Factorization

# How many of a unit's channels or ranks may go in one step, as shares of those that are left. Long
# steps are considered too: a factorization pays only below some rank.
_JUMPS = (0.04, 0.1, 0.2, 0.35, 0.5, 0.7, 0.85)


@dataclasses.dataclass(frozen=True)
class Structure:
    """A smaller network, told from the present one.

    Attributes:
      removed: Channels that go, by filter group.
      factorized: How layers are factorized, by layer.
      cost: What is left of the dense network's cost, as a share; estimated.
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


@dataclasses.dataclass(frozen=True)
class CostWeights:
    """What counts as the cost of a network.

    Attributes:
      parameter: Cost of one parameter.
      flop: Cost of one floating-point operation.
      layers: Cost of one operation by layer, where it differs from `flop` (a device profile).
    """

    parameter: float
    flop: float
    layers: Mapping[str, float] = dataclasses.field(default_factory=dict)

    def of_layer(self, layer: str) -> float:
        """Returns the cost of one operation in a layer."""
        return self.layers.get(layer, self.flop)


@dataclasses.dataclass(frozen=True)
class _Rank:
    """A layer that could be factorized."""

    layer: str
    kind: str
    position: int
    reading: float  # Parameters of the first factor for each rank and kept input channel.
    writing: float  # Parameters of the second factor for each rank and kept output channel.
    reading_flops: float
    writing_flops: float
    lost: np.ndarray  # float64 [max_rank + 1]: share of the energy lost at each rank.


class Space:
    """What could go from a network, and what it would cost then."""

    def __init__(
        self,
        network: surgery.Network,
        weights: CostWeights,
        *,
        importance: Optional[Importance] = None,
        factorize: bool = True,
        round_to: int = 1,
        prices: Optional[Mapping[str, float]] = None,
    ) -> None:
        """Ranks the channels and ranks of a network.

        Args:
          network: The present network.
          weights: What counts as its cost.
          importance: What channels are worth; `Energy` by default. Its scores count as shares of
            their sum over the group.
          factorize: Whether layers may be factorized.
          round_to: Widths and ranks that shrink stay multiples of this.
          prices: By group or layer, what its whole energy is worth; 1 where it is not said.
        """
        self._network = network
        self._weights = weights
        self._prices = prices or {}
        self._round_to = round_to
        self._groups = [group for group in network.prunable if group.channels > 1]
        values = network.model.get_weights()
        score = importance or Energy()
        shares = {group.name: _shares(score(group, values)) for group in self._groups}
        self._order = {name: np.argsort(share, kind="stable") for name, share in shares.items()}
        # Energy that is lost when the n weakest channels go.
        self._lost = {
            name: np.concatenate([[0.0], np.cumsum(shares[name][order])])
            for name, order in self._order.items()
        }
        self._read_costs(network)
        self._ranks = self._find_ranks(network.model) if factorize else {}
        self._by_position = {rank.position: rank for rank in self._ranks.values()}

    # ------------------------------------------------------------ costs

    def _read_costs(self, network: surgery.Network) -> None:
        """Notes which groups shrink which axis of which weight, and what layers compute."""
        model = network.model
        self._shapes = [tuple(weight.shape) for weight in model.weights]
        # By weight: for each axis what one channel of each group takes of it.
        self._axes: list[dict[int, dict[str, float]]] = [{} for _ in self._shapes]
        self._touched: dict[str, set[int]] = {group.name: set() for group in self._groups}
        layer_of = {}
        for group in network.groups:
            for member in group.members:
                layer_of[member.position] = member.layer
        for group in self._groups:
            for member in group.members:
                axis = self._axes[member.position].setdefault(member.axis, {})
                each = len(member.positions) / group.channels
                axis[group.name] = axis.get(group.name, 0.0) + each
                self._touched[group.name].add(member.position)
        flops = {row.layer: float(row.flops) for row in network.cost.table.itertuples()}
        # A layer's operations go with its largest weight.
        largest: dict[str, int] = {}
        for position, layer in layer_of.items():
            size = math.prod(self._shapes[position])
            if layer not in largest or size > math.prod(self._shapes[largest[layer]]):
                largest[layer] = position
        self._flops = {position: flops.get(layer, 0.0) for layer, position in largest.items()}
        self._layer_of = layer_of
        attributed = sum(self._flops.values())
        self._fixed = self._weights.flop * (network.cost.flops - attributed)

    def _kept(self, position: int, removed: Mapping[str, int]) -> list[float]:
        sizes = list(map(float, self._shapes[position]))
        for axis, groups in self._axes[position].items():
            sizes[axis] -= sum(removed.get(name, 0) * each for name, each in groups.items())
        return sizes

    def _weight_cost(
        self, position: int, removed: Mapping[str, int], ranks: Mapping[str, int]
    ) -> float:
        kept = self._kept(position, removed)
        parameters = math.prod(kept)
        flops = self._flops.get(position, 0.0)
        share = parameters / max(1, math.prod(self._shapes[position]))
        per_flop = self._weights.of_layer(self._layer_of.get(position, ""))
        whole = self._weights.parameter * parameters + per_flop * flops * share
        rank = self._by_position.get(position)
        if rank is None or rank.layer not in ranks:
            return whole
        left, inputs, outputs = ranks[rank.layer], kept[-2], kept[-1]
        factors = left * (rank.reading * inputs + rank.writing * outputs)
        operations = left * (rank.reading_flops * inputs + rank.writing_flops * outputs)
        return min(whole, self._weights.parameter * factors + per_flop * operations)

    def cost(self, removed: Mapping[str, int], ranks: Mapping[str, int]) -> float:
        """Returns the cost of a structure, told by counts."""
        return self._fixed + sum(
            self._weight_cost(position, removed, ranks) for position in range(len(self._shapes))
        )

    # ------------------------------------------------------------ ranks

    def _find_ranks(self, model: tf.keras.Model) -> dict[str, _Rank]:
        found: dict[str, _Rank] = {}
        number = {id(weight): i for i, weight in enumerate(model.weights)}
        for candidate in surgery.candidates(model):
            layer_name = candidate.layer
            if not candidate.max_rank or "/" in layer_name or layer_name in found:
                continue
            layer = model.get_layer(layer_name)
            wanted = "dense" if candidate.kind == "dense" else "spatial"
            if candidate.kind != wanted:
                continue
            position = number[id(layer.kernel)]
            values = surgery.singular_values(layer, candidate.kind)
            energy = np.square(np.asarray(values, np.float64))
            lost = np.concatenate([[1.0], 1.0 - np.cumsum(energy) / max(energy.sum(), 1e-30)])
            found[layer_name] = _Rank(
                layer_name,
                candidate.kind,
                position,
                *_factor_costs(layer, candidate.kind, self._flops.get(position, 0.0)),
                np.maximum(lost, 0.0),
            )
        return found

    # ------------------------------------------------------------ the ladder

    def ladder(self, targets: Sequence[float]) -> list[Structure]:
        """Returns the structures that lose least energy for their cost.

        Args:
          targets: Costs, falling.

        Returns:
          A structure for each target: the first one met that costs no more.
        """
        removed = {group.name: 0 for group in self._groups}
        channels = {group.name: group.channels for group in self._groups}
        ranks = {name: len(rank.lost) - 1 for name, rank in self._ranks.items()}
        costs = [
            self._weight_cost(position, removed, ranks) for position in range(len(self._shapes))
        ]
        touched = {
            name: self._touched_by(name) for name in [*removed, *(f"{r}/rank" for r in ranks)]
        }
        neighbours = {
            name: {other for other, where in touched.items() if where & places}
            for name, places in touched.items()
        }

        def gain(name: str) -> Optional[tuple[float, int, float]]:
            """Returns the best step of a unit: lost for saved, how many, what is saved."""
            best = None
            is_rank = name.endswith("/rank")
            unit = name[: -len("/rank")] if is_rank else name
            now = ranks[unit] if is_rank else channels[unit] - removed[unit]
            price = self._prices.get(unit, 1.0)
            before = sum(costs[p] for p in touched[name])
            tried = set()
            for share in _JUMPS:
                count = min(now - 1, max(1, round(share * now)))
                if count < 1 or count in tried:
                    continue
                tried.add(count)
                if is_rank:
                    lost = self._ranks[unit].lost
                    loss = lost[now - count] - lost[now]
                    ranks[unit] -= count
                    after = sum(self._weight_cost(p, removed, ranks) for p in touched[name])
                    ranks[unit] += count
                else:
                    gone = removed[unit]
                    loss = self._lost[unit][gone + count] - self._lost[unit][gone]
                    removed[unit] += count
                    after = sum(self._weight_cost(p, removed, ranks) for p in touched[name])
                    removed[unit] -= count
                saved = before - after
                if saved <= 0:
                    continue
                ratio = price * max(loss, 1e-9) / saved
                if best is None or ratio < best[0]:
                    best = (ratio, count, saved)
            return best

        best = {name: gain(name) for name in touched}
        found: list[Structure] = []
        total = self._fixed + sum(costs)
        for target in targets:
            while total > target:
                options = [(value[0], name) for name, value in best.items() if value]
                if not options:
                    break
                _, name = min(options)
                count = self._enough(name, best[name][1], removed, ranks, costs, total - target)
                if name.endswith("/rank"):
                    ranks[name[: -len("/rank")]] -= count
                else:
                    removed[name] += count
                for position in touched[name]:
                    costs[position] = self._weight_cost(position, removed, ranks)
                for other in neighbours[name]:
                    best[other] = gain(other)
                total = self._fixed + sum(costs)
            found.append(self._structure(removed, ranks, total))
        return found

    def _touched_by(self, name: str) -> set[int]:
        """Returns the weights that a unit is about: a group, or LAYER/rank."""
        if name in self._touched:
            return self._touched[name]
        return {self._ranks[name[: -len("/rank")]].position}

    def _enough(
        self,
        name: str,
        most: int,
        removed: dict[str, int],
        ranks: dict[str, int],
        costs: Sequence[float],
        missing: float,
    ) -> int:
        """Returns the fewest of a unit's next channels that save what is missing, or all."""
        counts, unit = (removed, name) if name in removed else (ranks, name[: -len("/rank")])
        sign = 1 if name in removed else -1
        places = self._touched_by(name)
        before, at = sum(costs[position] for position in places), counts[unit]

        def saved(count: int) -> float:
            counts[unit] = at + sign * count
            after = sum(self._weight_cost(position, removed, ranks) for position in places)
            counts[unit] = at
            return before - after

        if saved(most) <= missing:
            return most
        return next(count for count in range(1, most + 1) if saved(count) >= missing)

    def _to_keep(self, kept: int, most: int) -> int:
        """Returns how many more stay so that their number is a multiple, or all."""
        return min(-kept % self._round_to, most - kept)

    def _structure(
        self, removed: Mapping[str, int], ranks: Mapping[str, int], cost: float
    ) -> Structure:
        """Returns the structure of counts, with widths and ranks rounded up."""
        removed = {
            name: count - self._to_keep(len(self._order[name]) - count, len(self._order[name]))
            for name, count in removed.items()
        }
        ranks = {
            name: rank + self._to_keep(rank, len(self._ranks[name].lost) - 1)
            for name, rank in ranks.items()
        }
        if self._round_to > 1:
            cost = self.cost(removed, ranks)
        lost = sum(
            self._prices.get(name, 1.0) * self._lost[name][count] for name, count in removed.items()
        )
        factorized = {}
        for name, rank in self._ranks.items():
            left = ranks[name]
            whole = self._weight_cost(rank.position, removed, {})
            if self._weight_cost(rank.position, removed, ranks) < whole:
                kept = self._kept(rank.position, removed)
                most = _max_rank(rank, kept, self._shapes[rank.position])
                factorized[name] = surgery.Factorization(rank.kind, int(min(left, most)))
                lost += self._prices.get(name, 1.0) * rank.lost[left]
        return Structure(
            {
                name: tuple(self._order[name][:count].tolist())
                for name, count in removed.items()
                if count
            },
            factorized,
            float(cost),
            float(lost),
        )


def _shares(scores: np.ndarray) -> np.ndarray:
    scores = np.maximum(np.asarray(scores, np.float64), 0.0)
    total = scores.sum()
    return scores / total if total > 0 else np.full(len(scores), 1 / len(scores))


def _max_rank(rank: _Rank, kept: Sequence[float], shape: Sequence[int]) -> int:
    """Returns the largest rank that the factors of a narrower layer can have."""
    inputs, outputs = kept[-2], kept[-1]
    if rank.kind == "spatial":
        return int(min(shape[0] * inputs, math.prod(shape[1:-2]) * outputs))
    return int(min(inputs, outputs))


def _factor_costs(
    layer: tf.keras.layers.Layer, kind: str, flops: float
) -> tuple[float, float, float, float]:
    """Returns parameters and operations of both factors, for each rank and kept channel."""
    shape = tuple(layer.kernel.shape)
    if kind == "dense":
        places = flops / (2 * math.prod(shape))
        return 1.0, 1.0, 2 * places, 2 * places
    first, second = shape[0], math.prod(shape[1:-2])
    written = flops / (2 * math.prod(shape))
    # The first factor still reads every column.
    columns = math.prod(layer.input_shape[2:-1]) / max(1, math.prod(layer.output_shape[2:-1]))
    return float(first), float(second), 2 * first * written * columns, 2 * second * written

"""What a network would cost, computed from how many channels and ranks it keeps.

A search visits thousands of structures. Building each would take minutes; here each is a product
of sizes: a weight shrinks with the channels of the groups on its axes, a layer's operations shrink
with its largest weight, and a factorized layer costs its two factors, or the whole if that is less.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from tff_autoprune import surgery

if TYPE_CHECKING:
    import tensorflow as tf


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


@dataclasses.dataclass(frozen=True)
class Counts:
    """A structure, told by numbers.

    Attributes:
      removed: Channels that go, by filter group.
      ranks: Ranks that are left, by layer that can be factorized.
    """

    removed: Mapping[str, int]
    ranks: Mapping[str, int]

    def less(self, unit: str, count: int) -> Counts:
        """Returns the counts with less of a unit; with more of it if `count` is negative."""
        if unit in self.removed:
            new = {**self.removed, unit: self.removed[unit] + count}
            return dataclasses.replace(self, removed=new)
        return dataclasses.replace(self, ranks={**self.ranks, unit: self.ranks[unit] - count})


@dataclasses.dataclass(frozen=True)
class Factors:
    """How a layer could be factorized, and what its factors cost.

    Attributes:
      kind: "spatial" or "dense".
      position: The index of its kernel in `model.weights`.
      energy: float64 [max_rank]: what each rank adds, as a share; falling.
      parameters: Of the reading and the writing factor, for each rank and kept channel.
      flops: The same for operations.
    """

    kind: str
    position: int
    energy: np.ndarray
    parameters: tuple[float, float]
    flops: tuple[float, float]


class CountedCost:
    """The cost of all structures of a network."""

    def __init__(self, network: surgery.Network, weights: CostWeights, *, factorize: bool) -> None:
        """Notes what shrinks with what.

        Args:
          network: The present network.
          weights: What counts.
          factorize: Whether layers may be factorized.
        """
        self._weights = weights
        self._shapes = [tuple(weight.shape) for weight in network.model.weights]
        self._layer_of = {
            member.position: member.layer for group in network.groups for member in group.members
        }
        # By weight and axis: what one channel of each group takes of it.
        self._axes: list[dict[int, dict[str, float]]] = [{} for _ in self._shapes]
        #: The weights that shrink with a unit (a group, or a layer of `factors`).
        self.touched: dict[str, set[int]] = {}
        for group in network.prunable:
            for member in group.members:
                axis = self._axes[member.position].setdefault(member.axis, {})
                share = len(member.positions) / group.channels
                axis[group.name] = axis.get(group.name, 0.0) + share
                self.touched.setdefault(group.name, set()).add(member.position)
        self._flops = self._flops_by_weight(network)
        self._fixed = weights.flop * (network.cost.flops - sum(self._flops.values()))
        #: Layers that can be factorized, by a name that is no group's.
        self.factors = self._find_factors(network.model) if factorize else {}
        self._factors_at = {factors.position: name for name, factors in self.factors.items()}
        self.touched.update({name: {f.position} for name, f in self.factors.items()})

    def _flops_by_weight(self, network: surgery.Network) -> dict[int, float]:
        """Returns each layer's operations at its largest weight."""
        largest: dict[str, int] = {}
        for position, layer in self._layer_of.items():
            if layer not in largest or self._size(position) > self._size(largest[layer]):
                largest[layer] = position
        flops = {row.layer: float(row.flops) for row in network.cost.table.itertuples()}
        return {position: flops.get(layer, 0.0) for layer, position in largest.items()}

    def _size(self, position: int) -> int:
        return math.prod(self._shapes[position])

    def _find_factors(self, model: tf.keras.Model) -> dict[str, Factors]:
        number = {id(weight): index for index, weight in enumerate(model.weights)}
        found = {}
        for candidate in surgery.candidates(model):
            if not candidate.max_rank or "/" in candidate.layer:
                continue
            layer = model.get_layer(candidate.layer)
            if candidate.kind not in ("spatial", "dense") or id(layer.kernel) not in number:
                continue
            position = number[id(layer.kernel)]
            energy = np.square(surgery.singular_values(layer, candidate.kind).astype(np.float64))
            found[rank_of(candidate.layer)] = Factors(
                candidate.kind,
                position,
                energy / max(energy.sum(), np.finfo(np.float64).tiny),
                *_factor_costs(layer, candidate.kind, self._flops.get(position, 0.0)),
            )
        return found

    def kept(self, position: int, counts: Counts) -> list[float]:
        """Returns the sizes of a weight's axes that are left."""
        sizes = list(map(float, self._shapes[position]))
        for axis, groups in self._axes[position].items():
            sizes[axis] -= sum(counts.removed[name] * share for name, share in groups.items())
        return sizes

    def of_weight(self, position: int, counts: Counts) -> float:
        """Returns the cost of a weight and of what is computed with it."""
        whole, factors = self._of_kernel(position, counts)
        return min(whole, factors)

    def pays(self, unit: str, counts: Counts) -> bool:
        """Returns whether a layer's factors cost less than the layer."""
        whole, factors = self._of_kernel(self.factors[unit].position, counts)
        return factors < whole

    def _of_kernel(self, position: int, counts: Counts) -> tuple[float, float]:
        weights, kept = self._weights, self.kept(position, counts)
        flop = weights.layers.get(self._layer_of.get(position, ""), weights.flop)
        parameters = math.prod(kept)
        flops = self._flops.get(position, 0.0) * parameters / max(1, self._size(position))
        whole = weights.parameter * parameters + flop * flops
        unit = self._factors_at.get(position)
        if unit is None:
            return whole, math.inf
        factors, rank, sides = self.factors[unit], counts.ranks[unit], kept[-2:]
        each = sum(
            side * (weights.parameter * parameter + flop * operations)
            for side, parameter, operations in zip(sides, factors.parameters, factors.flops)
        )
        return whole, rank * each

    def of(self, counts: Counts) -> float:
        """Returns the cost of a structure."""
        return self._fixed + sum(
            self.of_weight(position, counts) for position in range(len(self._shapes))
        )

    def max_rank(self, unit: str, counts: Counts) -> int:
        """Returns the largest rank that the factors of a narrowed layer can have."""
        factors = self.factors[unit]
        inputs, outputs = self.kept(factors.position, counts)[-2:]
        reading, writing = factors.parameters
        return max(1, int(min(reading * inputs, writing * outputs)))


def rank_of(layer: str) -> str:
    """Returns the name of the unit that a layer's rank is."""
    return f"{layer}/rank"


def layer_of(unit: str) -> str:
    """Undoes `rank_of`."""
    return unit[: -len("/rank")]


def _factor_costs(
    layer: tf.keras.layers.Layer, kind: str, flops: float
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Returns parameters and operations of both factors, for each rank and kept channel."""
    shape = tuple(layer.kernel.shape)
    places = flops / math.prod(shape)  # Each counts twice: a multiply-add is two operations.
    if kind == "dense":
        return (1.0, 1.0), (places, places)
    first, second = float(shape[0]), float(math.prod(shape[1:-2]))
    # The first factor still reads every column.
    columns = math.prod(layer.input_shape[2:-1]) / max(1, math.prod(layer.output_shape[2:-1]))
    return (first, second), (places * first * columns, places * second)

"""What a pruning method asks for between rounds, and what it is told.

A method asks by yielding a request; the program carries it out on clients, counts its bytes, and
sends the answer back. So a method is pure, and is tested without TFF.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Protocol, Union

import numpy as np

from tff_autoprune.search.structure import Structure


@dataclasses.dataclass(frozen=True)
class Examine:
    """Asks held-out clients what layers of the present network read.

    The answer is an `Examination`.

    Attributes:
      layers: Names of layers.
    """

    layers: Sequence[str]


@dataclasses.dataclass(frozen=True)
class Examination:
    """What layers read on held-out clients.

    Attributes:
      moments: By layer: mean of x x^T over places and examples, float [channels, channels].
    """

    moments: Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Compare:
    """Asks held-out clients how structures do against the present network, untrained.

    The answer is a `Comparison`.

    Attributes:
      structures: The structures.
      moments: From an `Examination`: how survivors stand in for what goes.
    """

    structures: Sequence[Structure]
    moments: Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Race:
    """Trains structures and the present network side by side, then compares them.

    All train on the same clients, drawn for this race; the present network runs too, so that the
    difference is what the structure costs after recovery, not what was learned meanwhile. The
    answer is a `Comparison`.

    Attributes:
      structures: The structures.
      moments: From an `Examination`.
      rounds: Rounds that each trains.
    """

    structures: Sequence[Structure]
    moments: Mapping[str, np.ndarray]
    rounds: int


Request = Union[Examine, Compare, Race]


class Paired(Protocol):
    """A model against the present network on the same clients.

    Attributes:
      points: Points of accuracy that it has more, the mean over examples.
      points_error: Standard error of that, over clients.
      loss_rise: Its cross entropy minus that of the present network.
      loss_rise_error: Standard error of that.
    """

    points: float
    points_error: float
    loss_rise: float
    loss_rise_error: float


class Comparison(Protocol):
    """Models against the present network on the same held-out clients.

    Attributes:
      base: "accuracy", "loss" and "num_examples" of the present network.
      candidates: One for each model, in order.
    """

    base: Mapping[str, float]
    candidates: Sequence[Paired]

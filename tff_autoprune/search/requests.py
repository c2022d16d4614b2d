"""What a pruning method asks for between rounds, and what it is told.

A method asks by yielding a request; the program carries it out on clients, counts its bytes, and
sends the answer back. So a method is pure, and is tested without TFF.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Protocol

from tff_autoprune.search.structure import Structure


@dataclasses.dataclass(frozen=True)
class Race:
    """Trains structures and the present network side by side, then compares them.

    All train on the same clients, drawn for this race; the present network runs too, so that the
    difference is what the structure costs after recovery, not what was learned meanwhile. The
    answer is a `Comparison`.

    Attributes:
      structures: The structures.
      rounds: Rounds that each trains.
    """

    structures: Sequence[Structure]
    rounds: int


Request = Race


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

"""Drives a method's decisions on real models, with what clients tell given by a test."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from typing import Any, Optional

import tensorflow as tf

from tff_autoprune import surgery
from tff_autoprune.search import base, change


@dataclasses.dataclass(frozen=True)
class Paired:
    """As `requests.Paired`."""

    points: float
    points_error: float = 0.0
    loss_rise: float = 0.0
    loss_rise_error: float = 0.0


@dataclasses.dataclass(frozen=True)
class Comparison:
    """As `requests.Comparison`."""

    candidates: Sequence[Paired]
    base: dict = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class Outcome:
    """What a run of the loop left.

    Attributes:
      model: The final model.
      decisions: (round, decision) in order.
      sizes: Parameters after each round's decisions.
      asked: (round, request) in order.
      state: The method's last state.
    """

    model: tf.keras.Model
    decisions: list
    sizes: list
    asked: list
    state: Any = None

    def actions(self) -> list[str]:
        return [decision.action.value for _, decision in self.decisions]

    def rounds(self, action: base.Action) -> list[int]:
        return [number for number, decision in self.decisions if decision.action is action]


def run(
    method: base.PruningMethod,
    model: tf.keras.Model,
    *,
    rounds: int,
    points: Optional[Callable[[tf.keras.Model, tf.keras.Model], float]] = None,
    error: float = 0.0,
) -> Outcome:
    """Asks a method after each round, as the program does; the state goes through JSON.

    Args:
      method: The method.
      model: The dense model.
      rounds: Rounds of the run.
      points: What a race says of a smaller model: (present, smaller) -> points gained.
      error: Its standard error.
    """
    state = method.initialize(surgery.Network(model))
    outcome = Outcome(model, [], [], [])
    round_num = 0
    while round_num <= rounds:
        raced: list[tf.keras.Model] = []
        skipped = 0

        def answer(request, present=outcome.model, now=round_num, raced=raced):
            nonlocal skipped
            outcome.asked.append((now, request))
            network = surgery.Network(present)
            skipped = request.rounds
            raced += [change.Change(network, structure).model for structure in request.structures]
            return Comparison([Paired(points(present, smaller), error) for smaller in raced])

        state = method.state_from_json(json.loads(json.dumps(dataclasses.asdict(state))))
        observation = base.Observation(
            round_num=round_num,
            total_rounds=rounds,
            network=surgery.Network(outcome.model),
            train_metrics={"loss": 1.0, "accuracy": 0.5} if round_num else {},
        )
        state, decisions = base.decide(method, state, observation, answer)
        for decision in decisions:
            outcome.decisions.append((round_num, decision))
            if decision.action is base.Action.MOVE:
                if decision.raced is not None:
                    outcome.model = raced[decision.raced]
                else:
                    outcome.model = change.Change(observation.network, decision.structure).model
        outcome.sizes.append(outcome.model.count_params())
        outcome.state = state
        if base.Action.STOP in [decision.action for decision in decisions]:
            break
        round_num += 1 + skipped
    return outcome

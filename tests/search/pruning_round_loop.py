"""Carries out a method's decisions on real models, with training losses that a test gives."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from typing import Optional

import numpy as np
import tensorflow as tf

from tff_autoprune import surgery
from tff_autoprune.search import base


def feature_moments(model: tf.keras.Model, layers: Mapping[str, int]) -> dict[str, np.ndarray]:
    """Returns the second moments of what layers read of random images."""
    images = np.random.default_rng(0).random((32, *model.input_shape[1:]), np.float32)
    moments = {}
    for name, places in layers.items():
        values = tf.keras.Model(model.inputs, model.get_layer(name).input)(images).numpy()
        values = values.reshape(-1, values.shape[-1] // places)
        moments[name] = values.T @ values
    return moments


def candidates(model: tf.keras.Model, mixes: Mapping[str, np.ndarray]) -> list[tf.keras.Model]:
    """Returns the models that are left when the channels that candidates leave out are gone."""
    groups = [group for group in surgery.find_filter_groups(model) if group.prunable]
    count = len(next(iter(mixes.values())))
    found = []
    for number in range(count):
        selection = {}
        for group in groups:
            member = next(m for m in group.members if m.role == surgery.Role.CONSUMER)
            mix = mixes[member.layer][number]
            gone = np.flatnonzero(np.diagonal(mix) == 0)
            channels = member.channel_of[np.isin(member.positions, gone)]
            if len(channels):
                selection[group.name] = sorted(set(channels.tolist()))
        found.append(surgery.remove_filters(model, selection) if selection else model)
    return found


@dataclasses.dataclass
class Outcome:
    """What a run of the loop left.

    Attributes:
      model: The final model.
      decisions: (round, decision) in order.
      sizes: Parameters after each round's decisions.
    """

    model: tf.keras.Model
    decisions: list
    sizes: list

    def actions(self) -> list[str]:
        return [decision.action.value for _, decision in self.decisions]

    def rounds(self, action: base.Action) -> list[int]:
        return [number for number, decision in self.decisions if decision.action is action]


def run(
    method: base.PruningMethod,
    model: tf.keras.Model,
    *,
    rounds: int,
    train_loss: Callable[[int, tf.keras.Model], float],
    held_out_loss: Optional[Callable[[tf.keras.Model], float]] = None,
) -> Outcome:
    """Asks a method after each round, as the program does; the state goes through JSON.

    The share of training examples that are wrong falls as the training loss does.
    """

    def evaluate(candidate: tf.keras.Model) -> base.Feedback:
        loss = held_out_loss(candidate) if held_out_loss else 1.0
        return {"calibrated_loss": loss, "accuracy": 0.5, "num_examples": 1000.0}

    uninformed = 1 - 1 / model.output_shape[-1]
    state = method.initialize(model)
    snapshot, outcome = None, Outcome(model, [], [])
    for round_num in range(rounds + 1):
        loss = train_loss(round_num, outcome.model)
        error = uninformed * min(1.0, loss / train_loss(0, outcome.model))
        metrics = {"loss": loss, "accuracy": 1 - error} if round_num else {}
        state, decisions = method.step(
            json.loads(json.dumps(state)),
            base.Observation(
                round_num=round_num,
                total_rounds=rounds,
                model=outcome.model,
                pseudo_gradient=None,
                train_metrics=metrics,
                examine=lambda layers: (
                    evaluate(outcome.model),
                    feature_moments(outcome.model, layers),
                ),
                try_candidates=lambda layers, mixes: [
                    evaluate(candidate) for candidate in candidates(outcome.model, mixes)
                ],
                evaluate=evaluate,
            ),
        )
        for decision in decisions:
            outcome.decisions.append((round_num, decision))
            if decision.action is base.Action.CUT:
                snapshot = snapshot or outcome.model
                removal = surgery.plan_removal(outcome.model, decision.selection)
                smaller = removal.apply()
                if decision.weights is not None:
                    smaller.set_weights(removal.slice_weights(decision.weights))
                outcome.model = smaller
            elif decision.action is base.Action.RESTORE:
                outcome.model, snapshot = snapshot, None
            elif decision.action is base.Action.ACCEPT:
                snapshot = None
        outcome.sizes.append(outcome.model.count_params())
        if base.Action.STOP in [decision.action for decision in decisions]:
            break
    return outcome

"""Pruning as a controlled process: the network finds its size by itself.

                    learning has progressed
        WAITING ───────────────────────────────> SEARCHING <─────────┐
                                                   │                 │ healed: accept, bolder
                                   cut, trial held │                 │ not healed: restore, gentler
                                                   v                 │
        SETTLED <── nothing pays any more ────── HEALING ────────────┘
           ^                                       │
           └────── the last part of the run ───────┘

When. Cuts begin when the training loss has clearly left its start, and each waits until the one
before has healed. They end early enough for a last phase without any.

Where. All dependency groups are ranked together by energy lost per cost saved
(`methods/ranking.py`); there is no quota per layer.

How much. A share of the remaining cost, the aggressiveness: raised while cuts heal, lowered when a
trial shows that one would hurt or when one did not heal.

Proof. Before a cut, the smaller candidate and the present model are evaluated on the same held-out
clients; the rise of the loss must stay below what training recently gained in as many rounds as
there are between cuts, plus a part of the tolerance. After it, the recovered model must be as good
on the same clients as the one before the cut, else that one is restored.

All thresholds are ratios, so they mean the same for every data set and model.
"""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any, Optional

from tff_autoprune import pruning
from tff_autoprune.pruning import cost
from tff_autoprune.pruning.methods import base, ranking
from tff_autoprune.pruning.penalty import group_lasso

if TYPE_CHECKING:
    import tensorflow as tf

WAITING, SEARCHING, HEALING = "waiting", "searching", "healing"


@dataclasses.dataclass(frozen=True)
class Constants:
    """The controller's constants, the same for every data set and model.

    Attributes:
      start_fraction: Share of the rounds before the first cut, at least.
      start_loss: The training loss must first fall below this share of the first round's.
      end_fraction: Share of the rounds after which nothing is cut any more.
      interval_fraction: Share of the rounds between cuts.
      first_aggressiveness: Share of the remaining cost that the first cut removes.
      most_aggressiveness: Largest share.
      bolder: Factor on the aggressiveness when a cut has healed.
      gentler: Factor on it when a trial or a cut hurts.
      least_aggressiveness: Below this, the search is over.
      trials: Candidates tried before a cut, at most.
      damage_per_point: Allowed relative rise of the loss in a trial for a point of tolerance.
      progress_share: Share of the recent progress that a cut may take.
      patience: Intervals that a cut may take to heal.
      penalty_share: The group-lasso term as a share of the training loss, while searching.
      width_exponent: The client learning rate grows with this power of the width that was lost.
    """

    start_fraction: float = 0.08
    start_loss: float = 0.9
    end_fraction: float = 0.65
    interval_fraction: float = 0.015
    first_aggressiveness: float = 0.1
    most_aggressiveness: float = 0.25
    bolder: float = 1.25
    gentler: float = 0.5
    least_aggressiveness: float = 0.01
    trials: int = 2
    damage_per_point: float = 0.03
    progress_share: float = 1.0
    patience: int = 3
    penalty_share: float = 0.02
    width_exponent: float = 0.5


@dataclasses.dataclass(frozen=True)
class Target:
    """A budget instead of a tolerance.

    Attributes:
      what: "parameters", "flops" or "bytes".
      value: What to reach.
    """

    what: str
    value: float


class AutoPruning(base.PruningMethod):
    """Cuts, proves, heals or takes back, until nothing pays any more."""

    regularizer_fn = staticmethod(group_lasso)

    def __init__(
        self,
        *,
        tolerance: float = 1.0,
        target: Optional[Target] = None,
        constants: Constants = Constants(),
    ) -> None:
        """Sets what the user wants.

        Args:
          tolerance: Points of accuracy that may be lost.
          target: A budget; the tolerance then does not count.
          constants: The controller's constants.
        """
        self._tolerance = tolerance
        self._target = target
        self._constants = constants

    @classmethod
    def from_settings(cls, settings: Any) -> AutoPruning:
        """Returns the method that the section `pruning` of a configuration asks for."""
        target = None
        for what in ("parameters", "flops", "bytes"):
            if settings[f"target_{what}"] is not None:
                target = Target(what, settings[f"target_{what}"])
        tolerance = 1.0 if settings.tolerance is None else settings.tolerance
        return cls(tolerance=tolerance, target=target)

    def initialize(self, model: tf.keras.Model) -> base.State:
        """Returns the state before the first round."""
        dense = cost.of(model)
        return {
            "phase": WAITING,
            "dense": {"parameters": dense.parameters, "flops": dense.flops, "bytes": dense.bytes},
            "dense_width": _width(model),
            "width": _width(model),
            "first_loss": None,
            "penalty": 0.0,
            "aggressiveness": self._constants.first_aggressiveness,
            "next_round": 0,
            "before_cut": None,
            "last_seen": None,
            "waited": 0,
        }

    def controls(self, state: base.State) -> base.Controls:
        """Returns the penalty, and a learning rate that suits the width."""
        ratio = state["dense_width"] / state["width"]
        return base.Controls(
            penalty=state["penalty"], learning_rate_scale=ratio**self._constants.width_exponent
        )

    def step(
        self, state: base.State, observation: base.Observation
    ) -> tuple[base.State, list[base.Decision]]:
        """Returns the next state and what to do."""
        constants, round_num = self._constants, observation.round_num
        state = dict(state)
        if round_num == 0:
            return state, []
        loss = observation.train_metrics["loss"]
        if state["first_loss"] is None:
            state["first_loss"] = loss
        if round_num >= constants.end_fraction * observation.total_rounds:
            return self._settle(state, observation)
        if state["phase"] == WAITING:
            early = round_num < constants.start_fraction * observation.total_rounds
            if early or loss > constants.start_loss * state["first_loss"]:
                return state, []
            state["phase"] = SEARCHING
        if round_num < state["next_round"]:
            return state, []
        seen = observation.evaluate(observation.model)
        decisions = []
        if state["phase"] == HEALING:
            decisions = self._check_healing(state, seen)
            if decisions and decisions[0].action is base.Action.RESTORE:
                self._wait(state, observation)
                return state, decisions
        if state["phase"] == SEARCHING:
            decisions += self._search(state, observation, seen)
        state["last_seen"] = {"round": round_num, **_figures(seen)}
        self._wait(state, observation)
        return state, decisions

    def _wait(self, state: base.State, observation: base.Observation) -> None:
        interval = max(2, round(self._constants.interval_fraction * observation.total_rounds))
        state["next_round"] = observation.round_num + interval

    # ------------------------------------------------------------ proof after the cut

    def _check_healing(self, state: base.State, seen: base.Feedback) -> list[base.Decision]:
        constants, before = self._constants, state["before_cut"]
        effect = seen["loss"] - before["loss"]
        slack = 0.25 * constants.damage_per_point * self._tolerance * before["loss"]
        if effect <= slack or self._target is not None:
            state.update(phase=SEARCHING, before_cut=None, waited=0)
            state["aggressiveness"] = min(
                constants.most_aggressiveness, constants.bolder * state["aggressiveness"]
            )
            reason = f"held-out loss {before['loss']:.3f} -> {seen['loss']:.3f}: healed"
            return [base.Decision(base.Action.ACCEPT, reason, measured_effect=effect)]
        state["waited"] += 1
        if state["waited"] < constants.patience:
            return []
        state.update(phase=SEARCHING, before_cut=None, waited=0, width=before["width"])
        state["aggressiveness"] *= constants.gentler
        reason = f"held-out loss {before['loss']:.3f} -> {seen['loss']:.3f}: not healed"
        return [base.Decision(base.Action.RESTORE, reason, measured_effect=effect)]

    def _settle(
        self, state: base.State, observation: base.Observation
    ) -> tuple[base.State, list[base.Decision]]:
        """Ends the search; a last cut that has not healed is taken back first."""
        decisions = []
        if state["phase"] == HEALING:
            seen = observation.evaluate(observation.model)
            state["waited"] = self._constants.patience
            decisions = self._check_healing(state, seen)
        state["penalty"] = 0.0
        reason = "the last part of the run trains what was found"
        return state, [*decisions, base.Decision(base.Action.STOP, reason)]

    # ------------------------------------------------------------ the next cut

    def _search(
        self, state: base.State, observation: base.Observation, seen: base.Feedback
    ) -> list[base.Decision]:
        constants, model = self._constants, observation.model
        groups = [g for g in pruning.find_filter_groups(model) if g.prunable]
        regularizer = float(group_lasso(model)(model.trainable_weights))
        state["penalty"] = constants.penalty_share * seen["loss"] / max(regularizer, 1e-9)
        sizes = cost.of(model)
        energies = ranking.energies(groups, model.get_weights())
        savings = self._savings(model, groups, sizes)
        allowed = self._allowed_damage(state, observation, seen)
        for _ in range(constants.trials):
            if state["aggressiveness"] < constants.least_aggressiveness:
                break
            amount = state["aggressiveness"]
            if self._target is not None:
                left = getattr(sizes, self._target.what)
                amount = min(amount, 1 - self._target.value / left)
                if amount <= 0:
                    break
            selection = ranking.weakest(groups, energies, savings, amount, overshoot=True)
            if not selection:
                break
            candidate = pruning.remove_filters(model, selection)
            damage = observation.evaluate(candidate)["loss"] - seen["loss"]
            if damage <= allowed or self._target is not None:
                state.update(
                    phase=HEALING,
                    before_cut={**_figures(seen), "width": state["width"]},
                    width=_width(candidate),
                )
                reason = f"trial: held-out loss {damage:+.3f}, allowed {allowed:+.3f}"
                return [
                    base.Decision(
                        base.Action.CUT, reason, selection=selection, predicted_effect=damage
                    )
                ]
            state["aggressiveness"] *= constants.gentler
        if state["aggressiveness"] < constants.least_aggressiveness:
            state["aggressiveness"] = constants.least_aggressiveness
        return []

    def _allowed_damage(
        self, state: base.State, observation: base.Observation, seen: base.Feedback
    ) -> float:
        constants = self._constants
        allowed = constants.damage_per_point * self._tolerance * seen["loss"]
        last = state["last_seen"]
        if last is not None and observation.round_num > last["round"]:
            interval = max(2, round(constants.interval_fraction * observation.total_rounds))
            rounds = observation.round_num - last["round"]
            gained = (last["loss"] - seen["loss"]) * interval / rounds
            allowed += constants.progress_share * max(0.0, gained)
        return allowed

    def _savings(self, model: tf.keras.Model, groups: list, sizes: cost.Cost) -> dict[str, float]:
        """Share of the cost that one channel of each group stands for."""
        wanted = [self._target.what] if self._target is not None else ["parameters", "flops"]
        total = dict.fromkeys((g.name for g in groups), 0.0)
        for what in wanted:
            whole = getattr(sizes, what)
            for name, saved in cost.per_channel(model, groups, what).items():
                if name in total:
                    total[name] += saved / whole / len(wanted)
        return total


def _figures(feedback: base.Feedback) -> dict[str, float]:
    return {"loss": float(feedback["loss"]), "accuracy": float(feedback["accuracy"])}


def _width(model: tf.keras.Model) -> float:
    """Returns the geometric mean of the numbers of channels of the prunable groups."""
    channels = [g.channels for g in pruning.find_filter_groups(model) if g.prunable]
    if not channels:
        return 1.0
    return math.exp(sum(math.log(c) for c in channels) / len(channels))

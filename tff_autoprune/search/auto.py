"""Pruning as a controlled process: the network finds its size by itself.

             learning has progressed              held-out trial: the cut pays
    WAITING ────────────────────────> SEARCHING ────────────────────────────────> HEALING
                                       │  ^  ^                                    │   │
              nothing pays any more,   │  │  └── healed: accept, bolder ──────────┘   │
              or the last part begins  │  └───── not healed: restore, gentler ────────┘
                                       v
                                    settled

When. Cuts begin when the network clearly does better than an uninformed one. Each waits until the
one before has healed: the training loss is back at its lowest level before any cut, within its own
noise, so that small losses do not add up. (Where a cut lowered the held-out loss, the training loss
may stay higher by as much: the network had learned its training clients by heart.) Cuts end early
enough for a last phase in which what was found is only trained.

Where. Clients measure it: each dependency group alone leaves out its weakest channels, which puts
a price on them (`prices`); then those of all groups that lose least for what they save go together
(`trial`). The cost is the mean of the dense model's parameters and FLOPs that are left, as shares.
There is no quota per layer.

Without loss. Survivors take over what removed channels gave the next layer (`compensation`), by
what clients tell of the layers' inputs, and inherit all weights and optimizer state.

How much. A share of the remaining cost, the aggressiveness: raised while cuts are easy, lowered as
they become hard, and when one is refused or does not heal. The logarithm of the cost never falls
faster than the square of what that of the training errors has fallen by (times a constant) or, if
that is slower, than time goes by: what a network needs shows only when it has learned.

Proof. A cut is tried before it is made: candidates and the present model are evaluated on the same
held-out clients, by the loss that remains when each is as sure of itself as suits it best
(`federated.losses`). (Channels that carry next to no energy, dead ones say, go without a trial,
which costs traffic.) The rise of the loss is turned into points of accuracy by what the network has
gained so far for its fall of the loss, from an uninformed one on:

    points = rise of log loss * (accuracy - 1/classes) / (log log classes - log loss)

a third of which is still missing when the cut has healed. A cut pays if it takes at most half of
what all cuts before have left of the tolerance. One trial is noisy; in the sum, noise averages out
and what was really lost adds up.

Preparation. While the search lasts, clients add a group lasso to their loss: channels that the task
does not need fade before they are cut, and what is needed gathers in the others. It is sized as a
share of the training loss that grows while this loss falls and is halved when it rises.

A budget replaces the proof: the cost then falls geometrically to the budget, and the last cut meets
it (`budget`). Where to cut, clients tell all the same.

All constants are ratios, so they mean the same for every data set and model.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Optional

import numpy as np

from tff_autoprune import surgery
from tff_autoprune.program import host_latency as latency
from tff_autoprune.program.device_profile import DeviceProfile
from tff_autoprune.search import base, prices, ranking
from tff_autoprune.search import budget as budget_lib
from tff_autoprune.search.penalty import group_lasso
from tff_autoprune.search.trial import Trial
from tff_autoprune.search.width import learning_rate_scale, width
from tff_autoprune.surgery import cost

if TYPE_CHECKING:
    import tensorflow as tf

WAITING, SEARCHING, HEALING = "waiting", "searching", "healing"
# Median absolute deviation to standard deviation, for a normal distribution.
_MAD_TO_SD = 1.4826
# Rounds that the noise of the training loss is estimated from.
_NOISE_ROUNDS = 20
# Rounds that a level of the training loss is the mean of, at most.
_LEVEL_ROUNDS = 5
# What a cut shall save, each as a share of what the dense model has of it.
_COSTS = ("parameters", "flops")


@dataclasses.dataclass(frozen=True)
class Constants:
    """The controller's constants, the same for every data set and model.

    Attributes:
      start_fraction: Share of the rounds before the first cut, at least.
      start_error: The share of wrong training examples must first fall below this share of an
        uninformed network's.
      end_fraction: Share of the rounds after which nothing is cut any more.
      budget_fraction: Share of the rounds after which a budget is met.
      interval_fraction: Share of the rounds between cuts.
      first_aggressiveness: Share of the remaining cost that the first cut removes.
      most_aggressiveness: Largest share.
      least_aggressiveness: Smallest share, but one channel at least.
      bolder: Largest factor on the aggressiveness from a cut to the next.
      gentler: Smallest factor; also taken when a cut does not pay or does not heal.
      lasting_share: Share of a trial's rise of the loss that is left when a cut has healed.
      wanted_share: Share of the tolerance that is left which a cut is sized to take.
      most_share: Share of it that a cut may take: a large cut costs more than two small ones with
        learning between them.
      free_energy: A cut that loses no more than this share of any group's energy needs no trial.
      fall_per_progress: Allowed fall of the logarithm of the cost for a fall of the logarithm of
        the training errors by 1; it grows with the square of the latter, since what a network needs
        shows only when it has learned.
      fall_over_time: Fall of the logarithm of the cost that is allowed by the end of the search
        whatever was learned; before, in proportion to the time.
      pace_exponent: Both falls grow with this power of the tolerance in points: what a fast pace
        costs shows in no trial, so it is what a user offers that has to pay for it.
      least_pace_tolerance: Smaller tolerances count as this one there.
      candidates: Cuts of all layers together that are tried at a time; each saves `gentler` times
        what the one before does.
      layers: Layers tried alone at a time, at most: those with the weakest filters for their cost.
      refusals: Times in a row that no candidate pays, after which the search ends. The pauses
        between them double.
      noise: Standard errors by which the loss may miss its lowest level before a cut.
      unhealed_per_point: Relative rise that counts as healed besides, for a point of tolerance.
      negligible_loss: Losses below this share of the first round's count as this large when a
        relative rise is computed.
      patience: Intervals that a cut may take to heal.
      hopeless: Multiple of the allowed rise of the loss beyond which a cut has a single one.
      first_penalty: The group lasso as a share of the training loss when the search begins.
      most_penalty: Largest share; it grows while the training loss falls, and is halved when it
        rises, cuts included.
      penalty_growth: Factor on the share between cuts.
      least_left: Share of a group's channels that a single cut leaves at least: the ranking of
        those that remain is another one then.
    """

    start_fraction: float = 0.05
    start_error: float = 0.8
    end_fraction: float = 0.6
    budget_fraction: float = 0.25
    interval_fraction: float = 0.02
    first_aggressiveness: float = 0.12
    most_aggressiveness: float = 0.3
    least_aggressiveness: float = 0.03
    bolder: float = 1.3
    gentler: float = 0.6
    lasting_share: float = 0.35
    wanted_share: float = 0.25
    most_share: float = 0.5
    free_energy: float = 1e-3
    fall_per_progress: float = 0.65
    fall_over_time: float = 2.0
    pace_exponent: float = 0.25
    least_pace_tolerance: float = 0.1
    candidates: int = 5
    layers: int = 12
    refusals: int = 4
    noise: float = 1.0
    unhealed_per_point: float = 0.02
    negligible_loss: float = 0.2
    patience: int = 4
    hopeless: float = 6.0
    first_penalty: float = 0.03
    most_penalty: float = 0.12
    penalty_growth: float = 1.3
    least_left: float = 0.5


class AutoPruning(base.PruningMethod):
    """Tries, cuts, heals or takes back, until nothing pays any more."""

    regularizer_fn = staticmethod(group_lasso)

    def __init__(
        self,
        *,
        tolerance: float = 1.0,
        budget: Optional[budget_lib.Budget] = None,
        latency_profile: Optional[str] = None,
        constants: Constants = Constants(),
    ) -> None:
        """Sets what the user wants.

        Args:
          tolerance: Points of accuracy that may be lost.
          budget: What the model may cost; the tolerance then does not count.
          latency_profile: Where the profile of a device lies that tells the model's latency, for a
            budget of milliseconds.
          constants: The controller's constants.
        """
        self._tolerance = tolerance
        self._budget = budget
        self._latency_profile = latency_profile
        self._constants = constants

    @classmethod
    def from_settings(cls, settings: Any) -> AutoPruning:
        """Returns the method that the section `pruning` of a configuration asks for."""
        budget = None
        for what in ("parameters", "flops", "bytes"):
            if settings[f"target_{what}"] is not None:
                budget = budget_lib.counted(what, settings[f"target_{what}"])
        if settings.target_latency_ms is not None:
            budget = latency.budget(settings.target_latency_ms)
        tolerance = 1.0 if settings.tolerance is None else settings.tolerance
        return cls(tolerance=tolerance, budget=budget, latency_profile=settings.latency_profile)

    def initialize(self, model: tf.keras.Model) -> base.State:
        """Returns the state before the first round.

        Raises:
          UserError: If the budget is less than what the smallest version of the model costs, or
            the latency profile is not that of the model.
        """
        dense, dense_width, profile = cost.of(model), width(model), None
        if self._latency_profile is not None:
            profile = dataclasses.asdict(DeviceProfile.read(self._latency_profile, model))
        state = {
            "latency_profile": profile,
            "phase": WAITING,
            "dense": {what: getattr(dense, what) for what in _COSTS},
            "losses": [],
            "errors": [],
            "first_loss": None,
            "lowest_level": None,
            "best_level": None,
            "penalty": 0.0,
            "penalty_share": self._constants.first_penalty,
            "aggressiveness": self._constants.first_aggressiveness,
            "next_round": 0,
            "cut_round": 0,
            "held_out_gain": 0.0,
            "refusals": 0,
            "cuts": 0,
            "spent": 0.0,
            "spent_before": 0.0,
            "dense_width": dense_width,
            "width": dense_width,
            "width_before": dense_width,
        }
        if self._budget is not None:
            self._measured_budget(state).check_reachable(model)
        return state

    def _measured_budget(self, state: base.State) -> budget_lib.Budget:
        """Returns the budget; by the profile of a device, if there is one."""
        if state["latency_profile"] is None:
            return self._budget
        profile = DeviceProfile(**state["latency_profile"])
        return dataclasses.replace(
            self._budget, measure=profile.latency_ms, savings=profile.savings
        )

    def controls(self, state: base.State) -> base.Controls:
        """Returns the penalty, and a learning rate that suits the width."""
        scale = learning_rate_scale(state["dense_width"], state["width"])
        return base.Controls(penalty=state["penalty"], learning_rate_scale=scale)

    def step(
        self, state: base.State, observation: base.Observation
    ) -> tuple[base.State, list[base.Decision]]:
        """Returns the next state and what to do."""
        constants, round_num = self._constants, observation.round_num
        if round_num == 0:
            return state, []
        metrics = observation.train_metrics
        state = {
            **state,
            "losses": [*state["losses"], metrics["loss"]][-_NOISE_ROUNDS:],
            "errors": [*state["errors"], 1 - metrics["accuracy"]][-_NOISE_ROUNDS:],
        }
        if state["first_loss"] is None:
            state["first_loss"] = state["losses"][0]
        over = round_num >= constants.end_fraction * observation.total_rounds
        if state["phase"] == WAITING:
            early = round_num < constants.start_fraction * observation.total_rounds
            if early or self._learned(state, observation) < -math.log(constants.start_error):
                if self._budget is None:
                    reason = "the network has learned too little to be judged"
                    return state, [self._stop(state, reason)] if over else []
                # A budget is met whatever was learned.
                if round_num < constants.budget_fraction * observation.total_rounds:
                    return state, []
            state["phase"] = SEARCHING
            state["best_level"] = _level(state["losses"])
        due = over or round_num >= state["next_round"]
        if not due:
            return state, []
        self._size_penalty(state, observation.model)
        return self._decide(state, observation, over)

    def _decide(
        self, state: base.State, observation: base.Observation, over: bool
    ) -> tuple[base.State, list[base.Decision]]:
        state["next_round"] = observation.round_num + self._interval(observation)
        decisions = []
        if state["phase"] == HEALING:
            decisions = self._check_healing(state, observation, over)
            if state["phase"] == HEALING or _restores(decisions):
                return state, decisions
        if over and (self._budget is None or state["cuts"]):
            reason = "the last part of the run trains what was found"
            return state, [*decisions, self._stop(state, reason)]
        if self._budget is None:
            return state, decisions + self._search(state, observation)
        return state, decisions + self._follow_budget(state, observation)

    def _stop(self, state: base.State, reason: str) -> base.Decision:
        state["penalty"] = 0.0
        if not state["cuts"]:
            reason = f"{reason}; no cut was kept, so the dense model stays as it is"
        return base.Decision(base.Action.STOP, reason)

    def _interval(self, observation: base.Observation) -> int:
        return max(2, round(self._constants.interval_fraction * observation.total_rounds))

    def _size_penalty(self, state: base.State, model: tf.keras.Model) -> None:
        """Revises the penalty's share of the training loss, and sets the penalty to it."""
        constants, level = self._constants, _level(state["losses"])
        if self._rise(state, state["best_level"], level) > 2 * self._slack(state, level):
            state["penalty_share"] /= 2
        else:
            share = constants.penalty_growth * state["penalty_share"]
            state["penalty_share"] = min(constants.most_penalty, share)
        state["best_level"] = min(level, state["best_level"])
        lasso = float(group_lasso(model)(model.trainable_weights))
        state["penalty"] = state["penalty_share"] * level / lasso if lasso > 0 else 0.0

    def _rise(self, state: base.State, before: float, after: float) -> float:
        """Relative rise of a loss. A loss near 0 may multiply without a loss of accuracy."""
        return (after - before) / self._rise_unit(state, before)

    def _rise_unit(self, state: base.State, before: float) -> float:
        """Returns the rise of a loss that counts as 100 %."""
        return max(before, self._constants.negligible_loss * state["first_loss"], 1e-9)

    def _slack(self, state: base.State, before: float) -> float:
        """Rise of the level of the training loss that is mere noise, or may be tolerated."""
        # Both levels are means of a few rounds; their difference has the noise of both.
        deviation = _noise(state["losses"]) * math.sqrt(2 / _LEVEL_ROUNDS)
        noise = self._constants.noise * self._rise(state, before, before * (1 + deviation))
        return noise + self._constants.unhealed_per_point * self._tolerance

    # ------------------------------------------------------------ has the last cut healed?

    def _check_healing(
        self, state: base.State, observation: base.Observation, over: bool
    ) -> list[base.Decision]:
        """Accepts the last cut, takes it back, or waits (no decision)."""
        constants = self._constants
        since = observation.round_num - state["cut_round"]
        before, after = state["lowest_level"], _level(state["losses"][-since:])
        effect = self._rise(state, before, after)
        slack = self._slack(state, before) + state["held_out_gain"]
        figures = f"training loss {before:.3f} -> {after:.3f}, {effect:+.1%} of {slack:.1%} allowed"
        if effect <= slack or self._budget is not None:
            # What was forgotten for good is no longer missing when the next cut is judged.
            forgotten = min(max(effect, 0.0), state["held_out_gain"])
            level = before + forgotten * self._rise_unit(state, before)
            state.update(phase=SEARCHING, lowest_level=level)
            return [base.Decision(base.Action.ACCEPT, f"healed: {figures}", measured_effect=effect)]
        if over:
            state["penalty"] = 0.0
        hopeless = effect > constants.hopeless * slack
        if not hopeless and since < constants.patience * self._interval(observation):
            return []
        state.update(
            phase=SEARCHING,
            # What the restored model has not seen. (Its return is no noise of the training loss.)
            losses=state["losses"][:-since],
            errors=state["errors"][:-since],
            spent=state["spent_before"],
            width=state["width_before"],
            cuts=state["cuts"] - 1,
        )
        self._scale_aggressiveness(state, constants.gentler)
        # The restored model has to learn on before anything is tried again.
        state["next_round"] = observation.round_num + since
        return [
            base.Decision(base.Action.RESTORE, f"not healed: {figures}", measured_effect=effect)
        ]

    # ------------------------------------------------------------ the next cut

    def _search(self, state: base.State, observation: base.Observation) -> list[base.Decision]:
        """Tries cuts; makes the largest that pays."""
        constants, model = self._constants, observation.model
        groups = [g for g in surgery.find_filter_groups(model) if g.prunable and g.channels > 1]
        if not groups:
            return [self._stop(state, "every layer is down to a single filter")]
        share_left = _share_left(model, state["dense"])
        room = self._room(state, observation, share_left)
        if room < constants.least_aggressiveness:
            return []
        amount = share_left * min(room, state["aggressiveness"])
        energies = ranking.energies(groups, model.get_weights())
        savings = _savings(model, groups, state["dense"])
        selection = ranking.weakest(
            groups, energies, savings, amount, least_left=constants.least_left
        )
        if not selection:
            return [self._stop(state, "no filter saves anything")]
        lost = max(energies[name][ids].sum() for name, ids in selection.items())
        if lost <= constants.free_energy:
            reason = f"free: at most {lost:.2%} of a layer's energy"
            self._scale_aggressiveness(state, constants.bolder)
            return [self._cut(state, observation, selection, None, reason, 0.0)]
        trial = Trial(observation, groups)
        before, left = trial.seen["calibrated_loss"], self._tolerance - state["spent"]
        points_per_rise = constants.lasting_share * _points_per_rise(trial.seen, _classes(model))

        def points(loss: float) -> float:
            return points_per_rise * self._rise(state, before, loss)

        def pays(loss: float) -> bool:
            return points(loss) <= constants.most_share * left

        costs = self._costs(trial, groups, energies, savings, amount)
        candidates = self._candidates(groups, costs, savings, amount)
        tried = list(zip(candidates, trial.losses(candidates)))
        paying = [t for t in tried if pays(t[1])]
        selection, loss = paying[0] if paying else tried[-1]
        rise = self._rise(state, before, loss)
        cost_of_cut = f"about {points(loss):+.2f} points of the {left:.2f} left"
        figures = f"held-out loss {rise:+.1%}, {cost_of_cut}"
        if paying:
            # The best of several candidates that does better than the present model was lucky.
            state["spent"] += max(0.0, points(loss))
            wanted = constants.wanted_share * left
            self._scale_aggressiveness(state, math.sqrt(wanted / max(points(loss), 1e-9)))
            weights = trial.weights_without(selection)
            return [self._cut(state, observation, selection, weights, f"pays: {figures}", rise)]
        refused = base.Decision(
            base.Action.REFUSE,
            f"does not pay: {figures}",
            selection=selection,
            predicted_effect=rise,
        )
        self._scale_aggressiveness(state, constants.gentler)
        state["refusals"] += 1
        if state["refusals"] >= constants.refusals:
            return [refused, self._stop(state, "no cut pays any more")]
        pause = 2 ** (state["refusals"] - 1) * self._interval(observation)
        state["next_round"] = observation.round_num + pause
        return [refused]

    def _candidates(
        self,
        groups: Sequence[surgery.FilterGroup],
        costs: Mapping[str, np.ndarray],
        savings: Mapping[str, float],
        amount: float,
    ) -> list[ranking.Selection]:
        """Returns cuts of all layers together, from one that saves an amount to smaller ones."""
        constants = self._constants
        selections: list[ranking.Selection] = []
        for number in range(constants.candidates):
            part = amount * constants.gentler**number
            found = ranking.weakest(groups, costs, savings, part, least_left=constants.least_left)
            if found and found not in selections:
                selections.append(found)
        return selections

    def _costs(
        self,
        trial: Trial,
        groups: Sequence[surgery.FilterGroup],
        energies: Mapping[str, np.ndarray],
        savings: Mapping[str, float],
        amount: float,
    ) -> dict[str, np.ndarray]:
        """Returns what channels cost the held-out loss, by layers that alone save half as much."""
        return prices.measured(
            trial,
            groups,
            energies,
            savings,
            amount / 2,
            least_left=self._constants.least_left,
            layers=self._constants.layers,
        )

    def _learned(self, state: base.State, observation: base.Observation) -> float:
        """Returns by how much the logarithm of the training errors is below an uninformed one's."""
        uninformed = 1 - 1 / _classes(observation.model)
        return math.log(uninformed / max(_level(state["errors"]), 1e-9))

    def _room(self, state: base.State, observation: base.Observation, share_left: float) -> float:
        """Returns the share of the remaining cost that may go by now."""
        constants, learned = self._constants, self._learned(state, observation)
        time = observation.round_num / observation.total_rounds - constants.start_fraction
        time /= constants.end_fraction - constants.start_fraction
        progress = constants.fall_per_progress * max(learned, 0.0) ** 2
        offered = max(self._tolerance, constants.least_pace_tolerance)
        allowed = max(progress, constants.fall_over_time * time) * offered**constants.pace_exponent
        return max(0.0, 1.0 - math.exp(-allowed) / share_left)

    def _scale_aggressiveness(self, state: base.State, factor: float) -> None:
        constants = self._constants
        factor = min(constants.bolder, max(constants.gentler, factor))
        state["aggressiveness"] = min(
            constants.most_aggressiveness,
            max(constants.least_aggressiveness, factor * state["aggressiveness"]),
        )

    def _follow_budget(
        self, state: base.State, observation: base.Observation
    ) -> list[base.Decision]:
        """Cuts at the pace that meets the budget in time."""
        constants, model = self._constants, observation.model
        budget = self._measured_budget(state)
        now = budget.measure(model)
        if now <= budget.value:
            met = f"{now:g} {budget.what}, the budget is {budget.value:g}"
            return [self._stop(state, met)]
        groups = [g for g in surgery.find_filter_groups(model) if g.prunable]
        savings = budget.savings(model, groups, now)
        last = constants.budget_fraction * observation.total_rounds
        cuts_left = max(1, int((last - observation.round_num) / self._interval(observation)) + 1)
        # The last cut meets the budget; a step short of it must not fall below.
        if now <= (1 + constants.most_aggressiveness) * budget.value:
            cuts_left = 1
        amount = now * (1 - (budget.value / now) ** (1 / cuts_left))
        trial = Trial(observation, groups)
        energies = ranking.energies(groups, model.get_weights())
        costs = self._costs(trial, groups, energies, savings, amount)
        if cuts_left == 1:
            selection, left = budget_lib.fit(budget, model, groups, costs)
            reason = f"{left:g} {budget.what} left, the budget is {budget.value:g}"
        else:
            selection = ranking.weakest(
                groups, costs, savings, amount, least_left=constants.least_left
            )
            way = f"on the way to {budget.value:g}"
            reason = f"{amount / now:.1%} of {now:g} {budget.what}, {way}"
        weights = trial.weights_without(selection)
        return [self._cut(state, observation, selection, weights, reason, None)]

    def _cut(
        self,
        state: base.State,
        observation: base.Observation,
        selection: ranking.Selection,
        weights: Optional[Sequence[np.ndarray]],
        reason: str,
        predicted_effect: Optional[float],
    ) -> base.Decision:
        level = _level(state["losses"])
        if state["lowest_level"] is not None:
            level = min(level, state["lowest_level"])
        state.update(
            phase=HEALING,
            lowest_level=level,
            cut_round=observation.round_num,
            held_out_gain=max(0.0, -(predicted_effect or 0.0)),
            cuts=state["cuts"] + 1,
            refusals=0,
            spent_before=state["spent"],
            width_before=state["width"],
            width=width(observation.model, selection),
        )
        return base.Decision(
            base.Action.CUT,
            reason,
            selection=selection,
            weights=weights,
            predicted_effect=predicted_effect,
        )


def _restores(decisions: Sequence[base.Decision]) -> bool:
    return any(decision.action is base.Action.RESTORE for decision in decisions)


def _window(rounds: int) -> int:
    """Number of rounds that a level of the loss is the mean of: the recent half, a few at most."""
    return max(1, min(_LEVEL_ROUNDS, (rounds + 1) // 2))


def _level(losses: Sequence[float]) -> float:
    """Returns the present level of the training loss."""
    return float(np.mean(losses[-_window(len(losses)) :]))


def _noise(losses: Sequence[float]) -> float:
    """Returns the relative standard deviation of a round's loss around its trend.

    From second differences, in which a trend cancels; their standard deviation is sqrt(6) times
    that of the noise.
    """
    if len(losses) < 4:
        return 0.0
    second = np.diff(np.log(np.maximum(losses[-_NOISE_ROUNDS:], 1e-9)), 2)
    return float(_MAD_TO_SD * np.median(np.abs(second)) / math.sqrt(6))


def _share_left(model: tf.keras.Model, dense: Mapping[str, float]) -> float:
    """Returns the mean of a model's shares of what the dense one costs."""
    now = cost.of(model)
    return sum(getattr(now, what) / dense[what] for what in _COSTS) / len(_COSTS)


def _savings(
    model: tf.keras.Model, groups: Sequence[surgery.FilterGroup], dense: Mapping[str, float]
) -> dict[str, float]:
    """Returns the share of the dense model's cost that a channel of each group stands for.

    Of the dense one: where hardly any FLOPs are left, saving half of them saves little.
    """
    total = {group.name: 0.0 for group in groups}
    for what in _COSTS:
        for name, saved in cost.per_channel(model, groups, what).items():
            total[name] += saved / dense[what] / len(_COSTS)
    return total


def _classes(model: tf.keras.Model) -> int:
    """Returns how many classes a model tells apart; one output tells two."""
    return max(2, model.output_shape[-1])


def _points_per_rise(seen: base.Feedback, classes: int) -> float:
    """Returns how many points of accuracy a rise of the logarithm of the loss by 1 stands for.

    Args:
      seen: The present model's held-out "calibrated_loss" and "accuracy".
      classes: Number of classes.
    """
    gained = seen["accuracy"] - 1 / classes
    fallen = math.log(math.log(classes)) - math.log(max(seen["calibrated_loss"], 1e-9))
    # No better than uninformed: as if all that there is to gain went with a factor of e.
    most = 100 * (1 - 1 / classes)
    return most if gained <= 0 or fallen <= 0 else min(most, 100 * gained / fallen)

"""The controller: when it cuts, how far, what it takes back, and when it stops."""

import dataclasses
import math

import pytest
from pruning_round_loop import feature_moments, run

from tff_autoprune import config as config_lib
from tff_autoprune import models
from tff_autoprune.search import auto, base, methods
from tff_autoprune.search import budget as budget_lib
from tff_autoprune.surgery import cost

ROUNDS = 60


def cnn(filters=(8, 12)):
    return models.build("cnn", input_shape=(20, 20, 1), num_classes=5, seed=1, filters=filters)


def learning(round_num, model):
    """A training loss that falls steadily and knows nothing of the model."""
    del model
    return 2.0 * 0.97**round_num


def needs(parameters):
    """A held-out loss that rises as a power of the size that is missing from `parameters`."""

    def loss(model):
        return 1.0 * max(1.0, parameters / model.count_params()) ** 0.5

    return loss


def test_a_network_shrinks_to_about_what_the_task_needs():
    dense = cnn().count_params()
    outcome = run(
        auto.AutoPruning(),
        cnn(),
        rounds=ROUNDS,
        train_loss=learning,
        held_out_loss=needs(0.3 * dense),
    )
    assert 0.15 * dense < outcome.model.count_params() < 0.35 * dense
    assert outcome.actions()[-1] == "stop"
    assert "restore" not in outcome.actions()


def test_a_network_that_is_too_small_already_stays_as_it_is():
    model = cnn()
    before = [weight.copy() for weight in model.get_weights()]
    outcome = run(
        auto.AutoPruning(),
        model,
        rounds=ROUNDS,
        train_loss=learning,
        held_out_loss=lambda present: needs(10 * model.count_params())(present) ** 3,
    )
    assert set(outcome.actions()) == {"refuse", "stop"}
    assert "the dense model stays" in outcome.decisions[-1][1].reason
    assert outcome.model is model
    for one, other in zip(before, model.get_weights()):
        assert (one == other).all()


def test_more_tolerance_gives_a_smaller_network():
    dense = cnn((16, 24)).count_params()

    def steep(model):
        return math.exp(0.03 * (dense / model.count_params()) ** 1.5)

    sizes = [
        run(
            auto.AutoPruning(tolerance=tolerance),
            cnn((16, 24)),
            rounds=ROUNDS,
            train_loss=learning,
            held_out_loss=steep,
        ).model.count_params()
        for tolerance in (0.2, 1.0, 3.0)
    ]
    assert sizes[0] > sizes[1] > sizes[2]


def test_nothing_is_cut_before_learning_has_progressed_or_in_the_last_part():
    plateau = 20
    outcome = run(
        auto.AutoPruning(),
        cnn(),
        rounds=ROUNDS,
        train_loss=lambda r, _: 2.0 * 0.97 ** max(0, r - plateau),
        held_out_loss=lambda _: 1.0,
    )
    cuts = outcome.rounds(base.Action.CUT)
    assert plateau < min(cuts)
    assert max(cuts) < auto.Constants().end_fraction * ROUNDS
    first = cnn().count_params()
    assert all(b >= first for b in outcome.sizes[:plateau])


def test_a_network_that_never_learns_is_left_alone_and_says_so():
    outcome = run(auto.AutoPruning(), cnn(), rounds=ROUNDS, train_loss=lambda *_: 2.0)
    assert outcome.actions() == ["stop"]
    assert "learned too little" in outcome.decisions[0][1].reason
    assert "the dense model stays" in outcome.decisions[0][1].reason


@pytest.mark.parametrize("rounds", [3, ROUNDS])
def test_a_budget_is_met_whatever_was_learned(rounds):
    budget = budget_lib.counted("parameters", 0.4 * cnn().count_params())
    outcome = run(auto.AutoPruning(budget=budget), cnn(), rounds=rounds, train_loss=lambda *_: 2.0)
    assert 0.9 * budget.value <= outcome.model.count_params() <= budget.value


@pytest.mark.parametrize("rise, intervals", [(1.1, 4), (1.5, 1)])
def test_a_cut_that_does_not_heal_is_taken_back(rise, intervals):
    model = cnn()
    dense = model.count_params()

    def train_loss(round_num, present):
        # Good as long as the network is dense; the held-out trial does not see it coming.
        return learning(min(round_num, 10), model) * (1.0 if present is model else rise)

    outcome = run(
        auto.AutoPruning(),
        model,
        rounds=ROUNDS,
        train_loss=train_loss,
        held_out_loss=lambda _: 1.0,
    )
    # The coming and going of a restored model is not taken for noise, which would excuse a cut.
    assert set(outcome.actions()) == {"cut", "restore", "stop"}
    assert outcome.model.count_params() == dense
    cut, restore = outcome.rounds(base.Action.CUT)[0], outcome.rounds(base.Action.RESTORE)[0]
    assert restore == cut + intervals * 2
    later = [r for r in outcome.rounds(base.Action.CUT) if r > restore]
    assert not later or later[0] == restore + intervals * 2  # It is not tried again at once.


@pytest.mark.parametrize("held_out, kept", [(1.0, False), (0.7, True)])
def test_what_held_out_clients_gain_the_training_clients_may_lose(held_out, kept):
    model = cnn()
    dense = model.count_params()

    def train_loss(round_num, present):
        # Known by heart as long as the network is dense.
        return 1.0 if present.count_params() == dense else 1.2

    outcome = run(
        auto.AutoPruning(constants=dataclasses.replace(auto.Constants(), start_error=1.0)),
        model,
        rounds=ROUNDS,
        train_loss=train_loss,
        held_out_loss=lambda m: 1.0 if m.count_params() == dense else held_out,
    )
    assert outcome.actions()[:2] == ["cut", "accept" if kept else "restore"]
    assert (outcome.model.count_params() < dense) == kept


def test_the_last_cut_has_its_time_to_heal():
    constants, model = auto.Constants(), cnn()
    last = math.ceil(constants.end_fraction * ROUNDS)
    first_cut: list[int] = []

    def train_loss(round_num, present):
        if present.count_params() == model.count_params():
            return 1.0
        first_cut.append(round_num)
        return 1.1 if round_num < last + 1 else 0.9  # Heals when the last part has begun.

    outcome = run(
        auto.AutoPruning(
            constants=dataclasses.replace(
                constants,
                start_error=1.0,
                start_fraction=(last - 3) / ROUNDS,
                fall_over_time=100.0,
            )
        ),
        model,
        rounds=ROUNDS,
        train_loss=train_loss,
        held_out_loss=lambda _: 1.0,
    )
    assert first_cut[0] < last + 1
    assert outcome.actions()[-2:] == ["accept", "stop"]
    assert outcome.model.count_params() < model.count_params()


def test_cuts_become_bolder_while_they_are_easy():
    outcome = run(
        auto.AutoPruning(),
        cnn((32, 48)),
        rounds=ROUNDS,
        train_loss=lambda r, _: 2.0 * 0.8**r,
        held_out_loss=lambda _: 1.0,
    )
    cuts = outcome.rounds(base.Action.CUT)
    shares = [math.log(outcome.sizes[r - 1] / outcome.sizes[r]) for r in cuts[:6]]
    assert shares[-1] > 1.5 * shares[0]


def test_the_cost_falls_no_faster_than_the_network_learns():
    constants = auto.Constants()

    def final_fall(loss_per_round):
        dense = cnn((32, 48))
        outcome = run(
            auto.AutoPruning(),
            dense,
            rounds=ROUNDS,
            train_loss=lambda r, _: 2.0 * loss_per_round**r,
            held_out_loss=lambda _: 1.0,
        )
        first = outcome.sizes[int(0.2 * ROUNDS)]
        return math.log(dense.count_params() / first)

    slow, fast = final_fall(0.985), final_fall(0.85)
    learned = -math.log(0.985) * 0.2 * ROUNDS
    time = (0.2 - constants.start_fraction) / (constants.end_fraction - constants.start_fraction)
    allowed = max(constants.fall_per_progress * learned**2, constants.fall_over_time * time)
    assert slow < 1.3 * allowed < fast


def test_the_penalty_grows_while_the_loss_falls_and_is_halved_when_it_rises():
    method, model = auto.AutoPruning(), cnn()
    state = method.initialize(model)
    assert method.controls(state) == base.Controls(penalty=0.0, learning_rate_scale=1.0)
    shares = []
    seen = {"calibrated_loss": 1.0, "accuracy": 0.5}
    losses = [2.0, 1.8, 1.6, 1.4, 1.3, 1.2, 1.1, 1.0, 0.95, 0.9, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0]
    for number, loss in enumerate(losses, start=1):
        observation = base.Observation(
            number,
            60,
            model,
            None,
            {"loss": loss, "accuracy": 0.5},
            lambda layers: (seen, feature_moments(model, layers)),
            lambda _, mixes: [seen for _ in next(iter(mixes.values()))],
            lambda _: seen,
        )
        state, _ = method.step(state, observation)
        shares.append(state["penalty_share"])
    rising = shares[:10]
    assert rising == sorted(rising) and rising[-1] > rising[0]
    assert min(shares[10:]) <= 0.5 * rising[-1]
    assert method.controls(state).penalty > 0


@pytest.mark.parametrize("what", ["parameters", "flops", "bytes"])
def test_a_budget_is_met(what):
    model = models.build("cnn", input_shape=(28, 28, 1), num_classes=62, seed=0)
    target = 0.3 * getattr(cost.of(model), what)
    outcome = run(
        auto.AutoPruning(budget=budget_lib.counted(what, target)),
        model,
        rounds=2 * ROUNDS,
        train_loss=learning,
    )
    assert 0.98 * target <= getattr(cost.of(outcome.model), what) <= target
    assert len(outcome.rounds(base.Action.CUT)) > 5  # Gradually.
    assert outcome.actions()[-1] == "stop"


def test_the_learning_rate_grows_as_the_network_narrows():
    method = auto.AutoPruning()
    state = {**method.initialize(cnn()), "width": 2.0, "dense_width": 8.0}
    assert method.controls(state).learning_rate_scale == pytest.approx(4)


@pytest.mark.parametrize("field", ["target_parameters", "target_flops", "target_bytes"])
def test_a_configuration_can_ask_for_a_budget(field):
    config = config_lib.default()
    config.pruning[field] = 1
    method = methods.create("auto", config.pruning)
    with pytest.raises(Exception, match=f"pruning.{field}"):
        method.initialize(cnn())

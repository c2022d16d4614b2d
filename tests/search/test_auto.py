"""The controller: when it moves, how far, what it books, and when it stops."""

import math

import pytest
from search_loop import run

from tff_autoprune import config as config_lib
from tff_autoprune import models, surgery
from tff_autoprune.errors import UserError
from tff_autoprune.search import auto, base, methods
from tff_autoprune.search import budget as budget_lib

ROUNDS = 100


def cnn(filters=(16, 24)):
    return models.build("cnn", input_shape=(28, 28, 1), num_classes=10, seed=1, filters=filters)


def free(present, smaller):
    """Nothing is lost."""
    return 0.0


def needs(parameters, points=5.0):
    """What is lost of accuracy grows with the size that is missing."""

    def lost(model):
        return points * math.log(max(1.0, parameters / model.count_params()))

    return lambda present, smaller: lost(present) - lost(smaller)


def test_what_costs_nothing_goes_in_a_few_moves():
    dense = cnn()
    outcome = run(auto.AutoPruning(), dense, rounds=ROUNDS, points=free)
    assert outcome.actions() == ["move", "move", "move", "stop"]
    assert outcome.model.count_params() < 0.1 * dense.count_params()
    moves = outcome.rounds(base.Action.MOVE)
    assert moves == auto.AutoPruning().decision_rounds(ROUNDS)
    assert all(size >= later for size, later in zip(outcome.sizes, outcome.sizes[1:]))


def test_filters_and_ranks_go_together():
    outcome = run(auto.AutoPruning(), cnn(), rounds=ROUNDS, points=free)
    moves = [d for _, d in outcome.decisions if d.action is base.Action.MOVE]
    assert any(move.structure.removed for move in moves)
    assert any(move.structure.factorized for move in moves)
    only = run(auto.AutoPruning(factorize=False), cnn(), rounds=ROUNDS, points=free)
    assert not any(d.structure.factorized for _, d in only.decisions)


def test_a_network_shrinks_to_about_what_the_task_needs():
    dense = cnn()
    needed = 0.4 * dense.count_params()
    outcome = run(auto.AutoPruning(), dense, rounds=ROUNDS, points=needs(needed, 20.0))
    assert 0.6 * needed < outcome.model.count_params() < 1.6 * needed


def test_a_larger_tolerance_gives_a_smaller_network():
    sizes = [
        run(
            auto.AutoPruning(tolerance=tolerance),
            cnn(),
            rounds=ROUNDS,
            points=needs(1.0 * cnn().count_params(), 4.0),
        ).model.count_params()
        for tolerance in (0.1, 1.0, 5.0)
    ]
    assert sizes[0] > sizes[1] > sizes[2]


def test_what_loses_too_much_is_refused_and_nothing_changes():
    model = cnn()
    outcome = run(auto.AutoPruning(), model, rounds=ROUNDS, points=lambda *_: -50.0)
    assert set(outcome.actions()) == {"refuse", "stop"}
    assert outcome.model is model


def test_noise_holds_back_and_is_not_booked():
    certain = run(auto.AutoPruning(), cnn(), rounds=ROUNDS, points=free)
    unsure = run(auto.AutoPruning(), cnn(), rounds=ROUNDS, points=free, error=50.0)
    assert unsure.model.count_params() == cnn().count_params() > certain.model.count_params()
    assert certain.state.spent == 0.0


def test_what_is_booked_has_a_sign_and_counts_more_the_later_it_is_lost():
    gains = iter([-1.0] * 2 + [1.0] * 2 + [-1.0] * 2)
    outcome = run(auto.AutoPruning(), cnn(), rounds=ROUNDS, points=lambda *_: next(gains))
    ends = [(moved + 3) / ROUNDS for moved in outcome.rounds(base.Action.MOVE)]
    assert len(ends) == 3
    assert outcome.state.spent == pytest.approx(ends[0] - ends[1] + ends[2])


def test_a_network_that_fell_apart_is_never_chosen():
    model = cnn()
    outcome = run(auto.AutoPruning(), model, rounds=ROUNDS, points=lambda *_: math.nan)
    assert outcome.model is model


@pytest.mark.parametrize("what", ["parameters", "flops", "bytes"])
def test_a_budget_is_met_from_below_without_a_race(what):
    network = surgery.Network(cnn())
    value = 0.2 * getattr(network.cost, what)
    budget = budget_lib.counted(what, value)
    outcome = run(auto.AutoPruning(budget=budget), network.model, rounds=ROUNDS)
    found = getattr(surgery.Network(outcome.model).cost, what)
    assert 0.97 * value < found <= value
    assert not outcome.asked
    with pytest.raises(UserError, match=f"pruning.target_{what}: expected at least"):
        auto.AutoPruning(budget=budget_lib.counted(what, 1)).initialize(network)


@pytest.mark.parametrize("rounds", [1, 2, 5, 30])
def test_short_runs_decide_within_their_rounds(rounds):
    outcome = run(auto.AutoPruning(), cnn((4, 6)), rounds=rounds, points=free)
    assert all(now + request.rounds <= rounds for now, request in outcome.asked)


@pytest.mark.parametrize("multiple", [4, 8])
def test_widths_and_ranks_stay_multiples(multiple):
    outcome = run(auto.AutoPruning(round_to=multiple), cnn(), rounds=ROUNDS, points=free)
    widths = [group.channels for group in surgery.Network(outcome.model).prunable]
    assert all(width % multiple == 0 for width in widths), widths
    assert outcome.model.count_params() < cnn().count_params()


def test_the_tolerance_of_the_configuration_counts():
    settings = config_lib.default().pruning
    settings.tolerance = 3.0
    assert methods.create("auto", settings)._tolerance == 3.0

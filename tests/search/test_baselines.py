"""The methods that auto is compared with: the paper's rule and uniform pruning; the registry."""

import dataclasses

import numpy as np
import pytest
from search_loop import run

from tff_autoprune import config as config_lib
from tff_autoprune import models, surgery
from tff_autoprune import settings as settings_lib
from tff_autoprune.errors import UserError
from tff_autoprune.search import base, methods, paper, uniform


def cnn(filters=(8, 12)):
    return models.build("cnn", input_shape=(20, 20, 1), num_classes=5, seed=1, filters=filters)


def observe(method, state, model, round_num):
    """One step of a method that asks nobody."""
    observation = base.Observation(
        round_num=round_num,
        total_rounds=100,
        network=surgery.Network(model),
        train_metrics={"loss": 1.0} if round_num else {},
    )
    return base.decide(method, state, observation, answer=None)


def test_the_papers_bounds_have_two_sides():
    scores = np.array([1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 9.0, 1.0, -7.0])
    np.testing.assert_array_equal(paper.outside_bounds(scores, 1.5), [6, 8])
    np.testing.assert_array_equal(paper.outside_bounds(scores, 2.9), [])
    np.testing.assert_array_equal(paper.outside_bounds(np.ones(4), 2.0), [])


def test_the_paper_never_removes_all_filters():
    assert len(paper.outside_bounds(np.array([0.0, 1.0]), 0.5)) == 1


def test_the_paper_cuts_by_the_l1_norm_and_starts_anew():
    model = cnn()
    weights = model.get_weights()
    weights[0][..., 3] *= 30
    weights[2][..., 7] = 0
    model.set_weights(weights)
    method = paper.PaperPruning(k=2.5, rounds=50, patience=3)
    state, decisions = observe(method, method.initialize(surgery.Network(model)), model, 0)
    assert [d.action for d in decisions] == [base.Action.MOVE]
    assert decisions[0].reinitialize
    assert decisions[0].structure.removed == {"conv_1": (3,), "conv_2": (7,)}
    assert state == paper.PaperState()


@pytest.mark.parametrize("patience", [1, 3])
def test_the_paper_stops_after_rounds_without_a_removal(patience):
    method = paper.PaperPruning(k=100.0, rounds=50, patience=patience)
    outcome = run(method, cnn(), rounds=60)
    assert outcome.actions() == ["stop"]
    assert outcome.rounds(base.Action.STOP) == [patience]


def test_the_paper_stops_after_its_rounds():
    method = paper.PaperPruning(k=1.2, rounds=2, patience=3)
    outcome = run(method, cnn(), rounds=60)
    assert outcome.rounds(base.Action.STOP) == [2]
    assert outcome.rounds(base.Action.MOVE) == [0, 1]


def test_uniform_cuts_the_same_share_once_and_inherits():
    model = cnn()
    method = uniform.UniformPruning(fraction=0.5, round_num=7)
    outcome = run(method, model, rounds=20)
    assert outcome.rounds(base.Action.MOVE) == [7]
    assert outcome.actions() == ["move", "stop"]
    groups = [group for group in surgery.find_filter_groups(outcome.model) if group.prunable]
    assert [group.channels for group in groups] == [4, 6]
    kept = {tuple(np.round(k.ravel(), 5)) for k in np.moveaxis(model.get_weights()[0], -1, 0)}
    left = {
        tuple(np.round(k.ravel(), 5)) for k in np.moveaxis(outcome.model.get_weights()[0], -1, 0)
    }
    assert left < kept


def test_uniform_can_factorize_too():
    model = models.build("cnn", input_shape=(28, 28, 1), num_classes=62, seed=0)
    method = uniform.UniformPruning(fraction=0.5, round_num=1, factorize=True)
    outcome = run(method, model, rounds=3)
    plain = run(uniform.UniformPruning(fraction=0.5, round_num=1), model, rounds=3)
    assert {"conv_2_rank", "logits_rank"} <= {layer.name for layer in outcome.model.layers}
    assert outcome.model.count_params() < 0.6 * plain.model.count_params()
    assert outcome.model.get_layer("conv_2").filters == plain.model.get_layer("conv_2").filters


@pytest.mark.parametrize("share", [0.7, 0.2])
def test_uniform_can_match_a_number_of_parameters(share):
    model = models.build("cnn", input_shape=(28, 28, 1), num_classes=62, seed=0)
    target = int(share * model.count_params())
    method = uniform.UniformPruning(fraction=0.5, round_num=1, target_parameters=target)
    outcome = run(method, model, rounds=3)
    assert 0.9 * target < outcome.model.count_params() <= target
    with pytest.raises(UserError, match="at least 176"):
        method = uniform.UniformPruning(fraction=0.5, round_num=1, target_parameters=9)
        run(method, model, rounds=3)


@pytest.mark.parametrize("name", methods.names())
def test_every_method_of_the_configuration_exists(name):
    settings = config_lib.default().pruning
    settings.target_parameters = 1000
    method = methods.create(name, settings)
    state = method.initialize(surgery.Network(cnn((16, 24))))
    assert method.state_from_json(dataclasses.asdict(state)) == state
    assert observe(method, state, cnn((16, 24)), 0)[1] is not None
    assert method.controls(state).penalty == 0


@pytest.mark.parametrize("name", methods.IMPORTANCES)
def test_every_importance_can_drive_a_run(name):
    settings = config_lib.default().pruning
    settings.importance = name
    model = models.build("resnet", input_shape=(20, 20, 1), num_classes=5, normalization="batch")
    for method in ("auto", "uniform"):
        outcome = run(methods.create(method, settings), model, rounds=40, points=lambda *_: 0.0)
        assert outcome.model.count_params() < model.count_params()


def test_an_unknown_method_is_named():
    assert set(methods.names()) == set(settings_lib.METHODS)
    assert set(methods.IMPORTANCES) == set(settings_lib.IMPORTANCES)
    with pytest.raises(UserError, match="found 'magic'"):
        methods.create("magic", config_lib.default().pruning)

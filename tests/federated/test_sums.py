"""The server sees sums over enough clients only, secure or noised where that is promised."""

from __future__ import annotations

import functools

import dp_accounting
import numpy as np
import pytest
from dp_accounting import rdp
from federated_doubles import few_clients, make_datasets, make_model, weights_of
from tensorflow_federated.python.core.test import static_assert

from tff_autoprune import federated
from tff_autoprune.errors import UserError
from tff_autoprune.federated import aggregators, comparison, privacy, process
from tff_autoprune.federated.stateless import StatelessModel

_SIZES = (9, 8, 7)


def _engine(name, model=None, **fields):
    aggregator = federated.AggregatorSettings(name=name, clients_per_round=len(_SIZES), **fields)
    settings = few_clients(aggregator, client_learning_rate=0.01)
    return federated.Engine(model or make_model(normalization="batch"), settings)


def _computations(engine):
    """Everything that an engine builds, by name."""
    stateless, task = StatelessModel(engine.model), engine.task
    reporting = aggregators.build_reports(engine.settings.aggregator, task)
    return {
        "round": engine.process.next,
        "evaluation": process.build_evaluation(stateless, task, reporting),
        "comparison": comparison.build_comparison(
            stateless, task, reporting, [StatelessModel(make_model((3, 4)))]
        ),
    }


def test_secure_reveals_nothing_but_secure_sums():
    for name, computation in _computations(_engine("secure")).items():
        static_assert.assert_not_contains_unsecure_aggregation(computation), name
        static_assert.assert_contains_secure_aggregation(computation)


def test_the_static_check_can_fail():
    computations = _computations(_engine("mean"))
    for computation in computations.values():
        with pytest.raises(AssertionError):
            static_assert.assert_not_contains_unsecure_aggregation(computation)


def test_secure_sums_are_the_sums():
    plain, secure = (_engine(name, make_model()) for name in ("mean", "secure"))
    datasets = make_datasets(_SIZES)
    expected = plain.evaluate(plain.initialize(), datasets)
    found = secure.evaluate(secure.initialize(), datasets)
    assert found == pytest.approx(expected, rel=1e-5)
    assert (found["accuracy"], found["num_examples"]) == (
        expected["accuracy"],
        expected["num_examples"],
    )


@pytest.mark.parametrize("what", ["next", "evaluate", "compare"])
@pytest.mark.parametrize("aggregator", ["mean", "secure"])
def test_nothing_is_summed_over_too_few_clients(what, aggregator):
    engine = federated.Engine(
        make_model(), federated.Settings(aggregator=federated.AggregatorSettings(name=aggregator))
    )
    ask = getattr(engine, what)
    if what == "compare":
        ask = functools.partial(ask, models=[make_model()])
    state = None  # Nothing is sent, so nothing is read.
    with pytest.raises(UserError, match=r"at least 3 clients.*found 2.*aggregator.min_clients=2"):
        ask(state, client_datasets=make_datasets((9, 8)))
    with pytest.raises(UserError, match="at least one client, found none"):
        ask(state, client_datasets=[])


# ---------------------------------------------------------------- differential privacy


@pytest.fixture(scope="module")
def noised():
    """By seed of the noise: an engine, a round and evaluations of its initial state."""
    found = {}
    for seed in (0, 1):
        engine = _engine("dp", make_model(), noise_multiplier=0.5, seed=seed)
        state = engine.initialize()
        datasets = make_datasets(_SIZES)
        found[seed] = engine, engine.next(state, datasets), engine.evaluate(state, datasets)
    return found


def test_every_figure_and_weight_depends_on_the_noise(noised):
    (_, round_0, seen_0), (_, round_1, seen_1) = noised[0], noised[1]
    for one, other in zip(weights_of(round_0.state), weights_of(round_1.state)):
        assert not np.isclose(one, other, rtol=1e-6, atol=0).any()
    for one, other in ((round_0.metrics, round_1.metrics), (seen_0, seen_1)):
        assert set(one) == set(other) == {"loss", "accuracy", "metric", "num_examples"}
        for name in ("loss", "accuracy"):
            assert one[name] != other[name]
        # Not what the clients have, but their number, which the server knows.
        assert one["num_examples"] == other["num_examples"] == len(_SIZES)


def test_noise_is_repeated_for_the_same_question_only(noised):
    engine, _, seen = noised[0]
    state, datasets = engine.initialize(), make_datasets(_SIZES)
    assert engine.evaluate(state, datasets) == seen
    assert engine.evaluate(state, datasets, question=1)["loss"] != seen["loss"]
    later = noised[0][1].state._replace(global_model_weights=state.global_model_weights)
    assert engine.evaluate(later, datasets)["loss"] != seen["loss"]


def test_noise_on_reports_has_the_scale_that_is_accounted_for():
    multiplier = 0.25
    engine = _engine("dp", make_model(), report_noise_multiplier=multiplier)
    reporting = aggregators.build_reports(engine.settings.aggregator, engine.task)
    sums = {"loss_sum": np.float32(40), "metric_sum": np.float32(3), "num_examples": np.float32(9)}
    sent = {name: float(value) for name, value in reporting.prepare(sums).items()}
    # Means of a client, which one client's data moves by 5 and 1 at most.
    assert sent == pytest.approx({"loss_sum": 40 / 9, "metric_sum": 1 / 3, "num_examples": 1})
    bad = dict(sums, loss_sum=np.float32(np.nan))
    assert float(reporting.prepare(bad)["loss_sum"]) == 5
    draws = [reporting.release(sums, np.array([0, 2, i], np.int32)) for i in range(400)]
    stddev = multiplier * 2**0.5
    for name, bound in (("loss_sum", 5), ("metric_sum", 1)):
        noise = np.array([float(draw[name]) for draw in draws]) - sums[name]
        assert noise.std() == pytest.approx(stddev * bound, rel=0.15)
        assert abs(noise.mean()) < 4 * stddev * bound / 20
    assert all(draw["num_examples"] == 9 for draw in draws)


def test_public_clients_are_seen_as_they_are(noised):
    engine = noised[0][0]
    plain = _engine("mean", make_model())
    datasets = make_datasets(_SIZES)
    expected = plain.evaluate(plain.initialize(), datasets)
    assert engine.evaluate(engine.initialize(), datasets, public=True) == pytest.approx(expected)


def test_what_no_noise_covers_is_refused(noised):
    engine = noised[0][0]
    with pytest.raises(UserError, match=r"with 'dp' there is no comparison.*uniform"):
        engine.compare(engine.initialize(), make_datasets(_SIZES), [make_model()])


def test_epsilon_is_that_of_all_that_is_released():
    settings = federated.AggregatorSettings(
        name="dp", noise_multiplier=2.0, report_noise_multiplier=4.0, clients_per_round=50
    )
    replace_one = dp_accounting.NeighboringRelation.REPLACE_ONE
    accountant = rdp.RdpAccountant(neighboring_relation=replace_one)
    # Updates with half the multiplier, and reports: two Gaussians on the same clients.
    both = dp_accounting.ComposedDpEvent(
        [dp_accounting.GaussianDpEvent(1.0), dp_accounting.GaussianDpEvent(4.0)]
    )
    accountant.compose(both, 7)
    found = privacy.epsilon(settings, rounds=7, num_clients=50)
    assert found == pytest.approx(accountant.get_epsilon(settings.delta))
    accountant = rdp.RdpAccountant(neighboring_relation=replace_one)
    accountant.compose(dp_accounting.GaussianDpEvent(4.0), 6)
    assert privacy.held_out_epsilon(settings, questions=6) == pytest.approx(
        accountant.get_epsilon(settings.delta)
    )
    assert privacy.held_out_epsilon(settings, questions=0) == 0
    silent = federated.AggregatorSettings(
        name="dp", report_noise_multiplier=0.0, clients_per_round=50
    )
    assert privacy.epsilon(silent, rounds=1, num_clients=100) == float("inf")
    assert privacy.held_out_epsilon(silent, questions=1) == float("inf")

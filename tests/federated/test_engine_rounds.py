"""Rounds: weighting, faults, penalty, bytes."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from federated_doubles import (
    assert_same_bits,
    few_clients,
    make_arrays,
    make_datasets,
    make_model,
    weights_of,
)

from tff_autoprune import federated
from tff_autoprune.errors import UserError


def _engine(aggregator="mean", model=None, **fields):
    settings = few_clients(
        client_optimizer="sgd",
        client_learning_rate=0.1,
        aggregator=federated.AggregatorSettings(name=aggregator, clients_per_round=2),
        **fields,
    )
    return federated.Engine(model or make_model(), settings)


def _dataset(images, labels):
    return tf.data.Dataset.from_tensor_slices((images, labels)).batch(8)


def _poisoned(value):
    images, labels = make_arrays(8, seed=77)
    images[0, 0, 0, 0] = value
    return _dataset(images, labels)


@pytest.mark.parametrize(("weighting", "weights"), [("examples", (12, 4)), ("uniform", (1, 1))])
def test_clients_are_weighted(weighting, weights):
    engine = _engine(client_weighting=weighting)
    state = engine.initialize()
    datasets = make_datasets((12, 4))
    alone = [weights_of(engine.next(state, [dataset]).state) for dataset in datasets]
    together = weights_of(engine.next(state, datasets).state)
    for a, b, found in zip(*alone, together):
        expected = np.average([a, b], axis=0, weights=weights)
        np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("aggregator", ["mean", "robust", "secure", "compressed"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_client_with_values_that_are_not_finite_is_left_out(aggregator, value):
    engine = _engine(aggregator)
    state = engine.initialize()
    good = make_datasets((16,))
    result = engine.next(state, [*good, _poisoned(value)])
    assert (result.clients, result.failed_clients, result.failed) == (2, 1, False)
    assert result.metrics["num_examples"] == 16
    assert np.isfinite(result.metrics["loss"])
    assert all(np.all(np.isfinite(w)) for w in weights_of(result.state))
    if aggregator == "mean":
        expected = engine.next(state, good)
        assert_same_bits(weights_of(result.state), weights_of(expected.state))


@pytest.mark.parametrize("aggregator", ["mean", "robust", "secure", "compressed"])
def test_a_cohort_that_fails_whole_says_so_and_harms_nothing(aggregator):
    engine = _engine(aggregator, model=make_model(normalization="batch"))
    state = engine.initialize()
    result = engine.next(state, [_poisoned(np.nan), _poisoned(np.inf)])
    assert result.failed and result.failed_clients == 2
    assert all(np.all(np.isfinite(w)) for w in weights_of(result.state))
    if aggregator != "dp":
        assert_same_bits(weights_of(state), weights_of(result.state))
    retried = engine.next(result.state, make_datasets((16, 8)))
    assert not retried.failed


@pytest.mark.parametrize("aggregator", ["robust", "secure", "compressed"])
def test_a_huge_update_hardly_moves_a_guarded_model(aggregator):
    engine = _engine(aggregator)
    state = engine.initialize()
    for _ in range(2):
        state = engine.next(state, make_datasets((16, 16))).state
    images, labels = make_arrays(8, seed=5)
    huge = _dataset(images * 1e4, labels)
    moved = engine.next(state, [*make_datasets((16,)), huge]).state
    largest = max(np.abs(a - b).max() for a, b in zip(weights_of(state), weights_of(moved)))
    plain = _engine()
    unguarded = plain.next(plain.initialize(), [*make_datasets((16,)), huge]).state
    harm = max(
        np.abs(a - b).max() for a, b in zip(weights_of(plain.initialize()), weights_of(unguarded))
    )
    assert largest < 2 < 20 < harm


def _trained(model, **settings):
    """Returns the weights at first and after three rounds."""
    engine = _engine(model=model, **settings)
    state = engine.initialize()
    initial = weights_of(state)
    for _ in range(3):
        state = engine.next(state, make_datasets((16, 8))).state
    return initial, weights_of(state)


def _assert_trained_alike(initial, exact, rounded):
    for start, one, other in zip(initial, exact, rounded):
        assert other.dtype == np.float32
        assert np.abs(other - one).max() <= 0.1 * np.abs(one - start).max() + 1e-3


@pytest.mark.parametrize("frozen", [False, True])
def test_a_mixed_precision_model_trains_like_a_float32_one(frozen):
    trained = []
    for policy in ("float32", "mixed_bfloat16"):
        tf.keras.mixed_precision.set_global_policy(policy)
        try:
            model = make_model(normalization="batch")
        finally:
            tf.keras.mixed_precision.set_global_policy("float32")
        first = next(layer for layer in model.layers if layer.weights)
        first.trainable = not frozen
        initial, after = _trained(model)
        trained.append(after)
    _assert_trained_alike(initial, *trained)


@pytest.mark.parametrize("normalization", [None, "batch"])
def test_clients_that_compute_in_bfloat16_train_like_others(normalization):
    model = make_model(normalization=normalization)
    initial, exact = _trained(model)
    _, rounded = _trained(model, client_precision="bfloat16")
    _assert_trained_alike(initial, exact, rounded)
    assert any((a != b).any() for a, b in zip(exact, rounded))


def test_a_client_with_one_example_counts_once():
    engine = _engine()
    result = engine.next(engine.initialize(), make_datasets((1, 8)))
    assert result.metrics["num_examples"] == 9 and not result.failed


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
def test_the_learning_rate_follows_its_schedule(schedule):
    datasets = make_datasets((16,), batch_size=16)
    engine = _engine(client_learning_rate_schedule=schedule, rounds=5)
    state = engine.initialize()
    steps = []
    for _ in range(5):
        after = engine.next(state, datasets).state
        distance = np.sqrt(
            sum(np.sum((a - b) ** 2) for a, b in zip(weights_of(state), weights_of(after)))
        )
        # Always from the same weights, so that only the rate differs.
        steps.append(distance)
        state = after._replace(global_model_weights=state.global_model_weights)
    expected = {
        "constant": [1, 1, 1, 1, 1],
        "linear": [1, 0.75025, 0.5005, 0.25075, 0.001],
        "cosine": [1, 0.8537, 0.5005, 0.1473, 0.001],
    }[schedule]
    np.testing.assert_allclose(np.array(steps) / steps[0], expected, atol=2e-3)


@pytest.mark.parametrize(("epsilon", "least", "most"), [(1e-7, 0.99, 1.01), (1e-1, 0.0, 0.5)])
def test_a_clients_epsilon_holds_back_labels_that_it_does_not_have(epsilon, least, most):
    settings = few_clients(
        client_optimizer="adam", client_learning_rate=0.01, client_epsilon=epsilon
    )
    engine = federated.Engine(make_model(), settings)
    state = engine.initialize()
    images, labels = make_arrays(8, seed=0)
    after = engine.next(state, [_dataset(images, np.zeros_like(labels))]).state
    bias = np.abs(weights_of(after)[-1] - weights_of(state)[-1])
    assert least < bias[1:].max() / bias[0] < most


@pytest.mark.parametrize("server_optimizer", ["sgd", "adam", "yogi"])
def test_the_learning_rate_scale_multiplies_the_step(server_optimizer):
    engine = _engine(server_optimizer=server_optimizer)
    state = engine.initialize()
    datasets = make_datasets((8,))
    full, half, none = (
        weights_of(engine.next(engine.set_learning_rate_scale(state, scale), datasets).state)
        for scale in (1.0, 0.5, 0.0)
    )
    assert_same_bits(none, weights_of(state))
    for start, a, b in zip(none, full, half):
        np.testing.assert_allclose(b - start, (a - start) / 2, atol=1e-6)


def test_the_penalty_is_added_to_the_loss_and_changes_without_retracing():
    traces = []

    def regularizer_fn(model):
        assert len(model.trainable_weights) == 6

        def regularizer(trainable):
            traces.append(1)
            return tf.add_n([tf.reduce_sum(tf.square(w)) for w in trainable])

        return regularizer

    settings = few_clients(client_optimizer="sgd", client_learning_rate=0.1)
    engine = federated.Engine(make_model(), settings, regularizer_fn=regularizer_fn)
    state = engine.initialize()
    datasets = make_datasets((8,))
    without = weights_of(engine.next(state, datasets).state)
    count = len(traces)
    with_penalty = weights_of(engine.next(engine.set_penalty(state, 0.25), datasets).state)
    assert len(traces) == count
    for start, plain, shrunk in zip(weights_of(state), without, with_penalty):
        # One step of SGD: the gradient of 0.25 |w|^2 is 0.5 w.
        np.testing.assert_allclose(shrunk, plain - 0.1 * 0.5 * start, atol=1e-6)


def test_a_round_without_clients_is_refused():
    engine = _engine()
    with pytest.raises(UserError, match="at least one client"):
        engine.next(engine.initialize(), [])


def test_a_model_of_probabilities_trains_like_one_of_logits():
    results = [
        _engine(model=make_model(softmax=softmax)).next(
            _engine(model=make_model(softmax=softmax)).initialize(), make_datasets((16, 8))
        )
        for softmax in (False, True)
    ]
    for logits, probabilities in zip(*(weights_of(r.state) for r in results)):
        np.testing.assert_allclose(logits, probabilities, atol=1e-5)


def test_bytes_are_counted():
    engine = _engine(model=make_model(normalization="batch"))
    result = engine.next(engine.initialize(), make_datasets((8, 8)))
    values = sum(w.size for w in weights_of(result.state))
    assert result.download_bytes == result.upload_bytes == 2 * 4 * values


def test_compression_sends_a_byte_for_a_value_of_a_large_tensor():
    engine = _engine("compressed", model=make_model((16, 40)))
    result = engine.next(engine.initialize(), make_datasets((8, 8)))
    large = 3 * 3 * 16 * 40
    small = sum(w.size for w in weights_of(result.state)) - large
    assert result.upload_bytes == 2 * (large + 8 + 4 * small)
    assert result.download_bytes == 2 * 4 * (large + small)


class _Halve(tf.keras.layers.Layer):
    """A user's own layer that keeps a weight in a list."""

    def build(self, shape):
        self.factors = [self.add_weight(name="factor", shape=shape[-1:], initializer="ones")]

    def call(self, inputs):
        return inputs * self.factors[0] / 2.0


def test_layers_of_the_users_own_and_dropout_train():
    tf.keras.utils.set_random_seed(0)
    model = tf.keras.Sequential(
        [
            tf.keras.layers.Input((8, 8, 1)),
            tf.keras.layers.Flatten(),
            _Halve(),
            tf.keras.layers.Dropout(0.2),
            tf.keras.layers.Dense(4),
        ]
    )
    engine = federated.Engine(model, few_clients())
    state = engine.initialize()
    after = engine.next(state, make_datasets((16, 8))).state
    assert all(np.any(a != b) for a, b in zip(weights_of(state), weights_of(after)))
    repeated = engine.next(state, make_datasets((16, 8))).state
    assert_same_bits(weights_of(after), weights_of(repeated))

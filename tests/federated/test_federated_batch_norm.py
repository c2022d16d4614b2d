"""Statistics of batch normalization reach the server as they should."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from federated_doubles import few_clients, make_arrays, make_model

from tff_autoprune import federated
from tff_autoprune.federated import batch_norm

_STATISTICS = batch_norm.Statistics(means=(0,), variances=(1,))


def test_the_statistics_of_clients_combine_to_those_of_their_pooled_values():
    generator = np.random.default_rng(0)
    clients = [generator.normal(mean, 1 + mean, (count, 3)) for mean, count in ((0, 40), (3, 10))]
    pooled = np.concatenate(clients)
    old = [tf.constant([0.5, -1.0, 2.0], tf.float64), tf.constant([1.0, 4.0, 0.1], tf.float64)]
    updates = [
        batch_norm.client_update(_STATISTICS, old, [tf.constant(x.mean(0)), tf.constant(x.var(0))])
        for x in clients
    ]
    mean_update = [np.average(parts, axis=0, weights=(40, 10)) for parts in zip(*updates)]
    mean, variance = batch_norm.server_update(_STATISTICS, old, mean_update)
    np.testing.assert_allclose(mean, pooled.mean(0), rtol=1e-12)
    np.testing.assert_allclose(variance, pooled.var(0), rtol=1e-12)


def test_a_variance_never_becomes_negative():
    old = [tf.zeros(1), tf.ones(1)]
    _, variance = batch_norm.server_update(_STATISTICS, old, [tf.constant([2.0]), tf.zeros(1)])
    assert variance.numpy() == [0.0]


def _clients():
    """Two clients whose images differ in brightness and contrast."""
    datasets = []
    for seed, (scale, shift) in enumerate([(1.0, 0.0), (0.2, 3.0)]):
        images, labels = make_arrays(32, seed=seed)
        pair = ((scale * images + shift).astype(np.float32), labels)
        datasets.append(tf.data.Dataset.from_tensor_slices(pair).batch(32).repeat(12))
    return datasets


@pytest.mark.parametrize("rule", ["aggregate", "average"])
def test_the_first_layers_statistics_reach_the_server(rule):
    model = make_model(normalization="batch")
    # The clients' weights stay as they are, so that their statistics are known.
    settings = few_clients(batch_norm=rule, client_learning_rate=1e-12)
    engine = federated.Engine(model, settings)
    result = engine.next(engine.initialize(), _clients())
    server = engine.keras_model(result.state)
    convolution = tf.keras.Model(model.inputs, model.layers[1].output)
    values = [
        convolution(images).numpy().reshape(-1, 4)
        for images, _ in (next(iter(d)) for d in _clients())
    ]
    norm = next(x for x in server.layers if isinstance(x, tf.keras.layers.BatchNormalization))
    pooled = np.concatenate(values)
    expected = pooled.var(0) if rule == "aggregate" else np.mean([v.var(0) for v in values], 0)
    np.testing.assert_allclose(norm.moving_mean, pooled.mean(0), rtol=2e-2, atol=1e-3)
    np.testing.assert_allclose(norm.moving_variance, expected, rtol=2e-2, atol=1e-3)


def test_the_server_classifies_as_the_clients_do():
    engine = federated.Engine(
        make_model(normalization="batch"), few_clients(client_learning_rate=0.01)
    )
    state = engine.initialize()
    datasets = [
        tf.data.Dataset.from_tensor_slices(make_arrays(64, seed=i)).batch(16).repeat(4)
        for i in range(3)
    ]
    for _ in range(6):
        result = engine.next(state, datasets)
        state = result.state
    assert result.metrics["accuracy"] > 0.8
    assert engine.evaluate(state, datasets)["accuracy"] > result.metrics["accuracy"] - 0.1

"""The engine's numbers are those of stock TFF."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff
from federated_doubles import few_clients, make_datasets, stop_workers, weights_of

from tff_autoprune import federated, models, runtime

_SHAPE = (28, 28, 1)
_CLASSES = 10
_NETWORKS = {
    "cnn": {"filters": (6, 10)},
    "resnet": {"normalization": "group", "filters": (4, 8, 8)},
    "inception": {},
}
_CLIENT_OPTIMIZERS = {
    "sgd": lambda: tff.learning.optimizers.build_sgdm(0.05),
    "adam": lambda: tff.learning.optimizers.build_adam(0.003),
}
_RATES = {"sgd": 0.05, "adam": 0.003}


def _build(name):
    return models.build(name, input_shape=_SHAPE, num_classes=_CLASSES, seed=3, **_NETWORKS[name])


def _stock_process(name, optimizer, datasets):
    def model_fn():
        return tff.learning.models.from_keras_model(
            _build(name),
            loss=tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            input_spec=datasets[0].element_spec,
            metrics=[tf.keras.metrics.SparseCategoricalAccuracy()],
        )

    return tff.learning.algorithms.build_weighted_fed_avg(
        model_fn, client_optimizer_fn=_CLIENT_OPTIMIZERS[optimizer]()
    )


def _stock_rounds(name, optimizer, datasets, rounds):
    process = _stock_process(name, optimizer, datasets)
    model = _build(name)
    state = process.set_model_weights(
        process.initialize(), tff.learning.models.ModelWeights.from_model(model)
    )
    metrics = []
    for _ in range(rounds):
        output = process.next(state, datasets)
        state = output.state
        metrics.append(output.metrics["client_work"]["train"])
    return state, metrics


def _assert_equivalent(name, optimizer, stock):
    datasets = make_datasets((20, 9, 1), image_shape=_SHAPE, num_classes=_CLASSES)
    stock_state, stock_metrics = stock
    engine = federated.Engine(
        _build(name),
        few_clients(client_optimizer=optimizer, client_learning_rate=_RATES[optimizer]),
    )
    state = engine.initialize()
    start = weights_of(state)
    for expected in stock_metrics:
        result = engine.next(state, datasets)
        state = result.state
        assert result.metrics["loss"] == pytest.approx(expected["loss"], abs=1e-5)
        assert result.metrics["accuracy"] == pytest.approx(
            expected["sparse_categorical_accuracy"], abs=1e-6
        )
        assert result.metrics["num_examples"] == expected["num_examples"] == 30
    moved = 0.0
    for ours, theirs, before in zip(weights_of(state), weights_of(stock_state), start):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)
        moved = max(moved, np.abs(ours - before).max())
    assert moved > 1e-3


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("name", list(_NETWORKS))
def test_three_rounds_equal_those_of_build_weighted_fed_avg(name, optimizer):
    datasets = make_datasets((20, 9, 1), image_shape=_SHAPE, num_classes=_CLASSES)
    _assert_equivalent(name, optimizer, _stock_rounds(name, optimizer, datasets, 3))


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("name", list(_NETWORKS))
def test_three_rounds_equal_those_of_the_stock_runtime(name, optimizer):
    datasets = make_datasets((20, 9, 1), image_shape=_SHAPE, num_classes=_CLASSES)
    tff.backends.native.set_sync_local_cpp_execution_context()
    try:
        stock = _stock_rounds(name, optimizer, datasets, 3)
    finally:
        stop_workers()
        runtime.start()
    _assert_equivalent(name, optimizer, stock)


def _least_loss(model, dataset):
    """Returns the least that dividing the logits by some number makes of the loss."""
    images, labels = next(iter(dataset.unbatch().batch(1000)))
    logits = model(images)
    return min(
        float(tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits / t)))
        for t in np.geomspace(0.5, 4.0, 200)
    )


def test_evaluation_equals_that_of_keras():
    model = _build("cnn")
    datasets = make_datasets((20, 9, 1), image_shape=_SHAPE, num_classes=_CLASSES)
    engine = federated.Engine(model, few_clients())
    found = engine.evaluate(engine.initialize(), datasets)
    model.compile(
        loss=tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"]
    )
    together = datasets[0].concatenate(datasets[1]).concatenate(datasets[2])
    loss, accuracy = model.evaluate(together.unbatch().batch(30), verbose=0)
    assert found == {
        "loss": pytest.approx(loss, abs=1e-5),
        "calibrated_loss": pytest.approx(_least_loss(model, together), rel=2e-3),
        "accuracy": pytest.approx(accuracy, abs=1e-6),
        "metric": pytest.approx(accuracy, abs=1e-6),
        "num_examples": 30,
    }

"""A cut reuses what was traced, unless that would give wrong numbers."""

from __future__ import annotations

import pytest
import tensorflow as tf
from federated_doubles import (
    IMAGE_SHAPE,
    NUM_CLASSES,
    assert_same_bits,
    make_datasets,
    make_model,
    weights_of,
)

from tff_autoprune import federated

_SIZES = (9, 8)


def _settings(aggregator="mean"):
    return federated.Settings(
        client_learning_rate=0.01,
        server_optimizer="yogi",
        aggregator=federated.AggregatorSettings(name=aggregator, clients_per_round=2),
    )


class _CountsTraces:
    """An engine's regularizer, which is only called while a client's work is traced."""

    def __init__(self):
        self.traces = 0

    def __call__(self, model):
        def regularizer(trainable):
            self.traces += 1
            return tf.zeros([])

        return regularizer


def _cut_and_train(wide, narrow, aggregator="mean"):
    """Trains, cuts, trains; returns traces before and after the cut, and how the cut run ends."""
    counter = _CountsTraces()
    engine = federated.Engine(wide, _settings(aggregator), regularizer_fn=counter)
    state = engine.next(engine.initialize(), make_datasets(_SIZES)).state
    before = counter.traces
    state = engine.replace_model(state, narrow)
    after = engine.next(state, make_datasets(_SIZES))
    return before, counter.traces, after, engine.evaluate(after.state, make_datasets((5,)))


def _assert_like_new(narrow, after, evaluation):
    new = federated.Engine(narrow, _settings())
    expected = new.next(new.initialize(), make_datasets(_SIZES))
    assert (after.metrics, after.upload_bytes) == (expected.metrics, expected.upload_bytes)
    assert_same_bits(weights_of(after.state), weights_of(expected.state))
    assert evaluation == pytest.approx(new.evaluate(expected.state, make_datasets((5,))))


def _group_norm(filters):
    """Groups of 2 channels; a Flatten and a Dense layer on top."""
    tf.keras.utils.set_random_seed(3)
    return tf.keras.Sequential(
        [
            tf.keras.layers.Input(IMAGE_SHAPE),
            tf.keras.layers.Conv2D(filters, 3, padding="same"),
            tf.keras.layers.GroupNormalization(filters // 2),
            tf.keras.layers.DepthwiseConv2D(3, activation="relu"),
            tf.keras.layers.Flatten(),
            tf.keras.layers.Dense(filters, activation="relu"),
            tf.keras.layers.Dense(NUM_CLASSES),
        ]
    )


@pytest.mark.parametrize(
    "build",
    [
        lambda wide: make_model((4, 6) if wide else (3, 4)),
        lambda wide: make_model((4, 6) if wide else (3, 4), normalization="batch"),
        lambda wide: _group_norm(6 if wide else 4),
    ],
    ids=["plain", "batch_norm", "group_norm"],
)
def test_a_cut_traces_nothing_and_trains_like_a_new_engine(build):
    narrow = build(False)
    before, traces, after, evaluation = _cut_and_train(build(True), narrow)
    assert before == traces > 0
    _assert_like_new(narrow, after, evaluation)


class _DividesByWidth(tf.keras.layers.Layer):
    """Puts its width into the graph, where nobody notices."""

    def build(self, shape):
        self.width = shape[-1]

    def call(self, inputs):
        return inputs / float(self.width)


class _ReshapesToWidth(_DividesByWidth):
    """Puts its width into the graph, which then fails for other widths."""

    def call(self, inputs):
        return tf.reshape(inputs, (-1, self.width))


class _NeedsWidth(_DividesByWidth):
    """Cannot be traced if its width is unknown."""

    def call(self, inputs):
        return inputs * tf.ones(int(inputs.shape[-1]))


@pytest.mark.parametrize("layer", [_DividesByWidth, _ReshapesToWidth, _NeedsWidth])
def test_a_layer_that_keeps_its_width_is_traced_anew(layer):
    def build(filters):
        tf.keras.utils.set_random_seed(3)
        return tf.keras.Sequential(
            [
                tf.keras.layers.Input(IMAGE_SHAPE),
                tf.keras.layers.Conv2D(filters, 3),
                tf.keras.layers.GlobalAveragePooling2D(),
                layer(),
                tf.keras.layers.Dense(NUM_CLASSES),
            ]
        )

    before, traces, after, evaluation = _cut_and_train(build(6), build(4))
    assert traces > before
    _assert_like_new(build(4), after, evaluation)


def test_an_aggregator_that_needs_sizes_is_traced_anew():
    before, traces, after, _ = _cut_and_train(make_model((4, 6)), make_model((3, 4)), "secure")
    assert traces > before
    assert not after.failed


def test_candidates_are_evaluated_like_any_model():
    engine = federated.Engine(make_model((4, 6)), _settings())
    datasets = make_datasets(_SIZES)
    for candidate in (make_model((4, 5), seed=1), make_model((4, 6), normalization="batch")):
        assert engine.evaluate_model(candidate, datasets) == pytest.approx(
            federated.evaluate_model(candidate, datasets)
        )

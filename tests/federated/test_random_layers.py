"""Every random layer of Keras trains; what it draws is of run, client, round and step."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from federated_doubles import assert_same_bits, few_clients, make_arrays, weights_of

from tff_autoprune import federated

_layers = tf.keras.layers

IMAGE_LAYERS = {
    "RandomBrightness": lambda: _layers.RandomBrightness(0.5, value_range=(0, 1)),
    "RandomContrast": lambda: _layers.RandomContrast(0.5),
    "RandomCrop": lambda: _layers.RandomCrop(5, 5),
    "RandomFlip": lambda: _layers.RandomFlip(),
    "RandomHeight": lambda: _layers.RandomHeight(0.3),
    "RandomRotation": lambda: _layers.RandomRotation(0.3),
    "RandomTranslation": lambda: _layers.RandomTranslation(0.3, 0.3),
    "RandomWidth": lambda: _layers.RandomWidth(0.3),
    "RandomZoom": lambda: _layers.RandomZoom(0.3),
    "AlphaDropout": lambda: _layers.AlphaDropout(0.5),
    "Dropout": lambda: _layers.Dropout(0.5),
    "GaussianDropout": lambda: _layers.GaussianDropout(0.5),
    "GaussianNoise": lambda: _layers.GaussianNoise(0.5),
    "SpatialDropout2D": lambda: _layers.SpatialDropout2D(0.5),
}
SEQUENCE_LAYERS = {
    "SpatialDropout1D": lambda: _layers.SpatialDropout1D(0.5),
    "LSTM": lambda: _layers.LSTM(4, dropout=0.5, recurrent_dropout=0.5, return_sequences=True),
    "GRU": lambda: _layers.GRU(4, dropout=0.5, return_sequences=True),
}


def _engine(layer, frozen=False):
    tf.keras.utils.set_random_seed(0)
    inputs = tf.keras.Input((8, 8, 1))
    if layer in IMAGE_LAYERS:
        # The convolution tells flips apart, the layers of channels drop some of many.
        x = IMAGE_LAYERS[layer]()(inputs)
        x = _layers.Conv2D(6, 3, activation="relu")(x)
        x = IMAGE_LAYERS["Dropout"]()(x) if frozen else x
        x = _layers.GlobalAveragePooling2D()(x)
    else:
        x = _layers.Reshape((8, 8))(inputs)
        x = _layers.GlobalAveragePooling1D()(SEQUENCE_LAYERS[layer]()(x))
    model = tf.keras.Model(inputs, _layers.Dense(4)(x))
    settings = few_clients(client_optimizer="sgd", client_learning_rate=0.5)
    return federated.Engine(model, settings)


def _batches(seed=0, repeat=2):
    images, labels = make_arrays(6, seed=seed)
    return tf.data.Dataset.from_tensor_slices((images, labels)).batch(6).repeat(repeat)


@pytest.mark.parametrize("layer", [*IMAGE_LAYERS, *SEQUENCE_LAYERS])
def test_a_random_layer_trains_and_repeats(layer):
    engine = _engine(layer)
    state = engine.initialize()
    first = engine.next(state, [_batches()], [(1, 2)])
    assert first.failed_clients == 0 and np.isfinite(first.metrics["loss"])
    again = engine.next(state, [_batches()], [(1, 2)])
    assert_same_bits(weights_of(first.state), weights_of(again.state))
    other = engine.next(state, [_batches()], [(1, 3)])
    assert not _equal(first.state, other.state)


def test_all_random_layers_of_keras_are_tried():
    named = {name for name in dir(_layers) if name.startswith("Random") or "Dropout" in name}
    assert named - {"SpatialDropout3D"} <= {*IMAGE_LAYERS, *SEQUENCE_LAYERS}


def _equal(left, right):
    return all(np.array_equal(a, b) for a, b in zip(weights_of(left), weights_of(right)))


def test_steps_rounds_and_clients_draw_anew():
    engine = _engine("Dropout")
    state = engine.initialize()
    # Without a learning rate that matters, only what is dropped changes the loss of a batch.
    still = federated.Engine(
        engine.model, few_clients(client_optimizer="sgd", client_learning_rate=1e-12)
    )
    images, labels = make_arrays(6, seed=0)
    one = tf.data.Dataset.from_tensor_slices((images, labels)).batch(6)
    state = still.initialize()
    losses = [still.next(state, [one], [(0, client)]).metrics["loss"] for client in range(3)]
    assert len(set(losses)) == 3
    # A client with one batch: an epoch is a step.
    epochs = [still.next(state, [one.repeat(n)], [(0, 0)]).metrics["loss"] * n for n in (1, 2, 3)]
    steps = [epochs[0], epochs[1] - epochs[0], epochs[2] - epochs[1]]
    assert abs(steps[0] - steps[1]) > 1e-4 and abs(steps[1] - steps[2]) > 1e-4
    later = still.next(still.next(state, [one], [(0, 0)]).state, [one], [(0, 0)])
    assert abs(later.metrics["loss"] - losses[0]) > 1e-4


def test_clients_without_a_seed_of_their_own_are_numbered():
    engine = _engine("Dropout")
    state = engine.initialize()
    same = [_batches(), _batches()]
    assert_same_bits(
        weights_of(engine.next(state, same).state),
        weights_of(engine.next(state, same, [(0, 0), (0, 1)]).state),
    )


def test_a_seed_is_of_run_client_and_round():
    seeds = {
        federated.client_seed(client, seed=seed, round_num=round_num)
        for client in ("a", "b")
        for seed in (0, 1)
        for round_num in (1, 2)
    }
    assert len(seeds) == 8


def test_a_frozen_base_that_is_called_as_in_training_trains():
    tf.keras.utils.set_random_seed(0)
    inner = tf.keras.Input((8, 8, 1))
    x = _layers.RandomFlip()(inner)
    x = _layers.BatchNormalization()(_layers.SeparableConv2D(4, 3)(x))
    x = _layers.Dropout(0.5)(_layers.PReLU()(x))
    base = tf.keras.Model(inner, x)
    base.trainable = False
    inputs = tf.keras.Input((8, 8, 1))
    x = _layers.GlobalAveragePooling2D()(base(inputs, training=True))
    model = tf.keras.Model(inputs, _layers.Dense(4)(x))
    engine = federated.Engine(model, few_clients(client_learning_rate=0.01))
    state = engine.initialize()
    result = engine.next(state, [_batches()])
    assert result.failed_clients == 0
    before, after = (s.global_model_weights for s in (state, result.state))
    assert not np.array_equal(before.trainable[0], after.trainable[0])
    assert_same_bits(list(before.non_trainable), list(map(np.asarray, after.non_trainable)))

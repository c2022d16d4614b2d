"""Logits or probabilities: told by numbers, whatever a model ends in."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from federated_doubles import make_datasets

from tff_autoprune import federated
from tff_autoprune.errors import UserError
from tff_autoprune.export import pixels
from tff_autoprune.federated import outputs

CLASSES = 4
_layers = tf.keras.layers


def _nested(x):
    inner = tf.keras.Input(x.shape[1:])
    return tf.keras.Model(inner, tf.nn.softmax(inner), name="ending")(x)


def _sequential(x):
    return tf.keras.Sequential([tf.keras.Input(x.shape[1:]), _layers.Softmax()])(x)


SOFTMAX = {
    "layer": lambda x: _layers.Softmax()(x),
    "activation": lambda x: _layers.Activation("softmax")(x),
    "dense": lambda x: _layers.Dense(CLASSES, activation="softmax")(x),
    "operation": tf.nn.softmax,
    "function": lambda x: _layers.Activation(tf.nn.softmax)(x),
    "lambda": lambda x: _layers.Lambda(lambda y: tf.nn.softmax(y))(x),
    "reshape": lambda x: _layers.Reshape((CLASSES,))(_layers.Softmax()(x)),
    "dropout": lambda x: _layers.Dropout(0.5)(_layers.Softmax()(x)),
    "identity": lambda x: _layers.Activation("linear", dtype="float32")(tf.nn.softmax(x)),
    "nested": _nested,
    "sequential": _sequential,
    "exponentials": lambda x: tf.exp(x) / tf.reduce_sum(tf.exp(x), axis=-1, keepdims=True),
    "temperature": lambda x: tf.nn.softmax(x / 3.0),
}
SIGMOID = {
    "activation": lambda x: _layers.Activation("sigmoid")(x),
    "operation": tf.sigmoid,
    "dense": lambda x: _layers.Dense(CLASSES, activation="sigmoid")(x),
    "hard": lambda x: _layers.Activation("hard_sigmoid")(x),
    "reshape": lambda x: _layers.Reshape((CLASSES,))(tf.sigmoid(x)),
}
LOGITS = {
    "dense": lambda x: x,
    "relu": lambda x: _layers.ReLU()(x),
    "zeros": lambda x: _layers.Dense(CLASSES, kernel_initializer="zeros")(x),
    "small": lambda x: _layers.Dense(CLASSES, kernel_initializer="zeros", bias_initializer="ones")(
        x
    ),
    "log": tf.nn.log_softmax,
    "tanh": lambda x: 10 * tf.tanh(x),
}
ENDINGS = [
    pytest.param(kind, name, id=f"{kind}-{name}")
    for kind, endings in (("softmax", SOFTMAX), ("sigmoid", SIGMOID), ("logits", LOGITS))
    for name in endings
]


def _model(kind, name):
    tf.keras.utils.set_random_seed(0)
    inputs = tf.keras.Input((8, 8, 1))
    x = _layers.Dense(CLASSES)(_layers.GlobalAveragePooling2D()(_layers.Conv2D(3, 3)(inputs)))
    endings = {"softmax": SOFTMAX, "sigmoid": SIGMOID, "logits": LOGITS}
    return tf.keras.Model(inputs, endings[kind][name](x))


@pytest.mark.parametrize(("kind", "name"), ENDINGS)
def test_every_ending_is_told_and_exported_once(kind, name):
    model = _model(kind, name)
    assert outputs.endings(model) == (kind,)
    images = np.random.default_rng(0).random((3, 8, 8, 1), np.float32)
    exported = pixels.deployable(model, (8, 8, 1))(images).numpy()
    expected = model(images).numpy()
    if kind == "logits":
        expected = tf.nn.softmax(expected).numpy()
    np.testing.assert_allclose(exported, expected, atol=1e-6)


@pytest.mark.parametrize("name", ["operation", "reshape"])
def test_probabilities_are_trained_and_judged_as_such(name):
    model = _model("softmax", name)
    (dataset,) = make_datasets((32,))
    images, labels = next(iter(dataset.unbatch().batch(32)))
    expected = tf.keras.losses.sparse_categorical_crossentropy(labels, model(images))
    found = federated.evaluate_model(model, [dataset])
    assert found["loss"] == pytest.approx(float(tf.reduce_mean(expected)), rel=1e-5)


def test_the_softmax_of_one_number_is_refused():
    inputs = tf.keras.Input((4,))
    model = tf.keras.Model(inputs, _layers.Dense(1, activation="softmax")(inputs))
    with pytest.raises(UserError, match="always 1"):
        outputs.endings(model)

"""Models that read no images, or put out no classes, are exported as they are."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from tff_autoprune.errors import UserError
from tff_autoprune.export import conversion, metadata, parity, pixels

_layers = tf.keras.layers
_RNG = np.random.default_rng(0)
FLOATS = _RNG.random((32, 6), np.float32)
WORDS = _RNG.integers(9, size=(32, 5)).astype(np.int32)


def _table_model(width, activation=None):
    tf.keras.utils.set_random_seed(0)
    inputs = tf.keras.Input((6,))
    return tf.keras.Model(inputs, _layers.Dense(width, activation=activation)(inputs))


def _word_model():
    tf.keras.utils.set_random_seed(0)
    inputs = tf.keras.Input((5,), dtype="int32")
    return tf.keras.Model(inputs, _layers.Dense(9)(_layers.Embedding(9, 4)(inputs)))


CASES = {
    "regression": (_table_model(1), "regression", FLOATS, FLOATS[:, 0]),
    "logit": (_table_model(1), "binary", FLOATS, np.arange(32) % 2),
    "sigmoid": (_table_model(1, "sigmoid"), "binary", FLOATS, np.arange(32) % 2),
    "labels": (_table_model(3), "multi-label", FLOATS, np.ones((32, 3), np.float32)),
    "words": (_word_model(), "multi-class", WORDS, WORDS),
}


@pytest.mark.parametrize("name", CASES)
def test_the_file_says_what_keras_says(name):
    model, kind, inputs, labels = CASES[name]
    ready = pixels.deployable(model, inputs.shape[1:], kind=kind)
    expected = model(inputs).numpy()
    if name in ("logit", "labels"):
        expected = tf.sigmoid(expected).numpy()
    elif name == "words":
        expected = tf.nn.softmax(expected).numpy()
    np.testing.assert_allclose(ready(inputs), expected, atol=1e-6)
    content = conversion.convert(ready, "float32")
    found = parity.check_parity(content, ready, inputs, labels, tolerance=1e-4)
    assert found.top1_agreement == 1.0
    if kind == "regression":
        wanted = np.mean(np.abs(expected[:, 0] - labels))
    elif name == "words":
        wanted = np.mean(expected.argmax(-1) == labels)
    else:
        wanted = np.mean((expected > 0.5).reshape(labels.shape) == labels)
    assert found.accuracy == pytest.approx(wanted, abs=1e-5)
    described = metadata.describe(
        content,
        metadata.ModelDescription(
            name=name,
            run_id="0",
            format="float32",
            image_shape=inputs.shape[1:],
            labels=["a"],
            outputs="values",
            details={},
        ),
    )
    assert metadata.read_metadata(described)["details"]["image_shape"] == list(inputs.shape[1:])


def test_bytes_are_for_images():
    with pytest.raises(UserError, match=r"fixed \[h, w, c\]"):
        conversion.convert(_table_model(3), "full_int8", list(FLOATS))

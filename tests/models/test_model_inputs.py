"""Models that shrink their inputs to nothing, and models that are none, are named at once."""

from __future__ import annotations

import zipfile

import h5py
import numpy as np
import pytest
import tensorflow as tf

from tff_autoprune import models
from tff_autoprune.errors import UserError

_layers = tf.keras.layers
IMAGES = np.random.default_rng(0).random((16, 8, 8, 3), np.float32)


def _model(front):
    inputs = tf.keras.Input((8, 8, 3))
    x = _layers.GlobalAveragePooling2D()(_layers.Conv2D(4, 3)(front(inputs)))
    return tf.keras.Model(inputs, _layers.Dense(4)(x))


def _nested(x):
    inner = tf.keras.Input((8, 8, 3))
    y = _layers.Conv2D(3, 1)(_layers.Rescaling(1 / 255)(inner))
    return tf.keras.Model(inner, y)(x)


@pytest.mark.parametrize(
    "front",
    [
        _layers.Rescaling(1 / 255),
        _layers.Rescaling(1 / 127.5, offset=-1),
        _layers.Normalization(mean=127.0, variance=64.0**2),
        tf.keras.applications.mobilenet_v2.preprocess_input,
        lambda x: tf.cast(x, tf.float32) / 255.0,
        _nested,
    ],
    ids=["Rescaling", "to [-1, 1]", "Normalization", "preprocess_input", "operation", "nested"],
)
def test_a_front_for_bytes_is_named_for_floats(front):
    warning = models.squashed_inputs(_model(front), IMAGES)
    assert "scale down" in warning and "\n" not in warning
    assert models.squashed_inputs(_model(front), 255 * IMAGES) is None


@pytest.mark.parametrize(
    "front",
    [
        lambda x: x,
        _layers.Rescaling(2.0, offset=-1),
        _layers.Normalization(mean=0.5, variance=0.1),
        _layers.BatchNormalization(),
        _layers.RandomFlip(),
    ],
)
def test_other_fronts_are_not(front):
    assert models.squashed_inputs(_model(front), IMAGES) is None


def test_integer_models_are_no_matter_of_scale():
    inputs = tf.keras.Input((4,), dtype="int32")
    model = tf.keras.Model(inputs, _layers.Dense(3)(_layers.Embedding(9, 5)(inputs)))
    assert models.squashed_inputs(model, np.zeros((3, 4), np.int32)) is None


class _Subclassed(tf.keras.Model):
    def call(self, x):
        return x


def make_subclassed():
    """What `module:function` may name by mistake."""
    return _Subclassed()


def make_unbuilt():
    """Likewise."""
    return tf.keras.Sequential([_layers.Flatten(), _layers.Dense(4)])


def make_integer_model():
    """A model that reads bytes."""
    inputs = tf.keras.Input((8, 8, 3), dtype="uint8")
    x = _layers.Flatten()(tf.cast(inputs, tf.float32) / 255.0)
    return tf.keras.Model(inputs, _layers.Dense(4)(x))


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("make_subclassed", "is a subclass of tf.keras.Model"),
        ("make_unbuilt", "is not built"),
        ("make_integer_model", "takes uint8"),
    ],
)
def test_models_that_cannot_be_trained_here_are_refused(function, message):
    with pytest.raises(UserError, match=message):
        models.build(f"test_model_inputs:{function}", input_shape=(8, 8, 3), num_classes=4)


def test_an_exported_folder_has_no_layers(tmp_path):
    make_integer_model().export(str(tmp_path / "folder"))
    with pytest.raises(UserError, match=r"written by model.export|model.export\(\) writes"):
        models.build(str(tmp_path / "folder"), input_shape=(8, 8, 3), num_classes=4)


@tf.keras.saving.register_keras_serializable("mine")
class _Own(_layers.Layer):
    def call(self, x):
        return x


def test_a_layer_class_of_ones_own_is_asked_for(tmp_path):
    inputs = tf.keras.Input((8, 8, 3))
    model = tf.keras.Model(inputs, _layers.Dense(4)(_layers.Flatten()(_Own()(inputs))))
    for name in ("own.keras", "own.h5"):
        model.save(tmp_path / name)
        assert models.build(str(tmp_path / name), input_shape=(8, 8, 3), num_classes=4)
    # As if it had been written where the class has a name that nobody registered here.
    with (
        zipfile.ZipFile(tmp_path / "own.keras") as old,
        zipfile.ZipFile(tmp_path / "gone.keras", "w") as new,
    ):
        for name in old.namelist():
            new.writestr(name, old.read(name).replace(b"_Own", b"Gone"))
    with h5py.File(tmp_path / "own.h5", "r+") as file:
        file.attrs["model_config"] = file.attrs["model_config"].replace("_Own", "Gone")
    for name in ("gone.keras", "own.h5"):
        with pytest.raises(UserError, match=r"mine>Gone.*--import=MODULE"):
            models.build(str(tmp_path / name), input_shape=(8, 8, 3), num_classes=4)

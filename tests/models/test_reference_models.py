import sys

import numpy as np
import pytest
import tensorflow as tf

from tff_autoprune import models
from tff_autoprune.errors import UserError

FEMNIST = {"input_shape": (28, 28, 1), "num_classes": 62}
CELEBA = {"input_shape": (84, 84, 3), "num_classes": 2}


@pytest.mark.parametrize(
    "name, data, parameters",
    [
        ("cnn", FEMNIST, 56_126),
        ("cnn", CELEBA, 80_930),
        ("resnet", CELEBA, 30_626),
        ("inception", FEMNIST, 246_236),
        ("inception", CELEBA, 243_752),
    ],
)
def test_parameters_are_those_of_the_reference(name, data, parameters):
    model = models.build(name, **data)
    assert model.count_params() == parameters
    assert model(np.zeros((2, *data["input_shape"]), np.float32)).shape == (2, data["num_classes"])


def test_group_normalization_has_no_statistics():
    model = models.build("resnet", normalization="group", group_size=4, **CELEBA)
    assert not model.non_trainable_weights
    norms = [x for x in model.layers if isinstance(x, tf.keras.layers.GroupNormalization)]
    assert {layer.groups for layer in norms} == {4, 8, 16}


def test_the_seed_decides_the_initial_weights():
    first, again, other = (models.build("cnn", seed=s, **FEMNIST).get_weights() for s in (1, 1, 2))
    assert all(np.array_equal(a, b) for a, b in zip(first, again))
    assert not np.array_equal(first[0], other[0])


def test_filters_are_configurable():
    model = models.build("cnn", filters=(3, 5), **FEMNIST)
    assert [layer.filters for layer in model.layers if hasattr(layer, "filters")] == [3, 5]


@pytest.mark.parametrize("suffix", [".keras", ".h5", ""])
def test_a_users_file_is_loaded(tmp_path, suffix):
    model = models.build("cnn", filters=(2, 2), **FEMNIST)
    path = tmp_path / f"own{suffix}"
    model.save(path)
    loaded = models.build(str(path), **FEMNIST)
    x = np.random.default_rng(0).random((2, 28, 28, 1), np.float32)
    np.testing.assert_allclose(loaded(x), model(x), atol=1e-6)


def test_a_users_function_is_called(tmp_path, monkeypatch):
    (tmp_path / "own_network.py").write_text(
        "import tensorflow as tf\n"
        "def build(input_shape, num_classes):\n"
        "    return tf.keras.Sequential([tf.keras.Input(input_shape), tf.keras.layers.Flatten(),\n"
        "        tf.keras.layers.Dense(num_classes, activation='softmax')])\n"
        "def wrong():\n"
        "    return 3\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    sys.modules.pop("own_network", None)
    assert models.build("own_network:build", **FEMNIST).output_shape == (None, 62)
    with pytest.raises(UserError, match="not a Keras model"):
        models.build("own_network:wrong", **FEMNIST)


@pytest.mark.parametrize(
    "name, options, expected",
    [
        ("vgg", {}, "cnn, resnet, inception"),
        ("absent.keras", {}, "no file"),
        ("absent_module:build", {}, "cannot be imported"),
        ("cnn", {"normalization": "batch"}, "no such option"),
        ("resnet", {"normalization": "layer"}, "batch, group"),
        ("resnet", {"normalization": "group", "group_size": 3}, "does not divide"),
        ("inception", {"filters": (1, 2)}, "9 widths"),
    ],
)
def test_a_wrong_model_is_explained(name, options, expected):
    with pytest.raises(UserError, match=expected):
        models.build(name, **FEMNIST, **options)


def test_a_model_that_does_not_fit_the_data_is_explained(tmp_path):
    path = tmp_path / "own.keras"
    models.build("cnn", **FEMNIST).save(path)
    with pytest.raises(UserError, match="takes images"):
        models.build(str(path), **CELEBA)
    with pytest.raises(UserError, match="10 classes"):
        models.build(str(path), input_shape=(28, 28, 1), num_classes=10)
    (tmp_path / "broken.keras").write_bytes(b"no model")
    with pytest.raises(UserError, match="loads"):
        models.build(str(tmp_path / "broken.keras"), **FEMNIST)

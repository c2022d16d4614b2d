import os
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from tff_autoprune import files, models
from tff_autoprune.errors import UserError
from tff_autoprune.run_directory import RunDirectory

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
    with pytest.raises(UserError, match="expected a Keras model, found int"):
        models.build("own_network:wrong", **FEMNIST)


_OWN_LAYER = """
import tensorflow as tf

{decorator}
class Twice(tf.keras.layers.Layer):
    def call(self, inputs):
        return 2 * inputs

def build(input_shape, num_classes):
    return tf.keras.Sequential([tf.keras.Input(input_shape), Twice(), tf.keras.layers.Flatten(),
        tf.keras.layers.Dense(num_classes)])
"""


def _own_layer(folder, monkeypatch, decorator):
    (folder / "own_layer.py").write_text(_OWN_LAYER.format(decorator=decorator))
    monkeypatch.syspath_prepend(folder)
    sys.modules.pop("own_layer", None)


def test_a_layer_that_cannot_be_stored_is_refused_before_training(tmp_path, monkeypatch):
    _own_layer(tmp_path, monkeypatch, decorator="")
    with pytest.raises(UserError, match=r"own_layer:build.*register_keras_serializable"):
        models.build("own_layer:build", **FEMNIST)


def test_a_run_with_a_layer_of_ones_own_is_loaded_by_another_process(tmp_path, monkeypatch):
    _own_layer(tmp_path, monkeypatch, "@tf.keras.saving.register_keras_serializable()")
    run = RunDirectory(tmp_path / "run")
    files.write_json(run.config, {"config": {"model": {"name": "own_layer:build"}}})
    with files.replacing(run.pruned_model) as path:
        models.build("own_layer:build", **FEMNIST).save(path)
    program = (
        "import sys; from tff_autoprune import models, run_directory\n"
        "run = run_directory.RunDirectory(sys.argv[1])\n"
        "print(models.load_trained(run, 'pruned').count_params())"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    done = subprocess.run(
        [sys.executable, "-c", program, str(run.path)],
        capture_output=True,
        text=True,
        timeout=300,
        env=environment,
    )
    assert done.stdout.strip() == str(62 * (28 * 28 + 1)), done.stderr


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
    with pytest.raises(UserError, match="takes inputs of shape"):
        models.build(str(path), **CELEBA)
    with pytest.raises(UserError, match="10 classes"):
        models.build(str(path), input_shape=(28, 28, 1), num_classes=10)
    (tmp_path / "broken.keras").write_bytes(b"no model")
    with pytest.raises(UserError, match="loads"):
        models.build(str(tmp_path / "broken.keras"), **FEMNIST)

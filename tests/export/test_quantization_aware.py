import json
import re
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from tff_autoprune import export, models
from tff_autoprune.errors import UserError
from tff_autoprune.export import fake_quantization, quantization_aware

SHAPE = (28, 28, 1)
IMAGES = np.random.default_rng(0).random((48, *SHAPE), np.float32)


@pytest.fixture(scope="module", params=["cnn", "resnet", "inception"])
def model(request):
    built = models.build(request.param, input_shape=SHAPE, num_classes=10, seed=2)
    rng = np.random.default_rng(1)
    for layer in built.layers:
        if isinstance(layer, tf.keras.layers.BatchNormalization):
            layer.set_weights([rng.uniform(0.5, 1.5, w.shape) for w in layer.get_weights()])
    return built


# In steps of the output's grid. TFLite's calibrator takes a wider range than it saw for one input
# of an addition; from there on a residual network rounds differently.
LARGEST_DIFFERENCE = {"cnn": 1.5, "inception": 2.5, "resnet": 8}


def test_the_copy_rounds_as_the_exported_model_does(model):
    copy = fake_quantization.fake_quantized(model, IMAGES)
    exported = export.run_tflite(export.convert(model, "full_int8", IMAGES), IMAGES)
    plain, rounded = model(IMAGES).numpy(), copy(IMAGES).numpy()
    step = (plain.max() - min(plain.min(), 0)) / 255
    assert np.abs(rounded - exported).max() <= LARGEST_DIFFERENCE[model.name] * step
    assert 0.3 * step < np.abs(rounded - plain).mean() < 3 * step


def test_the_copy_has_the_weights_of_the_original_and_gives_them_back(model):
    copy = fake_quantization.fake_quantized(model, IMAGES)
    for one, other in zip(model.get_weights(), copy.get_weights()):
        np.testing.assert_array_equal(one, other)
    copy.set_weights([weight + 0.25 for weight in copy.get_weights()])
    back = fake_quantization.without_fake_quantization(copy, model)
    assert [layer.name for layer in back.layers] == [layer.name for layer in model.layers]
    for one, other in zip(model.get_weights(), back.get_weights()):
        np.testing.assert_allclose(one + 0.25, other)


def test_gradients_pass_through_the_rounding(model):
    copy = fake_quantization.fake_quantized(model, IMAGES)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(tf.square(copy(IMAGES, training=True)))
    gradients = tape.gradient(loss, copy.trainable_weights)
    assert all(gradient is not None for gradient in gradients)
    assert sum(float(tf.reduce_sum(tf.abs(gradient))) for gradient in gradients) > 0


def test_the_copy_can_be_saved_and_cloned(model, tmp_path):
    copy = fake_quantization.fake_quantized(model, IMAGES)
    copy.save(tmp_path / "copy.keras")
    loaded = tf.keras.models.load_model(tmp_path / "copy.keras", compile=False)
    np.testing.assert_array_equal(loaded(IMAGES), copy(IMAGES))
    assert len(tf.keras.models.clone_model(copy).weights) == len(model.weights)


def test_layers_that_tfmot_does_not_know_are_named():
    image = tf.keras.Input((4, 4, 8))
    x = tf.keras.layers.GroupNormalization(4, name="group_norm")(image)
    model = tf.keras.Model(image, tf.keras.layers.Flatten()(x), name="grouped")
    with pytest.raises(UserError, match=r"export\.qat_rounds: tfmot cannot quantize 'grouped'"):
        fake_quantization.fake_quantized(model, np.zeros((1, 4, 4, 8), np.float32))


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (tf.keras.layers.SeparableConv2D(4, 3, name="apart"), "'apart' (SeparableConv2D)"),
        (tf.keras.layers.Lambda(lambda t: 2 * t, name="twice"), "layer 'twice' (Lambda)"),
        (tf.keras.layers.LayerNormalization(name="norm"), "Layer norm:"),
    ],
)
def test_the_layer_in_the_way_is_named(layer, expected):
    image = tf.keras.Input((6, 6, 2))
    x = tf.keras.layers.Conv2D(2, 3, name="first")(image)
    x = tf.keras.layers.Flatten()(layer(x))
    model = tf.keras.Model(image, tf.keras.layers.Dense(3)(x))
    with pytest.raises(UserError, match=re.escape(expected)):
        fake_quantization.fake_quantized(model, np.zeros((1, 6, 6, 2), np.float32))


def test_private_runs_are_refused():
    with pytest.raises(UserError, match="would spend privacy"):
        quantization_aware.fine_tune(None, None, {"aggregator": {"name": "dp"}}, None, None)


def test_the_command_fine_tunes_on_the_clients(trained_run):
    flags = ["--formats=full_int8", "--qat_rounds=2"]
    done = subprocess.run(
        [sys.executable, "scripts/export.py", f"--run_dir={trained_run.path}", *flags],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "int8 round 2: loss" in done.stdout
    section = json.loads(trained_run.summary.read_text())["export"]
    assert set(section) == {"dense.full_int8", "pruned.full_int8", "pruned_qat.full_int8"}
    before, after = (
        tf.keras.models.load_model(trained_run.models / f"{name}.keras", compile=False)
        for name in ("pruned", "pruned_qat")
    )
    changes = [np.abs(a - b).max() for a, b in zip(before.get_weights(), after.get_weights())]
    assert min(changes) > 0
    entry = section["pruned_qat.full_int8"]
    assert (trained_run.path / entry["path"]).stat().st_size == entry["bytes"]
    assert entry["accuracy"] > 0.5

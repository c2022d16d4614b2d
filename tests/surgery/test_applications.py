"""The bar: all models of tf.keras.applications."""

import gc

import numpy as np
import pytest
import tensorflow as tf
from applications_benchmark import load

from tff_autoprune import surgery

FAST = ["MobileNet", "ResNet50", "RegNetY002"]
FAMILIES = [
    "ConvNeXtTiny",
    "DenseNet121",
    "EfficientNetB0",
    "EfficientNetV2B0",
    "InceptionV3",
    "InceptionResNetV2",
    "MobileNet",
    "MobileNetV2",
    "MobileNetV3Small",
    "NASNetMobile",
    "RegNetX002",
    "RegNetY002",
    "ResNet50",
    "ResNet50V2",
    "ResNetRS50",
    "VGG16",
    "Xception",
]


@pytest.fixture(autouse=True)
def _memory():
    tf.keras.backend.clear_session()
    yield
    gc.collect()


def check(name):
    row = load().measure(name, seed=0, profiler=True, repeats=0)
    assert row["difference"] <= 1e-4
    # The cut changes the output, and the output still depends on the image.
    assert row["effect"] > 0.01
    assert row["spread"] > 1e-3
    assert row["flops"] == row["profiler_flops"]
    return row


@pytest.mark.parametrize("name", FAST)
def test_fast_families(name):
    assert check(name)["prunable_filters"] > 0.9


@pytest.mark.long
@pytest.mark.parametrize("name", [n for n in load().constructors() if n not in FAST])
def test_all_others(name):
    check(name)


def check_factorized(name):
    row = load().measure_factorized(name, seed=0, profiler=True)
    assert max(row["difference"], row["cut_difference"]) <= 1e-4
    assert row["effect"] > 0.01
    assert row["spread"] > 1e-3
    assert row["prunable_ranks"] == row["ranks"] > 0
    assert row["parameters_factorized"] < row["parameters"]
    assert row["flops_factorized"] < row["flops"]
    assert row["flops_factorized"] == row["profiler_flops"]


def test_a_factorized_family():
    check_factorized("RegNetY002")


@pytest.mark.long
@pytest.mark.parametrize("name", [n for n in load().constructors() if n != "RegNetY002"])
def test_all_others_factorized(name):
    check_factorized(name)


def interpreter_output(content, images):
    interpreter = tf.lite.Interpreter(model_content=content)
    interpreter.resize_tensor_input(interpreter.get_input_details()[0]["index"], images.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], images)
    interpreter.invoke()
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])


@pytest.mark.long
@pytest.mark.parametrize("name", FAMILIES)
def test_pruned_families_convert_to_tflite(name):
    benchmark = load()
    size = benchmark.image_size(name)
    model = benchmark.build(name, size, 0)
    groups = surgery.find_filter_groups(model)
    selection = {g.name: range(g.channels // 2) for g in groups if g.prunable}
    smaller = surgery.remove_filters(model, selection)
    images = benchmark.random_images(model, 1, np.random.default_rng(0))
    converter = tf.lite.TFLiteConverter.from_keras_model(smaller)
    expected = smaller(images).numpy()
    found = interpreter_output(converter.convert(), images)
    assert np.abs(found - expected).max() <= 1e-3 * np.abs(expected).max()
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: [[images]]
    assert np.isfinite(interpreter_output(converter.convert(), images)).all()

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.lite.python import schema_py_generated as tflite_schema

from tff_autoprune import export, models
from tff_autoprune.errors import UserError
from tff_autoprune.export.pixels import deployable

SHAPE = (20, 24, 3)
IMAGES = np.random.default_rng(0).random((24, *SHAPE), np.float32)
LABELS = np.arange(24) % 5


@pytest.fixture(scope="module")
def resnet():
    """A network with additions, strides and batch norm with statistics of its own."""
    model = models.build("resnet", input_shape=SHAPE, num_classes=5, seed=3, filters=(8, 12))
    rng = np.random.default_rng(1)
    for layer in model.layers:
        if isinstance(layer, tf.keras.layers.BatchNormalization):
            layer.set_weights([rng.uniform(0.5, 1.5, w.shape) for w in layer.get_weights()])
    return model


@pytest.fixture(scope="module")
def contents(resnet):
    return {name: export.convert(resnet, name, IMAGES) for name in export.FORMATS}


def tensor_types(content):
    graph = tflite_schema.Model.GetRootAsModel(content, 0).Subgraphs(0)
    return [graph.Tensors(index).Type() for index in range(graph.TensorsLength())]


def test_float32_computes_what_keras_computes(resnet, contents):
    expected = resnet(IMAGES, training=False).numpy()
    np.testing.assert_allclose(export.run_tflite(contents["float32"], IMAGES), expected, atol=1e-5)


@pytest.mark.parametrize("name", list(export.FORMATS))
def test_every_format_takes_one_image_and_ranks_classes_like_keras(resnet, contents, name):
    parity = export.check_parity(contents[name], resnet, IMAGES, LABELS)
    assert parity.top1_agreement >= 0.9
    assert parity.examples == len(IMAGES)
    graph = tflite_schema.Model.GetRootAsModel(contents[name], 0).Subgraphs(0)
    assert graph.Tensors(graph.Inputs(0)).ShapeAsNumpy().tolist() == [1, *SHAPE]


def test_formats_get_smaller_as_their_numbers_do(contents):
    assert len(contents["float32"]) > len(contents["float16"]) > len(contents["full_int8"])


def test_full_int8_has_no_float_tensor(contents):
    float_types = {tflite_schema.TensorType.FLOAT32, tflite_schema.TensorType.FLOAT16}
    assert not float_types & set(tensor_types(contents["full_int8"]))


def test_full_int8_takes_bytes_even_if_no_typical_image_has_black_and_white(resnet):
    content = export.convert(resnet, "full_int8", 0.3 + 0.4 * IMAGES)
    interpreter = tf.lite.Interpreter(model_content=content)
    details = interpreter.get_input_details()[0]
    assert details["dtype"] is np.uint8
    assert details["quantization"] == (pytest.approx(1 / 255, rel=1e-3), 0)


def test_conversion_is_deterministic(resnet, contents):
    assert export.convert(resnet, "full_int8", IMAGES) == contents["full_int8"]


def test_unknown_format_is_named(resnet):
    with pytest.raises(UserError, match=r"float32, float16.*found 'int4'"):
        export.convert(resnet, "int4")


def test_full_int8_needs_images(resnet):
    with pytest.raises(UserError, match="representative images"):
        export.convert(resnet, "full_int8", [])


def test_full_int8_refuses_images_that_are_not_in_the_unit_range(resnet):
    with pytest.raises(UserError, match=r"in \[0, 1\], found a range"):
        export.convert(resnet, "full_int8", 255 * IMAGES)


def test_operations_that_tflite_lacks_are_one_line():
    image = tf.keras.Input((4, 4, 1))
    decoded = tf.keras.layers.Lambda(lambda x: tf.cast(tf.math.bessel_i0(x), tf.float32))(image)
    model = tf.keras.Model(image, tf.keras.layers.Flatten()(decoded), name="exotic")
    with pytest.raises(UserError, match=r"TFLite cannot express 'exotic' as float32: ") as caught:
        export.convert(model, "float32")
    assert "\n" not in str(caught.value)


def test_two_inputs_are_refused():
    images = [tf.keras.Input(SHAPE), tf.keras.Input(SHAPE)]
    model = tf.keras.Model(images, tf.keras.layers.Add()(images))
    with pytest.raises(UserError, match="one input and one output"):
        export.convert(model, "float32")


def test_parity_refuses_a_model_that_computes_something_else(resnet, contents):
    other = tf.keras.models.clone_model(resnet)
    with pytest.raises(UserError, match=r"within 0.0001 of Keras, found a difference of"):
        export.check_parity(contents["float32"], other, IMAGES, LABELS, tolerance=1e-4)


def test_parity_refuses_nan(resnet):
    broken = tf.keras.models.clone_model(resnet)
    broken.set_weights([np.full_like(weight, np.nan) for weight in resnet.get_weights()])
    content = export.convert(broken, "float32")
    with pytest.raises(UserError, match="finite"):
        export.check_parity(content, broken, IMAGES, LABELS)


def test_images_of_another_size_are_refused(contents):
    with pytest.raises(UserError, match=r"\(20, 24, 3\), found \(24, 20, 3\)"):
        export.run_tflite(contents["float32"], IMAGES.swapaxes(1, 2))


def test_a_damaged_file_is_refused():
    with pytest.raises(UserError, match="expected a TFLite model"):
        export.run_tflite(b"not a model", IMAGES)


def test_deployable_model_processes_pixels_and_returns_probabilities(resnet):
    model = deployable(resnet, (40, 48, 3), lambda x: 1 - tf.image.resize(x, SHAPE[:2]))
    raw = np.random.default_rng(5).random((3, 40, 48, 3), np.float32)
    expected = tf.nn.softmax(resnet(1 - tf.image.resize(raw, SHAPE[:2]), training=False))
    found = export.run_tflite(export.convert(model, "float32"), raw)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_deployable_model_leaves_probabilities_as_they_are():
    image = tf.keras.Input((4, 4, 1))
    flat = tf.keras.layers.Flatten()(image)
    model = tf.keras.Model(image, tf.keras.layers.Dense(3, activation="softmax")(flat))
    raw = np.random.default_rng(6).random((2, 4, 4, 1), np.float32)
    np.testing.assert_allclose(deployable(model, (4, 4, 1))(raw), model(raw), rtol=1e-6)

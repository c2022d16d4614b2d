"""Keras to TFLite, batch 1."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Optional

import numpy as np
import tensorflow as tf

from tff_autoprune.errors import UserError
from tff_autoprune.export import formats, native_messages

# An app hands over bytes 0..255; with this scale and zero point 0 they are the quantized input.
_PIXEL_SCALE = 1 / 255


def convert(
    model: tf.keras.Model,
    format: str,
    representative: Optional[Iterable[np.ndarray]] = None,
) -> bytes:
    """Converts a Keras model to TFLite with a fixed batch of 1.

    The input stays in the model's own range, [0, 1], for the float formats. `full_int8` takes
    uint8 pixels 0..255 (scale 1/255, zero point 0) and returns uint8 scores.

    Args:
      model: A built model with one input, of images [n, h, w, c] or anything else of a fixed
        shape (not for `full_int8`), and one output.
      format: A key of `FORMATS`.
      representative: Images float32 [h, w, c] in [0, 1] to calibrate the activations of
        `full_int8` with; a hundred typical ones do. Other formats ignore it.

    Returns:
      The content of a `.tflite` file, without metadata.

    Raises:
      UserError: If the format is unknown, the model does not have one input and one output,
        `full_int8` has no representative images, or the model has an operation that TFLite lacks.
    """
    formats.check(format)
    spec = _input_spec(model)
    if format == "full_int8":
        image_shape(model)  # Bytes are pixels.

    @tf.function(input_signature=[spec])
    def classify(image: tf.Tensor) -> tf.Tensor:
        return model(image, training=False)

    function = classify.get_concrete_function()
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function], model)
    _SETTINGS[format](converter, representative)
    try:
        with native_messages.silenced():
            content = bytes(converter.convert())
    except Exception as error:  # The converter raises classes that it does not publish.
        first_line = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
        raise UserError(
            f"TFLite cannot express {model.name!r} as {format}: {first_line}"
        ) from error
    if format == "full_int8":
        _check_takes_bytes(content)
    return content


def _input_spec(model: tf.keras.Model) -> tf.TensorSpec:
    """Returns the spec of a model's only input, for one example."""
    if len(model.inputs or []) != 1 or len(model.outputs or []) != 1:
        raise UserError(
            f"export: expected a built model with one input and one output, found {model.name!r}"
            f" with {len(model.inputs or [])} and {len(model.outputs or [])}."
        )
    (tensor,) = model.inputs
    shape = tuple(tensor.shape[1:])
    if None in shape:
        raise UserError(f"export: expected an input of a fixed shape, found {list(shape)}.")
    name = "image" if len(shape) == 3 else "input"
    return tf.TensorSpec([1, *shape], tensor.dtype, name=name)


def image_shape(model: tf.keras.Model) -> tuple[int, ...]:
    """Returns [h, w, c] of a classifier's only input."""
    shape = tuple(_input_spec(model).shape[1:])
    if len(shape) != 3:
        raise UserError(f"export: expected an input of fixed [h, w, c], found {list(shape)}.")
    return shape


def _as_trained(converter: tf.lite.TFLiteConverter, representative: object) -> None:
    del converter, representative


def _float16(converter: tf.lite.TFLiteConverter, representative: object) -> None:
    del representative
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.target_spec.supported_types = [tf.float16]


def _dynamic_int8(converter: tf.lite.TFLiteConverter, representative: object) -> None:
    del representative
    converter.optimizations = [tf.lite.Optimize.DEFAULT]


def _full_int8(
    converter: tf.lite.TFLiteConverter, representative: Optional[Iterable[np.ndarray]]
) -> None:
    images = list(representative) if representative is not None else []
    if not images:
        raise UserError("export format full_int8: expected representative images, found none.")
    images[0] = _with_full_range(images[0])
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([image[np.newaxis]] for image in images)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = tf.uint8
    converter.inference_output_type = tf.uint8


_SETTINGS: dict[str, Callable[[tf.lite.TFLiteConverter, object], None]] = {
    "float32": _as_trained,
    "float16": _float16,
    "dynamic_int8": _dynamic_int8,
    "full_int8": _full_int8,
}


def _with_full_range(image: np.ndarray) -> np.ndarray:
    """Sets the darkest pixel to 0 and the brightest to 1.

    The calibrator takes the input's range from the images it sees. Two pixels of one image make
    that range [0, 1], whatever the data, and leave the activations' ranges as they are.
    """
    image = np.array(image, np.float32)
    darkest, brightest = image.argmin(), image.argmax()
    if darkest == brightest:
        brightest = image.size - 1
    image.flat[darkest], image.flat[brightest] = 0.0, 1.0
    return image


def _check_takes_bytes(content: bytes) -> None:
    """Raises unless byte b means the pixel b / 255: apps pass bytes on unchanged."""
    interpreter = tf.lite.Interpreter(model_content=content)
    scale, zero_point = interpreter.get_input_details()[0]["quantization"]
    if zero_point != 0 or not np.isclose(scale, _PIXEL_SCALE, rtol=1e-3):
        raise UserError(
            "export format full_int8: expected representative images in [0, 1], found a range"
            f" of [{-zero_point * scale:.4g}, {(255 - zero_point) * scale:.4g}]."
        )

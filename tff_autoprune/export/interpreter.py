"""Runs a TFLite model image by image with `tflite-runtime`, the interpreter that apps use."""

from __future__ import annotations

import numpy as np
from tflite_runtime import interpreter as tflite

from tff_autoprune.errors import UserError
from tff_autoprune.export import native_messages


def make_interpreter(content: bytes, threads: int = 1) -> tflite.Interpreter:
    """Returns an interpreter with its tensors allocated.

    Args:
      content: A `.tflite` file.
      threads: CPU threads for one inference.

    Raises:
      UserError: If `content` is not a model that this runtime can run.
    """
    try:
        with native_messages.silenced():
            interpreter = tflite.Interpreter(model_content=content, num_threads=threads)
            interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        raise UserError(
            f"expected a TFLite model of built-in operations, found {error}."
        ) from error
    return interpreter


def quantize(values: np.ndarray, details: dict) -> np.ndarray:
    """Maps real numbers to a tensor's own type: `round(values / scale) + zero_point`, clipped.

    Args:
      values: float32, any shape.
      details: The tensor's entry of `get_input_details()`.

    Returns:
      An array of the same shape and of `details["dtype"]`.
    """
    dtype = details["dtype"]
    if not np.issubdtype(dtype, np.integer):
        return values.astype(dtype)
    scale, zero_point = details["quantization"]
    if not scale:  # Integers that are none but themselves, such as words.
        return values.astype(dtype)
    limits = np.iinfo(dtype)
    return np.clip(np.round(values / scale) + zero_point, limits.min, limits.max).astype(dtype)


def dequantize(values: np.ndarray, details: dict) -> np.ndarray:
    """The inverse of `quantize`, as float32; see there."""
    if not np.issubdtype(details["dtype"], np.integer):
        return values.astype(np.float32)
    scale, zero_point = details["quantization"]
    if not scale:
        return values.astype(np.float32)
    return (values.astype(np.float32) - zero_point) * np.float32(scale)


def run_tflite(content: bytes, images: np.ndarray, threads: int = 1) -> np.ndarray:
    """Returns the outputs of a model of batch 1 for many images.

    Args:
      content: A `.tflite` file with one input [1, h, w, c] and one output [1, classes].
      images: float32 [n, h, w, c] in [0, 1]; quantized here if the model's input is.
      threads: CPU threads for one inference.

    Returns:
      float32 [n, classes], dequantized if the model's output is quantized.

    Raises:
      UserError: If the images do not have the shape that the model takes.
    """
    interpreter = make_interpreter(content, threads)
    source = interpreter.get_input_details()[0]
    sink = interpreter.get_output_details()[0]
    expected, found = tuple(source["shape"]), (1, *images.shape[1:])
    if expected != found:
        raise UserError(
            f"TFLite model: expected images of shape {expected[1:]}, found {found[1:]}."
        )
    outputs = []
    for image in quantize(images, source):
        interpreter.set_tensor(source["index"], image[np.newaxis])
        interpreter.invoke()
        outputs.append(dequantize(interpreter.get_tensor(sink["index"])[0], sink))
    return np.stack(outputs)

"""Whether an exported model still says what the Keras model says."""

from __future__ import annotations

import dataclasses
from typing import Optional

import numpy as np
import tensorflow as tf

from tff_autoprune.errors import UserError
from tff_autoprune.export import interpreter

# Two float32 implementations of the same sums differ by rounding only, far below this.
FLOAT32_TOLERANCE = 1e-4
MINIMUM_EXAMPLES = 256
_BATCH = 256


@dataclasses.dataclass(frozen=True)
class Parity:
    """How an exported model compares with its Keras model on held-out images.

    Attributes:
      max_abs_difference: The largest |exported - Keras| over all images and classes.
      top1_agreement: Share of the images where both name the same class, in [0, 1].
      accuracy: Share of the images that the exported model classifies rightly, in [0, 1].
      keras_accuracy: The same for the Keras model, on the same images.
      examples: Number of images.
    """

    max_abs_difference: float
    top1_agreement: float
    accuracy: float
    keras_accuracy: float
    examples: int


def check_parity(
    content: bytes,
    model: tf.keras.Model,
    images: np.ndarray,
    labels: np.ndarray,
    tolerance: Optional[float] = None,
    model_images: Optional[np.ndarray] = None,
) -> Parity:
    """Runs an exported model and its Keras model on the same images.

    Args:
      content: A `.tflite` file.
      model: The Keras model it was made from.
      images: float32 [n, h, w, c] in [0, 1], as the exported model takes them.
      labels: int [n].
      tolerance: Largest absolute difference allowed between outputs; None allows any.
      model_images: The images as the Keras model takes them, if the exported model crops, inverts
        or resizes by itself; `images` by default.

    Returns:
      The comparison.

    Raises:
      UserError: If the outputs differ by more than `tolerance` or are not finite.
    """
    inputs = images if model_images is None else model_images
    # Not `predict`, which traces the model anew for every call of this function.
    expected = np.concatenate(
        [
            model(inputs[start : start + _BATCH], training=False).numpy()
            for start in range(0, len(inputs), _BATCH)
        ]
    )
    found = interpreter.run_tflite(content, images)
    difference = float(np.max(np.abs(expected - found)))
    if not np.isfinite(difference):
        raise UserError(
            f"export of {model.name!r}: expected finite outputs, found NaN or infinity."
        )
    if tolerance is not None and difference > tolerance:
        raise UserError(
            f"export of {model.name!r}: expected outputs within {tolerance:g} of Keras, found a"
            f" difference of {difference:.3g} over {len(images)} images; nothing was written."
        )
    expected_class, found_class = expected.argmax(-1), found.argmax(-1)
    return Parity(
        max_abs_difference=difference,
        top1_agreement=float(np.mean(expected_class == found_class)),
        accuracy=float(np.mean(found_class == labels)),
        keras_accuracy=float(np.mean(expected_class == labels)),
        examples=len(images),
    )

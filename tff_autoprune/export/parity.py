"""Compares the outputs of an exported model with those of the Keras model."""

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
# Numbers that differ by less than this share of their range count as the same.
_SAME = 0.01


@dataclasses.dataclass(frozen=True)
class Parity:
    """How an exported model compares with its Keras model on held-out images.

    Attributes:
      max_abs_difference: The largest |exported - Keras| over all images and classes.
      top1_agreement: Share of the images where both name the same class, in [0, 1]; where labels
        are no classes, both the same number within a hundredth of the range.
      accuracy: Share of the images that the exported model classifies rightly, in [0, 1]; where
        labels are no classes, the mean absolute error.
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
    return Parity(
        max_abs_difference=difference,
        top1_agreement=_agreement(expected, found, labels),
        accuracy=_metric(found, labels),
        keras_accuracy=_metric(expected, labels),
        examples=len(images),
    )


def _decided(outputs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Returns what probabilities say, in the shape of the labels."""
    if outputs.shape == labels.shape or outputs.shape[-1] == 1:
        return (outputs > 0.5).reshape(labels.shape)
    return outputs.argmax(-1)


def _is_regression(outputs: np.ndarray, labels: np.ndarray) -> bool:
    several = outputs.ndim == labels.ndim and outputs.shape[-1] > 1
    return labels.dtype.kind == "f" and not (several and np.isin(labels, (0, 1)).all())


def _agreement(expected: np.ndarray, found: np.ndarray, labels: np.ndarray) -> float:
    if _is_regression(expected, labels):
        return float(
            np.mean(np.abs(expected - found) <= _SAME * max(float(np.ptp(expected)), 1e-9))
        )
    return float(np.mean(_decided(expected, labels) == _decided(found, labels)))


def _metric(outputs: np.ndarray, labels: np.ndarray) -> float:
    """Returns the accuracy, or the mean absolute error of what is no class."""
    if _is_regression(outputs, labels):
        return float(np.mean(np.abs(outputs.reshape(labels.shape) - labels)))
    return float(np.mean(_decided(outputs, labels) == labels))

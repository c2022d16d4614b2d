"""The proof of a removal: the smaller model computes what the original does without the channels.

"Without" means that every layer that reads a removed channel has its weights for it set to zero.
"""

from __future__ import annotations

from typing import Any, Union

import numpy as np
import tensorflow as tf

from tff_autoprune.surgery.removal import Removal

Inputs = Union[np.ndarray, tf.Tensor, list[Any], dict[str, Any]]


def difference(removal: Removal, smaller: tf.keras.Model, inputs: Inputs) -> float:
    """Measures how far the smaller model is from the silenced original.

    The original's weights are changed while this runs, and restored.

    Args:
      removal: The removal.
      smaller: What `removal.apply()` returned.
      inputs: A batch of inputs of the model.

    Returns:
      Largest absolute difference over all outputs, relative to the largest absolute value of the
      silenced original's output.
    """
    model = removal.model
    before = model.get_weights()
    try:
        set_weights(model, removal.silence(before))
        expected = tf.nest.flatten(model(inputs, training=False))
    finally:
        set_weights(model, before)
    found = tf.nest.flatten(smaller(inputs, training=False))
    return max(_relative(a, b) for a, b in zip(expected, found))


def set_weights(model: tf.keras.Model, weights: list[np.ndarray]) -> None:
    """Like `model.set_weights`, and lets layers derive again what they derive from weights."""
    model.set_weights(weights)
    for layer in model._flatten_layers(include_self=False):
        if hasattr(layer, "finalize_state"):
            layer.finalize_state()


def _relative(expected: tf.Tensor, found: tf.Tensor) -> float:
    expected, found = np.asarray(expected, np.float64), np.asarray(found, np.float64)
    if expected.shape != found.shape:
        raise AssertionError(f"Output shapes differ: {expected.shape} and {found.shape}.")
    scale = np.abs(expected).max(initial=0)
    error = np.abs(expected - found).max(initial=0)
    return float(error / scale) if scale > 0 else float(error)

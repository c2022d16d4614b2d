"""The classification loss that fits a model's outputs: logits or probabilities."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

#: What outputs are divided by to find how well a model does once it is neither too sure nor too
#: unsure of itself; the true scale lies between two of them, or is as good as the last. A geometric
#: series: equal steps of the logarithm.
TEMPERATURES = tuple(2 ** (step / 2) for step in range(-2, 5))

_PROBABILITY_ACTIVATIONS = ("softmax", "sigmoid")


def outputs_logits(model: tf.keras.Model) -> bool:
    """Returns whether the model's outputs are logits rather than probabilities.

    Looks at the layer that made the output: a softmax layer or activation gives probabilities.
    """
    layer = model
    while isinstance(layer, tf.keras.Model):
        if isinstance(layer, tf.keras.Sequential):
            layer = layer.layers[-1]
        else:
            layer = layer.outputs[0]._keras_history.layer
    if isinstance(layer, tf.keras.layers.Softmax):
        return False
    activation = getattr(layer, "activation", None)
    return getattr(activation, "__name__", None) not in _PROBABILITY_ACTIVATIONS


def cross_entropy(outputs: tf.Tensor, labels: tf.Tensor, *, from_logits: bool) -> tf.Tensor:
    """Returns the cross entropy of each example, float32 [batch].

    Args:
      outputs: Logits or probabilities [batch, classes].
      labels: int32 [batch].
      from_logits: Which of the two `outputs` are.
    """
    return tf.keras.backend.sparse_categorical_crossentropy(
        labels, tf.cast(outputs, tf.float32), from_logits=from_logits
    )


def tempered_cross_entropies(
    outputs: tf.Tensor, labels: tf.Tensor, *, from_logits: bool
) -> tf.Tensor:
    """Returns the cross entropy of each example at each of `TEMPERATURES`.

    Args:
      outputs: Logits or probabilities [batch, classes].
      labels: int32 [batch].
      from_logits: Which of the two `outputs` are.

    Returns:
      float32 [batch, temperatures].
    """
    logits = tf.cast(outputs, tf.float32)
    if not from_logits:
        logits = tf.math.log(tf.maximum(logits, tf.keras.backend.epsilon()))
    scaled = logits[:, tf.newaxis, :] / tf.constant(TEMPERATURES)[:, tf.newaxis]
    repeated = tf.repeat(labels[:, tf.newaxis], len(TEMPERATURES), axis=1)
    return tf.nn.sparse_softmax_cross_entropy_with_logits(repeated, scaled)


def calibrated_loss(tempered: np.ndarray) -> float:
    """Returns the mean cross entropy at the temperature that suits a model.

    A network that fits its training examples is too sure of what it gets wrong. Leaving filters out
    makes it less sure: its loss may fall though it is right less often. At the best temperature
    (Guo et al., arXiv 1706.04599) only what it knows counts.

    Args:
      tempered: Mean cross entropies at `TEMPERATURES`.

    Returns:
      The least, of a parabola through the three around it over the logarithm of the temperature.
    """
    tempered = np.asarray(tempered, np.float64)
    middle = int(np.argmin(tempered))
    if not 0 < middle < len(tempered) - 1 or not np.isfinite(tempered).all():
        return float(tempered[middle])
    left, least, right = tempered[middle - 1 : middle + 2]
    curvature = left - 2 * least + right
    return float(least - (left - right) ** 2 / (8 * curvature)) if curvature > 0 else float(least)


def num_correct(outputs: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """Returns how many of the batch have their largest output at their label, float32 scalar."""
    hits = tf.equal(tf.argmax(outputs, axis=-1, output_type=labels.dtype), labels)
    return tf.reduce_sum(tf.cast(hits, tf.float32))

"""Losses of classes, of logits or probabilities, and how sure a model is of itself."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

#: What outputs are divided by to find how well a model does once it is neither too sure nor too
#: unsure of itself; the true scale lies between two of them, or is as good as the last. A geometric
#: series: equal steps of the logarithm.
TEMPERATURES = tuple(2 ** (step / 2) for step in range(-2, 5))


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


def logits_of_probabilities(probabilities: tf.Tensor) -> tf.Tensor:
    """Returns the logits whose sigmoid is `probabilities`."""
    epsilon = tf.keras.backend.epsilon()
    clipped = tf.clip_by_value(probabilities, epsilon, 1 - epsilon)
    return tf.math.log(clipped) - tf.math.log1p(-clipped)

"""The classification loss that fits a model's outputs: logits or probabilities."""

from __future__ import annotations

import tensorflow as tf

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


def num_correct(outputs: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """Returns how many of the batch have their largest output at their label, float32 scalar."""
    hits = tf.equal(tf.argmax(outputs, axis=-1, output_type=labels.dtype), labels)
    return tf.reduce_sum(tf.cast(hits, tf.float32))

"""Puts what training did to pixels, and what it left to the loss, inside the model."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import tensorflow as tf

from tff_autoprune.federated import outputs as outputs_lib


def deployable(
    model: tf.keras.Model,
    source_shape: Sequence[int],
    apply_pixel_options: Callable[[tf.Tensor], tf.Tensor] = tf.identity,
) -> tf.keras.Model:
    """Returns the model as an app wants it: raw images in, probabilities out.

    Args:
      model: The trained classifier.
      source_shape: (height, width, channels) of the images as the data source gives them.
      apply_pixel_options: From raw images [n, h, w, c] to those that `model` was trained on; the
        data set's `spec.apply`.

    Returns:
      A model from float32 [n, height, width, channels] in [0, 1] to probabilities [n, classes].
      It shares the weights of `model`. A softmax is added only if `model` returns logits: readers
      of TFLite metadata take scores for probabilities and drop negative ones.
    """
    image = tf.keras.Input(tuple(source_shape), name="image")
    outputs = model(tf.keras.layers.Lambda(apply_pixel_options, name="pixels")(image))
    if outputs_lib.outputs_logits(model):
        outputs = tf.keras.layers.Softmax(name="probabilities")(outputs)
    return tf.keras.Model(image, outputs, name=model.name)

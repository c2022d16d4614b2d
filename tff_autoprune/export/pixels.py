"""Builds pixel options, and the softmax that the loss did in training, into the exported model."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import tensorflow as tf

from tff_autoprune.federated import heads
from tff_autoprune.federated import outputs as outputs_lib


def deployable(
    model: tf.keras.Model,
    source_shape: Sequence[int],
    apply_pixel_options: Callable[[tf.Tensor], tf.Tensor] = tf.identity,
    kind: str = heads.MULTI_CLASS,
) -> tf.keras.Model:
    """Returns the model as an app wants it: raw images in, probabilities out.

    Args:
      model: The trained classifier.
      source_shape: (height, width, channels) of the images as the data source gives them; or the
        shape of any other input.
      apply_pixel_options: From raw images [n, h, w, c] to those that `model` was trained on; the
        data set's `spec.apply`.
      kind: Of the model's task, see `federated.Task`: what logits are made probabilities by.

    Returns:
      A model from float32 [n, height, width, channels] in [0, 1] to probabilities [n, classes]
      (from other inputs as they are; to plain numbers for regression). It shares the weights of
      `model`. A softmax or sigmoid is added only if `model` returns logits: readers of TFLite
      metadata take scores for probabilities and drop negative ones.
    """
    if len(source_shape) != 3:
        raw = tf.keras.Input(tuple(source_shape), name="input", dtype=model.inputs[0].dtype)
        outputs = model(raw)
    else:
        raw = tf.keras.Input(tuple(source_shape), name="image")
        outputs = model(tf.keras.layers.Lambda(apply_pixel_options, name="pixels")(raw))
    if kind != heads.REGRESSION and outputs_lib.outputs_logits(model):
        function = "softmax" if kind == heads.MULTI_CLASS else "sigmoid"
        outputs = tf.keras.layers.Activation(function, name="probabilities")(outputs)
    return tf.keras.Model(raw, outputs, name=model.name)

"""Puts what training did to pixels, and what it left to the loss, inside the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

from tff_autoprune.federated import losses


def deployable(
    model: tf.keras.Model, source_shape: Sequence[int], pixels: Mapping[str, Any]
) -> tf.keras.Model:
    """Returns the model as an app wants it: raw images in, probabilities out.

    Args:
      model: The trained classifier.
      source_shape: (height, width, channels) of the images as the data source gives them.
      pixels: The pixel options of training: "crop" (start, stop) or None, "resize" n or None,
        "invert" bool. Applied in this order, as the data sets do.

    Returns:
      A model from float32 [n, height, width, channels] in [0, 1] to probabilities [n, classes].
      It shares the weights of `model`. A softmax is added only if `model` returns logits: readers
      of TFLite metadata take scores for probabilities and drop negative ones.
    """
    image = tf.keras.Input(tuple(source_shape), name="image")
    outputs = model(with_pixel_options(image, pixels))
    if losses.outputs_logits(model):
        outputs = tf.keras.layers.Softmax(name="probabilities")(outputs)
    return tf.keras.Model(image, outputs, name=model.name)


def with_pixel_options(image: tf.Tensor, pixels: Mapping[str, Any]) -> tf.Tensor:
    """Applies crop, resize and inversion to a Keras tensor [n, h, w, c]; see `deployable`."""
    if pixels.get("crop"):
        start, stop = pixels["crop"]
        height, width = image.shape[1:3]
        margins = (start, len(range(height)[start:stop]), len(range(width)[start:stop]))
        image = tf.keras.layers.Cropping2D(
            (
                (margins[0], height - margins[0] - margins[1]),
                (margins[0], width - margins[0] - margins[2]),
            ),
            name="crop",
        )(image)
    if pixels.get("resize"):
        image = tf.keras.layers.Resizing(pixels["resize"], pixels["resize"], name="resize")(image)
    if pixels.get("invert"):
        image = tf.keras.layers.Rescaling(-1.0, 1.0, name="invert")(image)
    return image

"""The plain convolutional networks of the reference."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

_SMALL_IMAGE = 32


def build_cnn(
    *, input_shape: Sequence[int], num_classes: int, filters: Sequence[int] = ()
) -> tf.keras.Model:
    """Builds the CNN for FEMNIST or, for images larger than 32 pixels, the one for CelebA.

    FEMNIST: Conv 5x5 valid, ReLU, MaxPool 2 for filters (32, 64); global average pooling; Dense.
    CelebA: Conv 5x5 same, ReLU, MaxPool 2 for filters (32, 32, 32, 32); Flatten; Dense.

    Args:
      input_shape: (height, width, channels).
      num_classes: Number of logits.
      filters: Filters of each convolution; empty for the reference's.

    Returns:
      A model that gives logits. 56,126 parameters for 28x28x1 and 62 classes; 80,930 for 84x84x3
      and 2 classes.
    """
    small = max(input_shape[:2]) <= _SMALL_IMAGE
    filters = tuple(filters) or ((32, 64) if small else (32, 32, 32, 32))
    inputs = tf.keras.Input(tuple(input_shape), name="image")
    x = inputs
    for number, width in enumerate(filters, start=1):
        x = tf.keras.layers.Conv2D(
            width, 5, padding="valid" if small else "same", activation="relu", name=f"conv_{number}"
        )(x)
        x = tf.keras.layers.MaxPooling2D(2, name=f"pool_{number}")(x)
    if small:
        x = tf.keras.layers.GlobalAveragePooling2D(name="average")(x)
    else:
        x = tf.keras.layers.Flatten(name="flatten")(x)
    logits = tf.keras.layers.Dense(num_classes, name="logits")(x)
    return tf.keras.Model(inputs, logits, name="cnn")

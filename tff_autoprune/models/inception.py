"""The naive inception network of the reference."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from tff_autoprune.errors import UserError

_FILTERS = (32, 16, 16, 16, 32, 32, 32, 96, 96)
_KERNELS = (1, 3, 5)


def build_inception(
    *, input_shape: Sequence[int], num_classes: int, filters: Sequence[int] = _FILTERS
) -> tf.keras.Model:
    """Builds the Inception network: a stem, two naive blocks, two convolutions, two Dense layers.

    Stem: Conv 3x3 /2. Block: parallel Conv 1x1, 3x3, 5x5 (same), concatenated. Then two
    Conv 3x3 /2 (valid), global average pooling, Dense 50, Dense. ReLU after each but the last.

    Args:
      input_shape: (height, width, channels).
      num_classes: Number of logits.
      filters: Nine widths: the stem's, three of each block, two of the last convolutions.

    Returns:
      A model that gives logits. 246,236 parameters for 28x28x1 and 62 classes; 243,752 for
      84x84x3 and 2 classes.

    Raises:
      UserError: If `filters` has not nine entries.
    """
    if len(filters) != len(_FILTERS):
        raise UserError(
            f"model.filters: inception needs {len(_FILTERS)} widths, found {tuple(filters)}."
        )
    stem, block_1, block_2, last = filters[0], filters[1:4], filters[4:7], filters[7:]
    inputs = tf.keras.Input(tuple(input_shape), name="image")
    x = tf.keras.layers.Conv2D(stem, 3, strides=2, activation="relu", name="stem")(inputs)
    for number, widths in enumerate((block_1, block_2), start=1):
        branches = [
            tf.keras.layers.Conv2D(
                width,
                kernel,
                padding="same",
                activation="relu",
                name=f"block_{number}_conv_{kernel}x{kernel}",
            )(x)
            for width, kernel in zip(widths, _KERNELS)
        ]
        x = tf.keras.layers.Concatenate(name=f"block_{number}_concat")(branches)
    for number, width in enumerate(last, start=1):
        x = tf.keras.layers.Conv2D(width, 3, strides=2, activation="relu", name=f"conv_{number}")(x)
    x = tf.keras.layers.GlobalAveragePooling2D(name="average")(x)
    x = tf.keras.layers.Dense(50, activation="relu", name="dense")(x)
    logits = tf.keras.layers.Dense(num_classes, name="logits")(x)
    return tf.keras.Model(inputs, logits, name="inception")

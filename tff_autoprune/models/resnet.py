"""The small residual network of the reference."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from tff_autoprune.errors import UserError

_NORMALIZATIONS = ("batch", "group")


def build_resnet(
    *,
    input_shape: Sequence[int],
    num_classes: int,
    filters: Sequence[int] = (16, 32, 64),
    normalization: str = "batch",
    group_size: int = 2,
) -> tf.keras.Model:
    """Builds the ResNet: a stem, one residual block for each further entry of `filters`, Dense.

    Stem: Conv 3x3 /2, normalization, ReLU, MaxPool 2. Block: Conv 3x3 /2 (its filters),
    normalization, ReLU, Conv 3x3 back to the trunk's width, normalization; shortcut Conv 1x1 /2,
    normalization; Add; ReLU.

    Args:
      input_shape: (height, width, channels).
      num_classes: Number of logits.
      filters: The trunk's width, then the inner width of each block.
      normalization: "batch" as in the reference, or "group", which has no statistics to aggregate.
      group_size: Channels in a group; channels of a group can only be pruned together.

    Returns:
      A model that gives logits. 30,626 parameters for 84x84x3, 2 classes and batch normalization.

    Raises:
      UserError: If `normalization` is unknown or `group_size` does not divide a width.
    """
    if normalization not in _NORMALIZATIONS:
        raise UserError(
            f"model.normalization: expected one of {', '.join(_NORMALIZATIONS)},"
            f" found {normalization!r}."
        )
    if normalization == "group" and any(width % group_size for width in filters):
        raise UserError(
            f"model.group_size: {group_size} does not divide every entry of model.filters"
            f" {tuple(filters)}."
        )

    def normalize(x: tf.Tensor, name: str) -> tf.Tensor:
        if normalization == "batch":
            return tf.keras.layers.BatchNormalization(name=f"{name}_norm")(x)
        return tf.keras.layers.GroupNormalization(x.shape[-1] // group_size, name=f"{name}_norm")(x)

    def convolution(x: tf.Tensor, width: int, kernel: int, stride: int, name: str) -> tf.Tensor:
        x = tf.keras.layers.Conv2D(width, kernel, strides=stride, padding="same", name=name)(x)
        return normalize(x, name)

    trunk = filters[0]
    inputs = tf.keras.Input(tuple(input_shape), name="image")
    x = convolution(inputs, trunk, 3, 2, "stem")
    x = tf.keras.layers.ReLU(name="stem_relu")(x)
    x = tf.keras.layers.MaxPooling2D(2, name="stem_pool")(x)
    for number, width in enumerate(filters[1:], start=1):
        name = f"block_{number}"
        shortcut = convolution(x, trunk, 1, 2, f"{name}_shortcut")
        x = convolution(x, width, 3, 2, f"{name}_conv_1")
        x = tf.keras.layers.ReLU(name=f"{name}_relu_1")(x)
        x = convolution(x, trunk, 3, 1, f"{name}_conv_2")
        x = tf.keras.layers.Add(name=f"{name}_add")([x, shortcut])
        x = tf.keras.layers.ReLU(name=f"{name}_relu_2")(x)
    x = tf.keras.layers.Flatten(name="flatten")(x)
    logits = tf.keras.layers.Dense(num_classes, name="logits")(x)
    return tf.keras.Model(inputs, logits, name="resnet")

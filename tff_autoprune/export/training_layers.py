"""Layers that behave otherwise in training, in operations that TFLite has.

Keras trains batch normalization with a fused operation that counts every row of a batch, and draws
dropout with operations that TFLite lacks. A client in a file has batches of a fixed size, whose
last rows may be padding: statistics leave them out here.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Optional

import tensorflow as tf

from tff_autoprune.errors import UserError

# A prime whose square fits int32, and x -> x^3 is a permutation of the numbers below it.
_PRIME = 46337


@contextlib.contextmanager
def trainable_in_tflite(model: tf.keras.Model, mask: tf.Tensor) -> Iterator[None]:
    """Replaces the calls of normalization layers while a model is traced.

    Args:
      model: The model; it is as before afterwards.
      mask: float32 [batch], 1 for examples and 0 for padding.

    Raises:
      UserError: If a layer normalizes another axis than the last.
    """
    replaced = []
    try:
        for layer in model._flatten_layers(include_self=False, recursive=True):
            for kind, build in _CALLS.items():
                if isinstance(layer, kind):
                    vars(layer)["call"] = build(layer, mask)
                    replaced.append(layer)
        yield
    finally:
        for layer in replaced:
            del vars(layer)["call"]


def _require_last_axis(layer: tf.keras.layers.Layer, rank: int) -> None:
    axis = layer.axis if isinstance(layer.axis, int) else list(layer.axis)
    if axis not in (-1, rank - 1, [-1], [rank - 1]):
        raise UserError(
            f"client: the layer {layer.name!r} normalizes axis {axis}; on a phone only the last"
            " axis can be trained."
        )


def _scale_and_offset(layer: tf.keras.layers.Layer, channels: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns what a normalization layer multiplies with and adds, each [channels]."""
    scale = tf.convert_to_tensor(layer.gamma) if layer.scale else tf.ones([channels])
    offset = tf.convert_to_tensor(layer.beta) if layer.center else tf.zeros([channels])
    return scale, offset


def _batch_normalization(
    layer: tf.keras.layers.BatchNormalization, mask: tf.Tensor
) -> Callable[..., tf.Tensor]:
    def call(inputs: tf.Tensor, training: Any = None, **unused: Any) -> tf.Tensor:
        rank = inputs.shape.rank
        _require_last_axis(layer, rank)
        scale, offset = _scale_and_offset(layer, inputs.shape[-1])
        if not layer._get_training_value(training):
            mean = tf.convert_to_tensor(layer.moving_mean)
            inverse = tf.math.rsqrt(tf.convert_to_tensor(layer.moving_variance) + layer.epsilon)
            return inputs * (inverse * scale) + (offset - mean * inverse * scale)
        axes = list(range(rank - 1))
        rows = tf.reshape(mask, [-1] + [1] * (rank - 1))
        count = tf.reduce_sum(mask) * float(inputs.shape[1:-1].num_elements())
        count = tf.maximum(count, 1.0)
        values = tf.stop_gradient(inputs)
        mean = tf.reduce_sum(values * rows, axes) / count
        variance = tf.reduce_sum(tf.square(values - mean) * rows, axes) / count
        # Keras' fused operation keeps the estimate of the population's variance.
        fused = layer.fused and rank == 4
        kept = variance * (count / tf.maximum(count - 1.0, 1.0)) if fused else variance
        for moving, now in ((layer.moving_mean, mean), (layer.moving_variance, kept)):
            moving.assign(moving.read_value() * layer.momentum + now * (1 - layer.momentum))
        inverse = tf.math.rsqrt(variance + layer.epsilon)

        # Differentiated by hand: step by step it takes three times as many operations.
        @tf.custom_gradient
        def normalized(inputs: tf.Tensor, scale: tf.Tensor, offset: tf.Tensor):
            standard = (inputs - mean) * inverse

            def gradients(gradient: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
                for_offset = tf.reduce_sum(gradient, axes)
                for_scale = tf.reduce_sum(gradient * standard, axes)
                common = (for_offset / count) + standard * (for_scale / count)
                return (gradient - common * rows) * (inverse * scale), for_scale, for_offset

            return standard * scale + offset, gradients

        return normalized(inputs, scale, offset)

    return call


def _group_normalization(
    layer: tf.keras.layers.GroupNormalization, mask: tf.Tensor
) -> Callable[..., tf.Tensor]:
    del mask  # Examples do not mix.

    def call(inputs: tf.Tensor, **unused: Any) -> tf.Tensor:
        _require_last_axis(layer, inputs.shape.rank)
        batch, channels = inputs.shape[0], inputs.shape[-1]
        # Four axes: TFLite broadcasts no more of them fast.
        shape = [batch, -1, layer.groups, channels // layer.groups]
        scale, offset = (
            tf.reshape(value, [1, 1, *shape[2:]]) for value in _scale_and_offset(layer, channels)
        )
        outputs = _standardized(tf.reshape(inputs, shape), [1, 3], layer.epsilon, scale, offset)
        return tf.reshape(outputs, inputs.shape)

    return call


def _layer_normalization(
    layer: tf.keras.layers.LayerNormalization, mask: tf.Tensor
) -> Callable[..., tf.Tensor]:
    del mask  # Examples do not mix.

    def call(inputs: tf.Tensor, **unused: Any) -> tf.Tensor:
        _require_last_axis(layer, inputs.shape.rank)
        channels = inputs.shape[-1]
        scale, offset = (
            tf.reshape(value, [1, channels]) for value in _scale_and_offset(layer, channels)
        )
        rows = tf.reshape(inputs, [-1, channels])
        outputs = _standardized(rows, [1], layer.epsilon, scale, offset)
        return tf.reshape(outputs, inputs.shape)

    return call


def _standardized(
    inputs: tf.Tensor, axes: Sequence[int], epsilon: float, scale: tf.Tensor, offset: tf.Tensor
) -> tf.Tensor:
    """Returns inputs with mean 0 and variance 1 over some axes, scaled and moved.

    Args:
      inputs: float32.
      axes: To take means over.
      epsilon: Added to the variance.
      scale: Of the rank of `inputs`; an axis of size 1 is broadcast.
      offset: Of the shape of `scale`.
    """
    shared = [axis for axis, size in enumerate(scale.shape) if size == 1 and axis not in axes]
    shared += [axis for axis in axes if scale.shape[axis] == 1 and inputs.shape[axis] > 1]

    @tf.custom_gradient
    def standardized(inputs: tf.Tensor, scale: tf.Tensor, offset: tf.Tensor):
        centred = inputs - tf.reduce_mean(inputs, axes, keepdims=True)
        variance = tf.reduce_mean(tf.square(centred), axes, keepdims=True)
        inverse = tf.math.rsqrt(variance + epsilon)
        standard = centred * inverse

        def gradients(gradient: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            scaled = gradient * scale
            common = tf.reduce_mean(scaled, axes, keepdims=True)
            common += standard * tf.reduce_mean(scaled * standard, axes, keepdims=True)
            return (
                (scaled - common) * inverse,
                tf.reduce_sum(gradient * standard, shared, keepdims=True),
                tf.reduce_sum(gradient, shared, keepdims=True),
            )

        return standard * scale + offset, gradients

    return standardized(inputs, scale, offset)


_CALLS: dict[type, Callable[..., Callable[..., tf.Tensor]]] = {
    tf.keras.layers.BatchNormalization: _batch_normalization,
    tf.keras.layers.GroupNormalization: _group_normalization,
    tf.keras.layers.LayerNormalization: _layer_normalization,
}


class SeededGenerator:
    """Draws what a layer's random generator draws, from a seed and in integers below a prime.

    TFLite's own random operations take no seed when they run. Numbers are mixed with cubes
    modulo a prime, which is ample for dropout and no more than that.
    """

    def __init__(self, seed: tf.Tensor, number: int) -> None:
        """Starts a generator.

        Args:
          seed: int32 scalar; another one for each step.
          number: Which of the model's generators this is.
        """
        self._seed = seed
        self._number = number
        self._calls = 0

    def _uniform(self, shape: Sequence[int]) -> tf.Tensor:
        """Returns float32 numbers in [0, 1), in steps of 1 / 46337."""
        self._calls += 1
        mixed = tf.math.floormod(self._seed, _PRIME)
        mixed = _mixed(mixed, tf.constant(7919 * self._number + 104729 * self._calls))
        mixed = _mixed(mixed, tf.math.floordiv(self._seed, _PRIME))
        for axis, size in enumerate(shape):
            index = tf.reshape(tf.range(size), [size] + [1] * (len(shape) - axis - 1))
            mixed = _mixed(mixed, index * 2477 + 11)
        return tf.cast(mixed, tf.float32) / float(_PRIME)

    def dropout(
        self, inputs: tf.Tensor, rate: float, noise_shape: Optional[Any] = None
    ) -> tf.Tensor:
        """Sets a share `rate` of the inputs to 0 and scales the others by 1 / (1 - rate)."""
        shape = inputs.shape if noise_shape is None else noise_shape
        # Keras gives sizes of 1, None, and tensors that are sizes of the inputs.
        known = [None if size is None else tf.get_static_value(size) for size in list(shape)]
        sizes = [full if size is None else size for size, full in zip(known, inputs.shape)]
        kept = tf.cast(self._uniform(sizes) >= rate, inputs.dtype)
        return inputs * (kept / (1 - rate))

    def __getattr__(self, name: str) -> Any:
        raise UserError(
            f"client: a layer draws {name}; on a phone only dropout is random. Train without it,"
            " or apply it to the images before they reach the client."
        )


def _mixed(state: tf.Tensor, number: tf.Tensor) -> tf.Tensor:
    """Returns the cube of a sum, modulo the prime; broadcasts."""
    total = tf.math.floormod(state + tf.math.floormod(number, _PRIME), _PRIME)
    return tf.math.floormod(tf.math.floormod(total * total, _PRIME) * total, _PRIME)

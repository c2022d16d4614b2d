"""Layers and activation functions that act on each element by itself, and softmax."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from tff_autoprune.surgery.call import Call
from tff_autoprune.surgery.layer_rules import register_activation, register_layer
from tff_autoprune.surgery.traced_tensor import Kept, TracedTensor

_layers = tf.keras.layers
_FUNCTIONS = [
    "elu",
    "exponential",
    "gelu",
    "hard_sigmoid",
    "linear",
    "mish",
    "relu",
    "selu",
    "sigmoid",
    "softplus",
    "softsign",
    "swish",
    "tanh",
]
_TF_FUNCTIONS = [
    "elu",
    "gelu",
    "leaky_relu",
    "relu",
    "relu6",
    "selu",
    "sigmoid",
    "silu",
    "swish",
    "softplus",
    "softsign",
    "tanh",
]

for _name in _FUNCTIONS:
    register_activation(getattr(tf.keras.activations, _name))
for _name in _TF_FUNCTIONS:
    register_activation(getattr(tf.nn, _name))
for _function in (tf.identity, tf.math.square, tf.math.abs, tf.math.exp, tf.math.sqrt, tf.sin):
    register_activation(_function)


@register_layer(
    _layers.ReLU,
    _layers.LeakyReLU,
    _layers.ELU,
    _layers.ThresholdedReLU,
    _layers.SpatialDropout1D,
    _layers.SpatialDropout2D,
    _layers.SpatialDropout3D,
    _layers.GaussianDropout,
    _layers.GaussianNoise,
    _layers.AlphaDropout,
    _layers.ActivityRegularization,
    _layers.Identity,
)
def _unchanged(call: Call) -> TracedTensor:
    return call.same(call.x)


@register_layer(_layers.Dropout)
def _dropout(call: Call) -> TracedTensor:
    noise_shape = call.layer.noise_shape
    if noise_shape is not None:
        for axis, size in enumerate(noise_shape):
            ids = call.along(call.x, axis) if size not in (None, 1) else None
            if ids is not None:
                call.configure(_resize_noise(axis, ids))
    return call.same(call.x)


def _resize_noise(axis: int, ids: np.ndarray) -> Callable[[dict[str, Any], Kept], None]:
    def edit(config: dict[str, Any], kept: Kept) -> None:
        shape = list(config["noise_shape"])
        shape[axis] = int(kept(ids).sum())
        config["noise_shape"] = tuple(shape)

    return edit


@register_layer(_layers.Activation)
def _activation(call: Call) -> TracedTensor:
    return call.activation(call.layer.activation, call.same(call.x))


@register_layer(_layers.Softmax)
def _softmax(call: Call) -> TracedTensor:
    axes = call.layer.axis if isinstance(call.layer.axis, (list, tuple)) else [call.layer.axis]
    return call.same(call.mix(call.x, axes, f"passes through the softmax '{call.path}'"))


@register_layer(_layers.PReLU)
def _prelu(call: Call) -> TracedTensor:
    # alpha has the input's shape without the batch, and size 1 along shared axes.
    alpha = call.layer.alpha
    for axis, size in enumerate(alpha.shape):
        if size > 1:
            call.carry(alpha, axis, call.along(call.x, axis + 1))
    return call.same(call.x)

"""Layers that work on the space of each channel by itself: pooling, padding, resizing."""

from __future__ import annotations

import tensorflow as tf

from tff_autoprune.surgery.call import Call
from tff_autoprune.surgery.layer_rules import register_layer
from tff_autoprune.surgery.rules.convolution import channel_axis, input_channels
from tff_autoprune.surgery.traced_tensor import TracedTensor

_layers = tf.keras.layers


@register_layer(
    _layers.MaxPooling1D,
    _layers.MaxPooling2D,
    _layers.MaxPooling3D,
    _layers.AveragePooling1D,
    _layers.AveragePooling2D,
    _layers.AveragePooling3D,
    _layers.UpSampling1D,
    _layers.UpSampling2D,
    _layers.UpSampling3D,
    _layers.ZeroPadding1D,
    _layers.ZeroPadding2D,
    _layers.ZeroPadding3D,
    _layers.Cropping1D,
    _layers.Cropping2D,
    _layers.Cropping3D,
    _layers.Resizing,
    _layers.CenterCrop,
)
def _windowed(call: Call) -> TracedTensor:
    axis = channel_axis(call)
    return call.tensor([call.vector(input_channels(call, axis), axis)])


@register_layer(
    _layers.GlobalMaxPooling1D,
    _layers.GlobalMaxPooling2D,
    _layers.GlobalMaxPooling3D,
    _layers.GlobalAveragePooling1D,
    _layers.GlobalAveragePooling2D,
    _layers.GlobalAveragePooling3D,
)
def _global(call: Call) -> TracedTensor:
    axis = channel_axis(call)
    ids = input_channels(call, axis)
    return call.tensor([call.vector(ids, axis if call.layer.keepdims else 1)])

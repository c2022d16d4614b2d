"""Convolutions: ordinary, grouped, transposed, depthwise, separable; one to three dimensions."""

from __future__ import annotations

from typing import Optional

import numpy as np
import tensorflow as tf

from tff_autoprune.surgery.call import Call
from tff_autoprune.surgery.layer_rules import register_layer
from tff_autoprune.surgery.traced_tensor import TracedTensor

_layers = tf.keras.layers


def channel_axis(call: Call) -> int:
    """Returns the channel axis of a layer with a `data_format`."""
    first = getattr(call.layer, "data_format", "channels_last") == "channels_first"
    return 1 if first else call.x.rank - 1


def input_channels(call: Call, axis: int) -> Optional[np.ndarray]:
    """Returns the channels of the input; the other axes but the batch are mixed."""
    space = [a for a in range(1, call.x.rank) if a != axis]
    return call.along(
        call.mix(call.x, space, f"lies along an axis that '{call.path}' slides over"), axis
    )


def _finish(call: Call, ids: Optional[np.ndarray], axis: int) -> TracedTensor:
    layer = call.layer
    if layer.use_bias:
        call.carry(layer.bias, 0, ids)
    return call.activation(layer.activation, call.tensor([call.vector(ids, axis)]))


@register_layer(_layers.Conv1D, _layers.Conv2D, _layers.Conv3D)
def _convolution(call: Call) -> TracedTensor:
    layer, axis = call.layer, channel_axis(call)
    inputs = input_channels(call, axis)
    if layer.groups > 1:
        return _finish(call, _grouped(call, inputs), axis)
    call.consume(layer.kernel, -2, inputs)
    filters = call.produce(layer.kernel, -1)
    call.resize("filters", filters)
    return _finish(call, filters, axis)


def _grouped(call: Call, inputs: Optional[np.ndarray]) -> np.ndarray:
    """Ties a grouped convolution: whole groups go, as channels of a depthwise convolution do.

    Where the input has no channels (the first layer), or where `Record.within_groups` says so, the
    same places of all groups go.
    """
    layer = call.layer
    call.record.grouped.append(layer)
    within = id(layer) in call.record.within_groups
    if within and inputs is not None:
        places = inputs.reshape(layer.groups, -1)
        call.unify(
            places, places[:1], f"shares a group of '{call.path}' with values that must stay"
        )
        call.consume(layer.kernel, -2, call.channels.find(places[0]))
    else:
        call.carry(layer.kernel, -2, None)
    filters = call.produce(layer.kernel, -1)
    blocks = filters.reshape(layer.groups, -1)
    why = f"shares a group of '{call.path}' with values that must stay"
    if inputs is None or within:
        call.unify(blocks, blocks[:1], why)
    else:
        call.unify(blocks, blocks[:, :1], why)
        call.unify(inputs.reshape(layer.groups, -1), blocks[:, :1], why)
        call.resize("groups", blocks[:, 0])
    call.resize("filters", filters)
    return call.channels.find(filters)


@register_layer(_layers.Conv1DTranspose, _layers.Conv2DTranspose, _layers.Conv3DTranspose)
def _transposed(call: Call) -> TracedTensor:
    layer, axis = call.layer, channel_axis(call)
    call.consume(layer.kernel, -1, input_channels(call, axis))
    filters = call.produce(layer.kernel, -2)
    call.resize("filters", filters)
    return _finish(call, filters, axis)


def _depthwise_channels(call: Call, kernel: tf.Variable, axis: int) -> Optional[np.ndarray]:
    """Ties a depthwise kernel; returns its output channels."""
    ids = input_channels(call, axis)
    call.carry(kernel, -2, ids)
    return None if ids is None else np.repeat(ids, kernel.shape[-1])


@register_layer(_layers.DepthwiseConv1D, _layers.DepthwiseConv2D)
def _depthwise(call: Call) -> TracedTensor:
    axis = channel_axis(call)
    return _finish(call, _depthwise_channels(call, call.layer.depthwise_kernel, axis), axis)


@register_layer(_layers.SeparableConv1D, _layers.SeparableConv2D)
def _separable(call: Call) -> TracedTensor:
    layer, axis = call.layer, channel_axis(call)
    call.consume(
        layer.pointwise_kernel, -2, _depthwise_channels(call, layer.depthwise_kernel, axis)
    )
    filters = call.produce(layer.pointwise_kernel, -1)
    call.resize("filters", filters)
    return _finish(call, filters, axis)

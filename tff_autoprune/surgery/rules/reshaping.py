"""Layers that move values without changing them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from tff_autoprune.surgery.call import Call
from tff_autoprune.surgery.layer_rules import register_layer
from tff_autoprune.surgery.traced_tensor import Kept, TracedTensor, reshape, size_along

_layers = tf.keras.layers


def reshaped(call: Call, x: TracedTensor) -> TracedTensor:
    """Returns `x` in the shape of the call's output; what cannot be told is fixed."""
    factors = []
    for factor in x.factors:
        new = reshape(x, factor, call.outputs[0].shape)
        if new is None:
            call.channels.fix(factor, f"cannot be followed through '{call.path}'")
        else:
            factors.append(new)
    return call.tensor(factors)


@register_layer(_layers.Flatten)
def _flatten(call: Call) -> TracedTensor:
    x = call.x
    if call.layer.data_format == "channels_first" and x.rank > 2:
        x = permuted(x, [0, *range(2, x.rank), 1])
    return reshaped(call, x)


@register_layer(_layers.Reshape)
def _reshape(call: Call) -> TracedTensor:
    y = reshaped(call, call.x)
    if y.factors:

        def edit(config: dict, kept: Kept) -> None:
            target = list(config["target_shape"])
            for place, size in enumerate(target):
                if size != -1:
                    target[place] = size_along(y.factors, place + 1, size, kept)
            config["target_shape"] = tuple(target)

        call.configure(edit)
    return y


def permuted(x: TracedTensor, order: Sequence[int]) -> TracedTensor:
    """Returns `x` with its axes in another order."""
    return TracedTensor(
        tuple(x.shape[axis] for axis in order),
        tuple(f.transpose(order) for f in x.factors),
        x.dtype,
    )


@register_layer(_layers.Permute)
def _permute(call: Call) -> TracedTensor:
    return call.same(permuted(call.x, [0, *call.layer.dims]))


@register_layer(_layers.RepeatVector)
def _repeat_vector(call: Call) -> TracedTensor:
    return call.tensor(f[:, np.newaxis, :] for f in call.x.factors)

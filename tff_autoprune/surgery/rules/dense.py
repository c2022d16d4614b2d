"""Layers that multiply the last axis with a matrix."""

from __future__ import annotations

import tensorflow as tf

from tff_autoprune.surgery.call import Call
from tff_autoprune.surgery.layer_rules import register_layer
from tff_autoprune.surgery.traced_tensor import TracedTensor, varying


@register_layer(tf.keras.layers.Dense)
def _dense(call: Call) -> TracedTensor:
    layer, x = call.layer, call.x
    last = x.rank - 1
    call.consume(layer.kernel, 0, call.along(x, last))
    units = call.produce(layer.kernel, 1)
    call.resize("units", units)
    if layer.use_bias:
        call.carry(layer.bias, 0, units)
    others = [f for f in call.factors_of(x) if varying(f) and last not in varying(f)]
    y = call.tensor([call.vector(units, last), *others])
    return call.activation(layer.activation, y)

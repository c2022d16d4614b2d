"""The layers that `tf.keras.applications` defines for its own models."""

from __future__ import annotations

from keras.src.applications.convnext import LayerScale, StochasticDepth
from keras.src.applications.inception_resnet_v2 import CustomScaleLayer

from tff_autoprune.surgery.call import Call
from tff_autoprune.surgery.layer_rules import register_layer
from tff_autoprune.surgery.traced_tensor import TracedTensor


@register_layer(LayerScale)
def _layer_scale(call: Call) -> TracedTensor:
    ids = call.along(call.x, -1)
    call.carry(call.layer.gamma, 0, ids)
    call.resize("projection_dim", ids)
    return call.same(call.x)


@register_layer(StochasticDepth)
def _stochastic_depth(call: Call) -> TracedTensor:
    return call.same(call.x)


@register_layer(CustomScaleLayer)
def _scaled_sum(call: Call) -> TracedTensor:
    return call.elementwise(call.inputs, f"is added by '{call.path}' to values that must stay")

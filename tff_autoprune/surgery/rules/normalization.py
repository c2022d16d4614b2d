"""Normalizations."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from tff_autoprune.surgery.call import Call
from tff_autoprune.surgery.layer_rules import register_layer
from tff_autoprune.surgery.traced_tensor import Kept, TracedTensor

_layers = tf.keras.layers
_BATCH_STATISTICS = (
    "gamma",
    "beta",
    "moving_mean",
    "moving_variance",
    "moving_stddev",
    "renorm_mean",
    "renorm_stddev",
)


@register_layer(_layers.BatchNormalization, _layers.experimental.SyncBatchNormalization)
def _batch_normalization(call: Call) -> TracedTensor:
    # Each channel has its own statistics and is normalized by itself.
    layer, x = call.layer, call.x
    axes = list(layer.axis) if isinstance(layer.axis, (list, tuple)) else [layer.axis]
    weights = [
        weight
        for weight in (getattr(layer, name, None) for name in _BATCH_STATISTICS)
        if isinstance(weight, tf.Variable)
    ]
    # A layer with virtual batches counts its axes with one axis more in front, also in its
    # configuration, where the constructor does not expect it.
    virtual = getattr(layer, "virtual_batch_size", None) is not None
    for axis in axes:
        ids = call.along(x, axis - 1 if virtual else axis)
        for weight in weights:
            # With several axes the weights have the input's rank and size 1 elsewhere.
            call.carry(weight, 0 if len(weight.shape) == 1 else axis, ids)
    if virtual:
        call.configure(lambda config, _: config.update(axis=[axis - 1 for axis in axes]))
    return call.same(x)


@register_layer(_layers.GroupNormalization)
def _group_normalization(call: Call) -> TracedTensor:
    # The channels of a group are normalized together: only whole groups can go.
    layer, x = call.layer, call.x
    axis = x.axis(layer.axis)
    why = "shares a normalization group with values that must stay"
    x = call.mix(x, [a for a in range(1, x.rank) if a != axis], why)
    ids = call.along(x, axis)
    for weight in (layer.gamma, layer.beta):
        if weight is not None:
            call.carry(weight, 0, ids)
    if ids is not None:
        blocks = ids.reshape(layer.groups, -1)
        call.unify(blocks, blocks[:, :1], why)
        call.resize("groups", blocks[:, 0])
    return call.same(x)


@register_layer(_layers.LayerNormalization)
def _layer_normalization(call: Call) -> TracedTensor:
    layer, x = call.layer, call.x
    axes = layer.axis if isinstance(layer.axis, (list, tuple)) else [layer.axis]
    why = f"is normalized by '{call.path}' together with the other channels"
    return call.same(call.mix(x, axes, why))


@register_layer(_layers.UnitNormalization)
def _unit_normalization(call: Call) -> TracedTensor:
    axes = call.layer.axis if isinstance(call.layer.axis, (list, tuple)) else [call.layer.axis]
    why = f"is normalized by '{call.path}' together with the other channels"
    return call.same(call.mix(call.x, axes, why))


@register_layer(_layers.Normalization)
def _normalization(call: Call) -> TracedTensor:
    layer, x = call.layer, call.x
    for place, axis in enumerate(layer._keep_axis):
        ids = call.along(x, axis)
        if layer.input_mean is None:
            for weight in (layer.adapt_mean, layer.adapt_variance):
                call.carry(weight, place, ids)
        elif ids is not None:
            _slice_constants(call, ids, place)
    return call.same(x)


def _slice_constants(call: Call, ids: np.ndarray, place: int) -> None:
    def edit(config: dict, kept: Kept) -> None:
        for name in ("mean", "variance"):
            value = np.asarray(config[name])
            # Constants may also be given with fewer axes, and broadcast then.
            axis = place - len(call.layer._keep_axis) + value.ndim
            if axis >= 0 and value.shape[axis] == len(ids):
                config[name] = np.compress(kept(ids), value, axis=axis)

    call.configure(edit)


@register_layer(_layers.Rescaling)
def _rescaling(call: Call) -> TracedTensor:
    ids = call.along(call.x, -1)
    if ids is not None:

        def edit(config: dict, kept: Kept) -> None:
            for name in ("scale", "offset"):
                value = np.asarray(config[name])
                if value.ndim and value.shape[-1] == len(ids):
                    config[name] = np.compress(kept(ids), value, axis=-1).tolist()

        call.configure(edit)
    return call.same(call.x)

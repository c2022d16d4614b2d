"""Layers around other layers."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import tensorflow as tf

from tff_autoprune.surgery.call import Call
from tff_autoprune.surgery.layer_rules import register_layer
from tff_autoprune.surgery.rules.merging import concatenate
from tff_autoprune.surgery.traced_tensor import Kept, TracedTensor

_layers = tf.keras.layers


@register_layer(_layers.TimeDistributed)
def _time_distributed(call: Call) -> list[TracedTensor]:
    """Traces the inner layer on one step; channels along the time axis are mixed."""
    why = f"lies along the time axis of '{call.path}'"
    steps = [_one_step(call.mix(x, [1], why)) for x in call.inputs]
    if len(call.inputs) > 1:
        return call.opaque(f"reaches '{call.path}' together with other tensors")
    times = call.x.shape[1] or 1
    inner = call.subcall(call.layer.layer, steps, [_one_step(y) for y in call.outputs], times)
    return [
        call.tensor([np.expand_dims(f, 1) for f in y.factors], place)
        for place, y in enumerate(inner)
    ]


def _one_step(x: TracedTensor) -> TracedTensor:
    return dataclasses.replace(
        x,
        shape=(x.shape[0], *x.shape[2:]),
        factors=tuple(np.squeeze(f, 1) for f in x.factors),
    )


@register_layer(_layers.Bidirectional)
def _bidirectional(call: Call) -> list[TracedTensor]:
    """Traces both directions.

    Their units go in pairs, unless the backward layer was given and has settings of its own.
    """
    layer = call.layer
    x, *states = call.operands()
    directions = (layer.forward_layer, layer.backward_layer)
    known = (_layers.LSTM, _layers.GRU, _layers.SimpleRNN)
    if states or not all(isinstance(inner, known) for inner in directions):
        return call.opaque(f"reaches '{call.path}', which cannot be followed")
    merged = 1 if layer.merge_mode else 2
    of_each = (len(call.outputs) - merged) // 2
    forward, backward = (
        call.subcall(inner, [x], _templates(call, inner, of_each)) for inner in directions
    )
    if not hasattr(layer, "_backward_layer_config"):
        for one, other in zip(forward, backward):
            for first, second in zip(one.factors, other.factors):
                call.unify(first, second, f"shares the units of '{call.path}' with fixed ones")
    call.configure(_edit_inner(call))
    states = [*forward[1:], *backward[1:]]
    if layer.merge_mode is None:
        return [forward[0], backward[0], *states]
    if layer.merge_mode == "concat":
        first = concatenate(call, [forward[0], backward[0]], -1)
    else:
        first = call.elementwise([forward[0], backward[0]])
    return [first, *states]


def _templates(call: Call, inner: Any, states: int) -> list[TracedTensor]:
    """Returns the outputs of one direction without channels: what it gives out, and its states."""
    y = call.outputs[0]
    output = TracedTensor((*y.shape[:-1], inner.units), (), y.dtype)
    return [output, *[TracedTensor((y.shape[0], inner.units), (), y.dtype)] * states]


def _edit_inner(call: Call) -> Any:
    layer = call.layer
    directions = {"layer": layer.forward_layer, "backward_layer": layer.backward_layer}

    def edit(config: dict[str, Any], kept: Kept) -> None:
        for name, inner in directions.items():
            if name in config:
                for inner_edit in call.record.settings.get(id(inner), ()):
                    inner_edit(config[name]["config"], kept)

    return edit

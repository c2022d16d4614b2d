"""Attention: multi-head attention loses whole heads."""

from __future__ import annotations

from typing import Any, Optional

import numpy as np
import tensorflow as tf

from tff_autoprune.surgery.call import Call
from tff_autoprune.surgery.layer_rules import register_layer
from tff_autoprune.surgery.traced_tensor import Kept, TracedTensor

_layers = tf.keras.layers


@register_layer(_layers.MultiHeadAttention)
def _multi_head(call: Call) -> list[TracedTensor]:
    layer = call.layer
    output_dense = layer._output_dense
    if len(output_dense.kernel.shape) != 3:
        return call.opaque(f"reaches '{call.path}', whose output has several axes")
    query, value, key = _operands(call)
    projections = {
        "query": (layer._query_dense, query),
        "key": (layer._key_dense, key),
        "value": (layer._value_dense, value),
    }
    why = f"shares a head of '{call.path}' with values that must stay"
    heads: Optional[np.ndarray] = None
    read: dict[str, Optional[np.ndarray]] = {}
    for name, (dense, x) in projections.items():
        part = call.part(name)
        x = part.mix(x, range(1, x.rank - 1), f"lies along an axis that '{call.path}' attends to")
        read[name] = part.along(x, -1)
        part.consume(dense.kernel, 0, read[name])
        own = part.produce(dense.kernel, 1)
        heads = own if heads is None else heads
        call.unify(heads, own, why)
        if layer._use_bias:
            part.carry(dense.bias, 0, own)
    heads = call.channels.find(heads)
    part = call.part("attention_output")
    part.consume(output_dense.kernel, 0, heads)
    made = part.produce(output_dense.kernel, 2)
    if layer._use_bias:
        part.carry(output_dense.bias, 0, made)
    call.resize("num_heads", heads)
    call.configure(_edit_shapes(read, made))
    outputs = [call.tensor([call.vector(made, query.rank - 1)])]
    if len(call.outputs) > 1:  # The scores, of shape [batch, heads, ...].
        outputs.append(call.tensor([call.vector(heads, 1, 1)], 1))
    return outputs


def _operands(call: Call) -> tuple[TracedTensor, TracedTensor, TracedTensor]:
    names = ("query", "value", "key", "attention_mask")
    given: dict[str, Any] = {**dict(zip(names, call.args)), **call.kwargs}
    mask = given.get("attention_mask")
    if isinstance(mask, TracedTensor):
        call.fix(mask, f"masks '{call.path}'")
    key = given.get("key")
    return given["query"], given["value"], given["value"] if key is None else key


def _edit_shapes(read: dict[str, Optional[np.ndarray]], made: np.ndarray) -> Any:
    """Returns an edit of the sizes that the layer remembers of its inputs and output."""

    def edit(config: dict[str, Any], kept: Kept) -> None:
        for name, ids in read.items():
            if ids is not None:
                shape = tf.TensorShape(config[f"{name}_shape"]).as_list()
                config[f"{name}_shape"] = tf.TensorShape([*shape[:-1], int(kept(ids).sum())])
        size = int(kept(made).sum())
        if config["output_shape"] or size != config["query_shape"][-1]:
            config["output_shape"] = (size,)

    return edit


@register_layer(_layers.Attention, _layers.AdditiveAttention)
def _attention(call: Call) -> list[TracedTensor]:
    query, value, *key = call.operands()
    why = f"is compared by '{call.path}'"
    call.fix(query, why)
    for tensor in key or [value]:
        call.fix(tensor, why)
    value = call.mix(value, range(1, value.rank - 1), f"is averaged over by '{call.path}'")
    ids = call.along(value, -1)
    outputs = [call.tensor([call.vector(ids, call.outputs[0].rank - 1)])]
    return [*outputs, *call.outputs[1:]]

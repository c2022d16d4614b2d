"""Embedding and recurrent layers, pruned by units."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tff_autoprune.surgery import layer_rules as registry
from tff_autoprune.surgery.call import Call
from tff_autoprune.surgery.layer_rules import register_layer
from tff_autoprune.surgery.traced_tensor import TracedTensor

_layers = tf.keras.layers
#: By number of gates.
_CELLS = {4: _layers.LSTMCell, 3: _layers.GRUCell, 1: _layers.SimpleRNNCell}


@register_layer(_layers.Embedding)
def _embedding(call: Call) -> TracedTensor:
    layer = call.layer
    call.fix(call.x, f"is looked up by '{call.path}'")
    units = call.produce(layer.embeddings, 1)
    call.resize("output_dim", units)
    return call.tensor([call.vector(units, call.outputs[0].rank - 1)])


def _recurrent(call: Call, gates: int) -> list[TracedTensor]:
    """Traces a recurrent layer whose weights have one block of units for each gate."""
    layer = call.layer
    cell = layer.cell
    if type(cell).call is not _CELLS[gates].call or registry.call_is_replaced(cell):
        return call.opaque(f"reaches '{call.path}', whose cell is not known")
    x, *states = call.operands()
    x = call.mix(x, range(1, x.rank - 1), f"is read in turn by '{call.path}'")
    call.consume(cell.kernel, 0, call.along(x, -1))
    units = _units(call, cell.kernel, gates)
    call.unify(units, _units(call, cell.recurrent_kernel, gates), "")
    units = call.channels.find(units)
    call.consume(cell.recurrent_kernel, 0, units)
    if cell.use_bias:
        # With reset_after, GRU has one row of biases for the input and one for the state.
        call.carry(cell.bias, -1, np.tile(units, gates))
    for state in states:
        ids = call.along(state, -1)
        if ids is None:
            call.channels.fix(units, f"has its first state given to '{call.path}'")
        else:
            call.unify(units, ids, f"has its first state given to '{call.path}'")
    functions = [layer.activation, getattr(layer, "recurrent_activation", None)]
    for function in functions:
        if function is not None and not registry.is_elementwise(function):
            call.channels.fix(units, f"passes through {function}, which may mix units")
    call.resize("units", units)
    return [
        call.tensor([call.vector(units, output.rank - 1, place)], place)
        for place, output in enumerate(call.outputs)
    ]


def _units(call: Call, kernel: tf.Variable, gates: int) -> np.ndarray:
    blocks = call.produce(kernel, 1, copies=gates).reshape(gates, -1)
    call.unify(blocks, blocks[:1], "")
    return call.channels.find(blocks[0])


@register_layer(_layers.LSTM)
def _lstm(call: Call) -> list[TracedTensor]:
    return _recurrent(call, 4)


@register_layer(_layers.GRU)
def _gru(call: Call) -> list[TracedTensor]:
    return _recurrent(call, 3)


@register_layer(_layers.SimpleRNN)
def _simple_rnn(call: Call) -> list[TracedTensor]:
    return _recurrent(call, 1)


@register_layer(_layers.Masking)
def _masking(call: Call) -> TracedTensor:
    # A step is masked when all its values equal the mask value.
    axes: Sequence[Any] = [call.x.rank - 1]
    return call.same(call.mix(call.x, axes, f"decides together with others in '{call.path}'"))

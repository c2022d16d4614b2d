"""Layers with several inputs: element by element, or side by side."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from tff_autoprune.surgery.call import Call
from tff_autoprune.surgery.channels import NONE
from tff_autoprune.surgery.layer_rules import register_layer
from tff_autoprune.surgery.traced_tensor import TracedTensor, varying

_layers = tf.keras.layers


@register_layer(
    _layers.Add,
    _layers.Subtract,
    _layers.Multiply,
    _layers.Average,
    _layers.Maximum,
    _layers.Minimum,
)
def _elementwise(call: Call) -> TracedTensor:
    return call.elementwise(call.inputs, f"is merged by '{call.path}' with values that must stay")


def concatenate(call: Call, tensors: Sequence[TracedTensor], axis: int) -> TracedTensor:
    """Returns the tensors side by side along `axis`."""
    axis = tensors[0].axis(axis)
    along: list[list[np.ndarray]] = [[] for _ in tensors]
    across: list[list[np.ndarray]] = [[] for _ in tensors]
    for place, tensor in enumerate(tensors):
        for factor in call.factors_of(tensor):
            if axis in varying(factor) or (not varying(factor) and tensor.shape[axis] == 1):
                along[place].append(factor)
            elif varying(factor):
                across[place].append(factor)
            else:
                call.channels.fix(
                    factor, f"is one channel for all of what '{call.path}' puts side by side"
                )
    result = []
    if any(along):
        result.append(_joined(call, tensors, along, axis))
    if any(across):
        # Channels on other axes run through all inputs, whose sizes along `axis` play no role.
        parts = [
            TracedTensor((*tensor.shape[:axis], None, *tensor.shape[axis + 1 :]), tuple(factors))
            for tensor, factors in zip(tensors, across)
        ]
        result.extend(
            call.elementwise(
                parts, f"is concatenated with values that must stay in '{call.path}'"
            ).factors
        )
    return call.tensor(result)


def _joined(
    call: Call,
    tensors: Sequence[TracedTensor],
    along: Sequence[Sequence[np.ndarray]],
    axis: int,
) -> np.ndarray:
    pieces = []
    for tensor, factors in zip(tensors, along):
        shape = [1] * tensor.rank
        shape[axis] = tensor.shape[axis]
        piece = np.full(shape, NONE)
        for factor in factors:
            full = list(factor.shape)
            full[axis] = tensor.shape[axis]
            factor = np.broadcast_to(factor, full)
            if (piece == NONE).all():
                piece = factor
            else:
                call.unify(
                    piece, factor, f"shares a place in '{call.path}' with values that must stay"
                )
                piece = np.broadcast_arrays(piece, factor)[0]
        pieces.append(piece)
    others = [
        max(piece.shape[a] for piece in pieces) if a != axis else None
        for a in range(tensors[0].rank)
    ]
    pieces = [
        np.broadcast_to(
            piece, [piece.shape[a] if size is None else size for a, size in enumerate(others)]
        )
        for piece in pieces
    ]
    return np.concatenate(pieces, axis=axis)


@register_layer(_layers.Concatenate)
def _concatenate(call: Call) -> TracedTensor:
    return concatenate(call, call.inputs, call.layer.axis)

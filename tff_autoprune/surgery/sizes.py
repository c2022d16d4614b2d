"""Integers that a model computes from the sizes of its tensors.

`tf.tile(g, [1, s[1], s[2], 1])` with `s = tf.shape(x)` depends on two sizes of x. For each element
of such a tensor it is known which sizes it comes from. What is made of them may use sizes of batch
and space freely. A size along which channels lie would change with pruning: where one is used, the
channels stay.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import tensorflow as tf

from tff_autoprune.surgery.call import Call
from tff_autoprune.surgery.traced_tensor import (
    SizeOf,
    TracedSizes,
    TracedTensor,
    numbers,
    object_array,
    varying,
)

# These put elements in other places and change none.
_MOVING = frozenset(
    {
        "__operators__.getitem",
        "compat.v1.gather",
        "concat",
        "expand_dims",
        "gather",
        "identity",
        "reshape",
        "slice",
        "split",
        "squeeze",
        "stack",
        "strided_slice",
        "tile",
        "transpose",
        "unstack",
    }
)
# Stand for the elements while a moving operator is run on their numbers.
_FIRST_NUMBER = -(2**30)


def shape_of(call: Call) -> TracedSizes:
    """Returns what `tf.shape(x)` gives."""
    x, template = call.x, call.outputs[0]
    of = object_array([x.rank], frozenset())
    for axis in range(x.rank):
        of[axis] = frozenset({SizeOf(x, axis)})
    values = object_array([x.rank], None)
    values[:] = x.shape
    return TracedSizes((x.rank,), (), template.dtype, values, of)


def of_all_axes(call: Call) -> TracedSizes:
    """Returns what `tf.size(x)` gives."""
    x, template = call.x, call.outputs[0]
    every = frozenset(SizeOf(x, axis, exact=False) for axis in range(x.rank))
    return TracedSizes(template.shape, (), template.dtype, template.values, object_array((), every))


def only_sizes(call: Call) -> bool:
    """Returns whether a call is an operator on sizes and constants."""
    inputs = call.inputs
    return call.is_operator and bool(inputs) and all(isinstance(x, TracedSizes) for x in inputs)


def follow(call: Call) -> list[TracedSizes]:
    """Returns the outputs of an operator on sizes and constants."""
    if call.layer.symbol in _MOVING:
        try:
            return _moved(call)
        except (TypeError, ValueError, IndexError, tf.errors.InvalidArgumentError):
            pass  # By a place that is itself computed.
    every = frozenset(
        size._replace(exact=False) for x in call.inputs for of in x.of.reshape(-1) for size in of
    )
    return [
        TracedSizes(y.shape, (), y.dtype, y.values, object_array((), every)) for y in call.outputs
    ]


def fix(call: Call, of: Iterable[frozenset[SizeOf]]) -> None:
    """Keeps the channels whose number a call is given."""
    reason = f"has its number of channels (tf.shape) used by '{call.path}'"
    for size in frozenset().union(*of):
        for factor in call.factors_of(size.tensor):
            if size.axis in varying(factor):
                call.channels.fix(factor, reason)


def shape_follows(call: Call, shape: Any, y: TracedTensor) -> set[int]:
    """Reads a computed shape that an operator gives its output.

    Where the shape has the size of an axis along which other channels lie, these become one with
    the output's, so that the size is right after a removal too. All other channels stay whose
    number the shape depends on.

    Args:
      call: The call.
      shape: The argument: a list of sizes, or a tensor of them.
      y: The output.

    Returns:
      The axes of the output whose size follows.
    """
    if isinstance(shape, TracedSizes):
        if not shape.of.shape:
            fix(call, [shape.of.item()])
            return set()
        elements = list(shape.of)
    elif isinstance(shape, TracedTensor):
        return set()
    else:
        elements = [
            part.of.item() if isinstance(part, TracedSizes) else frozenset() for part in shape
        ]
    following = set()
    for axis, of in enumerate(elements):
        size = next(iter(of)) if len(of) == 1 else None
        if size is not None and size.exact and _made_one(call, size, y, axis):
            following.add(axis)
        else:
            fix(call, [of])
    return following


def _made_one(call: Call, size: SizeOf, y: TracedTensor, axis: int) -> bool:
    theirs = [f for f in call.factors_of(size.tensor) if size.axis in varying(f)]
    own = [f for f in call.factors_of(y) if axis in varying(f)]
    if not theirs and not own:
        return True
    one_each = len(theirs) == len(own) == 1
    if not one_each or len(varying(theirs[0])) > 1 or len(varying(own[0])) > 1:
        return False
    if theirs[0].size != own[0].size:
        return False
    call.unify(theirs[0].reshape(-1), own[0].reshape(-1), f"gives its size to '{call.path}'")
    return True


def _moved(call: Call) -> list[TracedSizes]:
    """Runs the operator on numbers of elements, and looks up the elements that come out."""
    elements: list[tuple[Any, Any]] = []

    def number(value: Any) -> Any:
        if not isinstance(value, TracedSizes):
            return value
        if None in value.shape:
            raise ValueError
        known = numbers(value)
        places = np.zeros(value.shape, np.int32)
        of = np.broadcast_to(value.of, value.shape)
        for index in np.ndindex(places.shape):
            places[index] = _FIRST_NUMBER + len(elements)
            elements.append((of[index], known[index]))
        return tf.constant(places)

    args, kwargs = tf.nest.map_structure(number, (call.args, call.kwargs))
    with tf.init_scope():
        results = tf.nest.flatten(call.layer(*args, **kwargs))
    outputs = []
    for result, template in zip(results, call.outputs):
        result = np.asarray(result)
        of, values = object_array(result.shape, frozenset()), object_array(result.shape, None)
        for index in np.ndindex(result.shape):
            place = int(result[index]) - _FIRST_NUMBER
            if 0 <= place < len(elements):
                of[index], values[index] = elements[place]
            else:
                values[index] = int(result[index])
        outputs.append(TracedSizes(result.shape, (), template.dtype, values, of))
    return outputs

"""TensorFlow functions applied to Keras tensors: element by element, and over whole axes.

Keras wraps `x + y`, `tf.nn.relu(x)`, `tf.reduce_mean(x, [1, 2])` and the like in operator layers.
Constant operands with one value for each channel are cut together with the channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tff_autoprune.surgery.call import Call
from tff_autoprune.surgery.layer_rules import register_operator
from tff_autoprune.surgery.traced_tensor import Kept, TracedTensor, varying

_ONE_OPERAND = {
    "x": "cast math.abs math.acos math.acosh math.asin math.asinh math.atan math.atanh math.ceil "
    "math.cos math.cosh math.erf math.exp math.expm1 math.floor math.is_finite math.is_inf "
    "math.is_nan math.lgamma math.log math.log1p math.log_sigmoid math.logical_not math.negative "
    "math.reciprocal math.reciprocal_no_nan math.rint math.round math.rsqrt math.sigmoid math.sign "
    "math.sin math.sinh math.sqrt math.square math.tan math.tanh nn.dropout",
    "features": "nn.elu nn.gelu nn.leaky_relu nn.relu nn.relu6 nn.selu nn.silu math.softplus "
    "nn.softsign",
    "input": "identity stop_gradient zeros_like ones_like",
}
_TWO_OPERANDS = (
    "__operators__.add math.add math.atan2 math.divide_no_nan math.equal compat.v1.floor_div "
    "math.floordiv math.floormod math.greater math.greater_equal math.less math.less_equal "
    "math.logical_and math.logical_or math.logical_xor math.maximum math.minimum math.multiply "
    "math.multiply_no_nan math.not_equal math.pow math.squared_difference math.subtract "
    "math.truediv math.divide"
)
_REDUCTIONS = (
    "math.reduce_all math.reduce_any math.reduce_euclidean_norm math.reduce_logsumexp "
    "math.reduce_max math.reduce_mean math.reduce_min math.reduce_prod math.reduce_std "
    "math.reduce_sum math.reduce_variance"
)


def elementwise(call: Call, operands: Sequence[Any], names: Sequence[str]) -> TracedTensor:
    """Returns the output of an operator on the elements of tensors and constants.

    Args:
      call: The call.
      operands: Traced tensors and constants.
      names: Their names in the operator's signature.
    """
    tensors = [value for value in operands if isinstance(value, TracedTensor)]
    y = call.elementwise(tensors, f"meets values that must stay in '{call.path}'")
    for name, value in zip(names, operands):
        if value is None or isinstance(value, TracedTensor):
            continue
        shape = np.shape(value)
        for axis, size in enumerate(shape):
            if size > 1:
                ids = call.along(y, axis - len(shape))
                if ids is not None:
                    call.replace_argument(name, _without(axis, ids))
    return y


def _without(axis: int, ids: np.ndarray) -> Any:
    """Returns an edit that removes from a constant what goes along one of its axes."""

    def edit(value: Any, kept: Kept) -> Any:
        new = np.compress(kept(ids), np.asarray(value), axis=axis)
        if tf.is_tensor(value):
            return tf.constant(new, value.dtype)
        return new if isinstance(value, np.ndarray) else new.tolist()

    return edit


def _register_one_operand(name: str, symbols: str) -> None:
    @register_operator(*symbols.split())
    def _rule(call: Call) -> TracedTensor:
        return elementwise(call, [call.argument(name)], [name])


for _name, _symbols in _ONE_OPERAND.items():
    _register_one_operand(_name, _symbols)


def _operands(call: Call, *names: str) -> TracedTensor:
    return elementwise(call, [call.argument(name) for name in names], names)


@register_operator(*_TWO_OPERANDS.split())
def _two_operands(call: Call) -> TracedTensor:
    return _operands(call, "x", "y")


@register_operator("where")
def _where(call: Call) -> Any:
    if call.argument("x") is None:
        return call.opaque(f"is searched by '{call.path}'")
    return _operands(call, "condition", "x", "y")


@register_operator("clip_by_value")
def _clip(call: Call) -> TracedTensor:
    return _operands(call, "t", "clip_value_min", "clip_value_max")


@register_operator("math.add_n")
def _add_n(call: Call) -> TracedTensor:
    if len(call.inputs) == len(tf.nest.flatten(call.argument("inputs"))):
        return call.elementwise(call.inputs)
    return call.opaque(f"is added to a constant in '{call.path}'")[0]


@register_operator("nn.bias_add")
def _bias_add(call: Call) -> Any:
    if str(call.argument("data_format") or "N...C").startswith("NC"):
        return call.opaque(f"reaches '{call.path}' with channels first")
    return _operands(call, "value", "bias")


@register_operator(*_REDUCTIONS.split())
def _reduction(call: Call) -> TracedTensor:
    x = call.x
    axes = call.axes(x)
    x = call.mix(x, axes, f"is reduced to one value by '{call.path}'")
    if call.argument("keepdims"):
        return call.tensor(x.factors)
    return call.tensor(np.squeeze(f, axis=tuple(axes)) for f in x.factors if varying(f))


@register_operator("math.argmax", "math.argmin")
def _arg_extreme(call: Call) -> TracedTensor:
    axis = 0 if call.argument("axis") is None else call.axes(call.x)[0]
    x = call.mix(call.x, [axis], f"is searched by '{call.path}'")
    return call.tensor(np.squeeze(f, axis=x.axis(axis)) for f in x.factors if varying(f))


def _register_mixing(symbols: str, default: Any) -> None:
    @register_operator(*symbols.split())
    def _rule(call: Call) -> TracedTensor:
        axes = call.axes(call.x, default)
        return call.same(call.mix(call.x, axes, f"is mixed with other channels by '{call.path}'"))


_register_mixing("nn.softmax nn.log_softmax", -1)
_register_mixing("math.l2_normalize", None)
_register_mixing("math.cumsum math.cumprod", 0)
_register_mixing("roll", None)
_register_mixing("nn.local_response_normalization", -1)

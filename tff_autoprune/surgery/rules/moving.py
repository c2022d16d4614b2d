"""TensorFlow functions that move values without changing them: transposes, padding, stacking.

Constant sizes and bounds in their arguments follow what is left of the channels.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Optional

import numpy as np
import tensorflow as tf

from tff_autoprune.surgery import sizes
from tff_autoprune.surgery.call import Call
from tff_autoprune.surgery.channels import NONE
from tff_autoprune.surgery.layer_rules import register_operator
from tff_autoprune.surgery.rules.merging import concatenate
from tff_autoprune.surgery.rules.reshaping import permuted, reshaped
from tff_autoprune.surgery.traced_tensor import Kept, TracedTensor, is_computed, size_along, varying


@register_operator("shape", "compat.v1.shape")
def _shape(call: Call) -> TracedTensor:
    return sizes.shape_of(call)


@register_operator("size", "compat.v1.size")
def _size(call: Call) -> TracedTensor:
    return sizes.of_all_axes(call)


@register_operator("rank")
def _rank(call: Call) -> TracedTensor:
    return call.outputs[0]


@register_operator("ensure_shape")
def _ensure_shape(call: Call) -> TracedTensor:
    y = call.tensor(call.x.factors)
    resize_shape(call, "shape", y)
    return y


@register_operator("reshape")
def _reshape(call: Call) -> TracedTensor:
    y = reshaped(call, call.argument("tensor"))
    following = sizes.shape_follows(call, call.argument("shape"), y)
    resize_shape(call, "shape", y, following)
    return y


def resize_shape(call: Call, name: str, y: TracedTensor, following: Collection[int] = ()) -> None:
    """Makes an argument with the sizes of all axes of the output follow its channels.

    Args:
      call: The call.
      name: Name of the argument.
      y: The output.
      following: Axes whose size in the argument is computed and follows by itself.
    """
    axes = {axis for factor in call.factors_of(y) for axis in varying(factor)} - set(following)
    if not axes:
        return
    value = call.argument(name)
    if isinstance(value, TracedTensor) or any(is_computed(value[axis]) for axis in axes):
        call.fix(y, f"gets a computed size in '{call.path}'")
        return

    def edit(shape: Any, kept: Kept) -> Any:
        new = list(shape.numpy() if tf.is_tensor(shape) else shape)
        for axis in axes:
            if new[axis] is not None and int(new[axis]) != -1:
                new[axis] = size_along(y.factors, axis, y.shape[axis], kept)
        return new

    call.replace_argument(name, edit)


@register_operator("transpose", "compat.v1.transpose")
def _transpose(call: Call) -> TracedTensor:
    x = call.x
    if call.argument("perm") is None:
        return call.tensor(permuted(x, list(range(x.rank))[::-1]).factors)
    order = call.numbers("perm")
    if order is None or None in order:
        return call.opaque(f"is transposed by a computed order in '{call.path}'")[0]
    return call.tensor(permuted(x, order).factors)


@register_operator("expand_dims")
def _expand_dims(call: Call) -> TracedTensor:
    (axis,) = call.axes(call.outputs[0])
    return call.tensor(np.expand_dims(f, axis) for f in call.x.factors)


@register_operator("squeeze", "compat.v1.squeeze")
def _squeeze(call: Call) -> TracedTensor:
    x = call.x
    axis = call.argument("axis", call.argument("squeeze_dims"))
    if axis is None:
        axes = tuple(a for a, size in enumerate(x.shape) if size == 1)
    else:
        axes = tuple(x.axis(int(a)) for a in np.ravel(np.asarray(axis)))
    return call.tensor(np.squeeze(f, axis=axes) for f in x.factors)


@register_operator("concat")
def _concat(call: Call) -> TracedTensor:
    values = call.argument("values")
    if not all(isinstance(value, TracedTensor) for value in values):
        return call.opaque(f"is concatenated with a constant in '{call.path}'")[0]
    return concatenate(call, values, call.axes(values[0])[0])


@register_operator("stack")
def _stack(call: Call) -> TracedTensor:
    values = call.argument("values")
    if not all(isinstance(value, TracedTensor) for value in values):
        return call.opaque(f"is stacked with a constant in '{call.path}'")[0]
    (axis,) = call.axes(call.outputs[0], 0)
    widened = [
        TracedTensor(
            (*x.shape[:axis], None, *x.shape[axis:]),
            tuple(np.expand_dims(f, axis) for f in call.factors_of(x)),
        )
        for x in values
    ]
    return call.elementwise(widened, f"is stacked with values that must stay in '{call.path}'")


@register_operator("tile")
def _tile(call: Call) -> TracedTensor:
    multiples = call.numbers("multiples")
    factors = []
    for factor in call.factors_of(call.x):
        repeats = [multiples[a] if a in varying(factor) else 1 for a in range(call.x.rank)]
        if None in repeats:
            call.channels.fix(factor, f"is repeated a computed number of times by '{call.path}'")
        else:
            factors.append(np.tile(factor, [int(number) for number in repeats]))
    return call.tensor(factors)


@register_operator("repeat")
def _repeat(call: Call) -> TracedTensor:
    x = call.x
    if call.argument("axis") is None:
        return call.opaque(f"is repeated by '{call.path}'")[0]
    (axis,), repeats = call.axes(x), call.numbers("repeats")
    factors = []
    for factor in call.factors_of(x):
        if axis in varying(factor):
            if repeats is None or repeats.size != 1 or repeats.item() is None:
                call.channels.fix(factor, f"is repeated in a computed way by '{call.path}'")
                continue
            factor = np.repeat(factor, repeats.item(), axis)
        factors.append(factor)
    return call.tensor(factors)


@register_operator("reverse")
def _reverse(call: Call) -> TracedTensor:
    axes = call.axes(call.x)
    return call.tensor(np.flip(f, axes) for f in call.factors_of(call.x))


@register_operator("broadcast_to")
def _broadcast_to(call: Call) -> TracedTensor:
    y = call.elementwise([call.x, call.outputs[0]], "") if not call.x.factors else _spread(call)
    resize_shape(call, "shape", y)
    return y


def _spread(call: Call) -> TracedTensor:
    missing = call.outputs[0].rank - call.x.rank
    return call.tensor(f.reshape((1,) * missing + f.shape) for f in call.x.factors)


@register_operator("pad", "compat.v1.pad")
def _pad(call: Call) -> TracedTensor:
    x = call.x
    mode = str(call.argument("mode", "CONSTANT")).upper()
    widths = call.numbers("paddings")
    if widths is None:
        return call.opaque(f"is padded by a computed number in '{call.path}'")[0]
    factors = []
    for factor in call.factors_of(x):
        if any(None in widths[axis] for axis in varying(factor)):
            call.channels.fix(factor, f"is padded by a computed number in '{call.path}'")
            continue
        padded = [axis for axis in varying(factor) if widths[axis].any()]
        if padded and mode != "CONSTANT":
            call.channels.fix(factor, f"is padded with copies of channels by '{call.path}'")
            continue
        own = [tuple(widths[axis]) if axis in padded else (0, 0) for axis in range(x.rank)]
        factors.append(np.pad(factor, own, constant_values=NONE))
    return call.tensor(factors)


@register_operator("nn.depth_to_space")
def _depth_to_space(call: Call) -> Any:
    if call.argument("data_format", "NHWC") != "NHWC":
        return call.opaque(f"reaches '{call.path}' with channels first")
    ids = _channels_of_image(call)
    if ids is not None:
        # Each output channel is made of block_size ** 2 input channels.
        blocks = ids.reshape(int(call.argument("block_size")) ** 2, -1)
        call.unify(blocks, blocks[:1], f"is woven with values that must stay in '{call.path}'")
        ids = blocks[0]
    return call.tensor([call.vector(ids, 3)])


@register_operator("nn.space_to_depth")
def _space_to_depth(call: Call) -> Any:
    if call.argument("data_format", "NHWC") != "NHWC":
        return call.opaque(f"reaches '{call.path}' with channels first")
    ids = _channels_of_image(call)
    if ids is not None:
        ids = np.tile(ids, int(call.argument("block_size")) ** 2)
    return call.tensor([call.vector(ids, 3)])


@register_operator(
    "image.resize",
    "nn.max_pool",
    "nn.max_pool1d",
    "nn.max_pool2d",
    "nn.avg_pool",
    "nn.avg_pool1d",
    "nn.avg_pool2d",
)
def _image(call: Call) -> Any:
    if str(call.argument("data_format") or "N...C").startswith("NC"):
        return call.opaque(f"reaches '{call.path}' with channels first")
    if any(size != 1 for size in np.ravel(call.argument("ksize", 1))[3:]):
        return call.opaque(f"is pooled over channels by '{call.path}'")
    return call.tensor([call.vector(_channels_of_image(call), call.x.rank - 1)])


def _channels_of_image(call: Call) -> Optional[np.ndarray]:
    x = call.mix(call.x, range(1, call.x.rank - 1), f"is spread over space before '{call.path}'")
    return call.along(x, -1)

"""TensorFlow functions that move values without changing them: slices, splits, transposes.

Constant sizes and bounds in their arguments follow what is left of the channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Optional

import numpy as np
import tensorflow as tf

from tff_autoprune.surgery.call import Call
from tff_autoprune.surgery.channels import NONE
from tff_autoprune.surgery.layer_rules import register_operator
from tff_autoprune.surgery.rules.merging import concatenate
from tff_autoprune.surgery.rules.reshaping import permuted, reshaped
from tff_autoprune.surgery.traced_tensor import Kept, TracedShape, TracedTensor, size_along, varying


@register_operator("shape", "compat.v1.shape")
def _shape(call: Call) -> TracedTensor:
    # Sizes that channels depend on would change what is computed from them; see `_slices`.
    template = call.outputs[0]
    return TracedShape(template.shape, (), template.dtype, of=call.x)


@register_operator("rank")
def _rank(call: Call) -> TracedTensor:
    return call.outputs[0]


@register_operator("reshape")
def _reshape(call: Call) -> TracedTensor:
    y = reshaped(call, call.argument("tensor"))
    resize_shape(call, "shape", y)
    return y


def resize_shape(call: Call, name: str, y: TracedTensor) -> None:
    """Makes an argument with the sizes of all axes of the output follow its channels."""
    axes = {axis for factor in call.factors_of(y) for axis in varying(factor)}
    if not axes:
        return
    value = call.argument(name)
    if isinstance(value, TracedTensor):
        call.fix(y, f"gets a computed shape in '{call.path}'")
        return

    def edit(shape: Any, kept: Kept) -> list[Any]:
        sizes = list(shape.numpy() if tf.is_tensor(shape) else shape)
        for axis in axes:
            computed = hasattr(sizes[axis], "_keras_history")
            if not computed and int(sizes[axis]) != -1:
                sizes[axis] = size_along(y.factors, axis, y.shape[axis], kept)
        return sizes

    call.replace_argument(name, edit)


@register_operator("transpose", "compat.v1.transpose")
def _transpose(call: Call) -> TracedTensor:
    x = call.x
    order = call.argument("perm")
    order = list(range(x.rank))[::-1] if order is None else [int(a) for a in np.asarray(order)]
    return call.tensor(permuted(x, order).factors)


@register_operator("expand_dims")
def _expand_dims(call: Call) -> TracedTensor:
    axis = int(call.argument("axis")) % call.outputs[0].rank
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
    return concatenate(call, values, int(call.argument("axis")))


@register_operator("stack")
def _stack(call: Call) -> TracedTensor:
    values = call.argument("values")
    if not all(isinstance(value, TracedTensor) for value in values):
        return call.opaque(f"is stacked with a constant in '{call.path}'")[0]
    axis = int(call.argument("axis", 0)) % call.outputs[0].rank
    widened = [
        TracedTensor(
            (*x.shape[:axis], None, *x.shape[axis:]),
            tuple(np.expand_dims(f, axis) for f in call.factors_of(x)),
        )
        for x in values
    ]
    return call.elementwise(widened, f"is stacked with values that must stay in '{call.path}'")


@register_operator("unstack")
def _unstack(call: Call) -> list[TracedTensor]:
    x = call.x
    axis = x.axis(int(call.argument("axis", 0)))
    ids = call.along(x, axis)
    if ids is not None:
        call.channels.fix(ids, f"becomes a tensor of its own in '{call.path}'")
    factors = [np.squeeze(f, axis) for f in call.factors_of(x) if axis not in varying(f)]
    return [call.tensor(factors, output) for output in range(len(call.outputs))]


@register_operator("tile")
def _tile(call: Call) -> TracedTensor:
    x = call.x
    multiples = [int(m) for m in np.asarray(call.argument("multiples"))]
    factors = []
    for factor in call.factors_of(x):
        repeats = [m if axis in varying(factor) else 1 for axis, m in enumerate(multiples)]
        factors.append(np.tile(factor, repeats))
    return call.tensor(factors)


@register_operator("repeat")
def _repeat(call: Call) -> TracedTensor:
    x, repeats, axis = call.x, call.argument("repeats"), call.argument("axis")
    if axis is None or np.ndim(repeats) or isinstance(repeats, TracedTensor):
        return call.opaque(f"is repeated by '{call.path}'")[0]
    axis = x.axis(int(axis))
    factors = call.factors_of(x)
    return call.tensor(np.repeat(f, repeats, axis) if axis in varying(f) else f for f in factors)


@register_operator("reverse")
def _reverse(call: Call) -> TracedTensor:
    axes = [call.x.axis(int(a)) for a in np.ravel(np.asarray(call.argument("axis")))]
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
    widths = np.asarray(call.argument("paddings"))
    factors = []
    for factor in call.factors_of(x):
        padded = [axis for axis in varying(factor) if widths[axis].any()]
        if padded and mode != "CONSTANT":
            call.channels.fix(factor, f"is padded with copies of channels by '{call.path}'")
            continue
        own = [widths[axis] if axis in padded else (0, 0) for axis in range(x.rank)]
        factors.append(np.pad(factor, own, constant_values=NONE))
    return call.tensor(factors)


@register_operator("split")
def _split(call: Call) -> list[TracedTensor]:
    x = call.argument("value")
    axis = x.axis(int(call.argument("axis", 0)))
    sizes = [tensor.shape[axis] for tensor in call.outputs]
    ids = call.along(x, axis)
    if ids is not None:
        parts = np.split(ids, np.cumsum(sizes)[:-1])
        for part in parts:
            call.follow(part)
        call.replace_argument(
            "num_or_size_splits", lambda _, kept: [int(kept(part).sum()) for part in parts]
        )
    outputs = []
    for number, start in enumerate(np.cumsum([0, *sizes[:-1]]) if None not in sizes else sizes):
        factors = []
        for factor in call.factors_of(x):
            if axis in varying(factor):
                factor = np.take(factor, np.arange(start, start + sizes[number]), axis)
            factors.append(factor)
        outputs.append(call.tensor(factors, number))
    return outputs


@register_operator("gather", "compat.v1.gather", "compat.v1.gather_v2")
def _gather(call: Call) -> TracedTensor:
    x, indices = call.argument("params"), call.argument("indices")
    axis = x.axis(int(call.argument("axis") or 0)) if isinstance(x, TracedTensor) else 0
    if (
        isinstance(indices, TracedTensor)
        or not isinstance(x, TracedTensor)
        or np.ndim(indices) != 1
    ):
        return call.opaque(f"is looked up by '{call.path}'")[0]
    chosen = np.asarray(indices)
    ids = call.along(x, axis)
    if ids is not None:
        call.follow(ids[chosen])

        def edit(value: Any, kept: Kept) -> Any:
            stays = kept(ids)
            new = (np.cumsum(stays) - 1)[chosen[stays[chosen]]].astype(chosen.dtype)
            return tf.constant(new) if tf.is_tensor(value) else new.tolist()

        call.replace_argument("indices", edit)
    factors = call.factors_of(x)
    return call.tensor(f.take(chosen, axis) if axis in varying(f) else f for f in factors)


@register_operator("slice")
def _slice(call: Call) -> TracedTensor:
    x = call.argument("input_")
    begin, size = np.asarray(call.argument("begin")), np.asarray(call.argument("size"))
    begin, size = [int(b) for b in begin], [int(s) for s in size]
    picks = [slice(b, None if s == -1 else b + s) for b, s in zip(begin, size)]
    for axis, pick in enumerate(picks):
        ids = call.along(x, axis)
        if ids is None or pick == slice(0, None):
            continue
        call.follow(ids[pick])

        def edit_begin(value: Any, kept: Kept, axis: int = axis, ids: Any = ids) -> list[int]:
            return _with(value, axis, int(kept(ids[: begin[axis]]).sum()))

        def edit_size(
            value: Any, kept: Kept, axis: int = axis, ids: Any = ids, pick: Any = pick
        ) -> list[int]:
            return _with(value, axis, int(kept(ids[pick]).sum()))

        call.replace_argument("begin", edit_begin)
        call.replace_argument("size", edit_size)
    return call.tensor(_picked(f, picks) for f in call.factors_of(x))


def _with(value: Any, place: int, new: int) -> list[int]:
    result = [int(v) for v in np.asarray(value)]
    result[place] = new
    return result


def _picked(factor: np.ndarray, picks: Sequence[slice]) -> np.ndarray:
    return factor[tuple(p if s > 1 else slice(None) for p, s in zip(picks, factor.shape))]


@register_operator("__operators__.getitem")
def _getitem(call: Call) -> Any:
    x = call.args[0]
    spec = call.argument("slice_spec")
    items = list(spec) if isinstance(spec, (list, tuple)) else [spec]
    if isinstance(x, TracedShape):
        return _size_of(call, x, items)
    places = _places(items, x.rank) if isinstance(x, TracedTensor) else None
    if places is None:
        return call.opaque(f"is picked by computed places in '{call.path}'")[0]
    for place, axis in places:
        _follow_pick(call, x, axis, place, items[place], isinstance(spec, (list, tuple)))
    index, dropped = _as_index(items, places, x.rank)
    factors = []
    for factor in call.factors_of(x):
        gone = [axis for axis in dropped if axis in varying(factor)]
        if gone:
            continue
        own = [
            part if not (isinstance(part, slice) and factor.shape[axis] == 1) else slice(None)
            for axis, part in enumerate(index)
        ]
        own = [0 if axis in dropped else part for axis, part in enumerate(own)]
        factors.append(_insert_axes(factor[tuple(own)], items))
    return call.tensor(factors)


def _size_of(call: Call, x: TracedShape, items: Sequence[Any]) -> TracedTensor:
    """Returns sizes of a tensor; those that pruning would change are fixed."""
    only = len(items) == 1 and isinstance(items[0], (int, np.integer))
    wanted = {x.of.axis(int(items[0]))} if only else set(range(x.of.rank))
    for factor in call.factors_of(x.of):
        if wanted & set(varying(factor)):
            call.channels.fix(factor, f"has its number taken by '{call.path}'")
    return call.outputs[0]


def _places(items: Sequence[Any], rank: int) -> Optional[list[tuple[int, int]]]:
    """Returns (position in the index, axis) of everything that picks from an axis."""
    if any(
        isinstance(item, (TracedTensor, list, np.ndarray)) or tf.is_tensor(item) for item in items
    ):
        return None
    picking = sum(item is not None and item is not Ellipsis for item in items)
    places, axis = [], 0
    for position, item in enumerate(items):
        if item is None:
            continue
        if item is Ellipsis:
            axis += rank - picking
            continue
        if isinstance(item, dict) and any(isinstance(v, TracedTensor) for v in item.values()):
            return None
        places.append((position, axis))
        axis += 1
    return places


def _as_slice(item: Any) -> Any:
    return slice(item["start"], item["stop"], item["step"]) if isinstance(item, dict) else int(item)


def _follow_pick(
    call: Call, x: TracedTensor, axis: int, place: int, item: Any, several: bool
) -> None:
    """Makes a constant index or slice follow the channels along its axis."""
    ids = call.along(x, axis)
    pick = _as_slice(item)
    if ids is None or pick == slice(None, None, None):
        return
    size = len(ids)
    if isinstance(pick, int):
        pick %= size
        call.channels.fix(ids[pick : pick + 1], f"is picked alone by '{call.path}'")

        def edit_item(kept: Kept) -> Any:
            return int(kept(ids[:pick]).sum())

    else:
        start, stop, step = pick.indices(size)
        if step != 1:
            call.channels.fix(ids, f"is picked with a stride by '{call.path}'")
            return
        call.follow(ids[start:stop])

        def edit_item(kept: Kept) -> Any:
            bounds = [int(kept(ids[:bound]).sum()) for bound in (start, stop)]
            return {"start": bounds[0], "stop": bounds[1], "step": None}

    def edit(value: Any, kept: Kept) -> Any:
        if not several:
            return edit_item(kept)
        new = list(value)
        new[place] = edit_item(kept)
        return tuple(new)

    call.replace_argument("slice_spec", edit)


def _as_index(
    items: Sequence[Any], places: Sequence[tuple[int, int]], rank: int
) -> tuple[list[Any], list[int]]:
    """Returns what is picked from each axis, and the axes that disappear."""
    index: list[Any] = [slice(None)] * rank
    dropped = []
    for position, axis in places:
        index[axis] = _as_slice(items[position])
        if isinstance(index[axis], int):
            dropped.append(axis)
    return index, dropped


def _insert_axes(factor: np.ndarray, items: Sequence[Any]) -> np.ndarray:
    """Returns the factor with the new axes that None or tf.newaxis in an index makes."""
    if None not in [item if item is None else 0 for item in items]:
        return factor
    before: list[Any] = []
    after: list[Any] = []
    target = before
    for item in items:
        if item is None:
            target.append(None)
        elif item is Ellipsis:
            target = after
        elif isinstance(item, dict):
            target.append(slice(None))
    return factor[(*before, Ellipsis, *after)]


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

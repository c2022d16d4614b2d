"""TensorFlow functions that move values without changing them: slices, splits, transposes.

Constant sizes and bounds in their arguments follow what is left of the channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Optional

import numpy as np
import tensorflow as tf

from tff_autoprune.surgery import sizes
from tff_autoprune.surgery.call import Call
from tff_autoprune.surgery.channels import NONE
from tff_autoprune.surgery.layer_rules import register_operator
from tff_autoprune.surgery.rules.merging import concatenate
from tff_autoprune.surgery.rules.reshaping import permuted, reshaped
from tff_autoprune.surgery.traced_tensor import Kept, TracedTensor, size_along, varying


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
    resize_shape(call, "shape", y)
    return y


def resize_shape(call: Call, name: str, y: TracedTensor) -> None:
    """Makes an argument with the sizes of all axes of the output follow its channels."""
    axes = {axis for factor in call.factors_of(y) for axis in varying(factor)}
    if not axes:
        return
    value = call.argument(name)
    if isinstance(value, TracedTensor) or any(_is_computed(value[axis]) for axis in axes):
        call.fix(y, f"gets a computed size in '{call.path}'")
        return

    def edit(shape: Any, kept: Kept) -> Any:
        new = list(shape.numpy() if tf.is_tensor(shape) else shape)
        for axis in axes:
            if new[axis] is not None and int(new[axis]) != -1:
                new[axis] = size_along(y.factors, axis, y.shape[axis], kept)
        return new

    call.replace_argument(name, edit)


def _is_computed(size: Any) -> bool:
    return isinstance(size, TracedTensor)


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


def single_out(call: Call, x: TracedTensor, axis: int, reason: str) -> TracedTensor:
    """Prepares a tensor for a pick of single places along an axis: all places must stay there.

    Channels that also differ along other axes (the heads of a fused query, key and value) become
    the same at all places, and can still go; others are fixed.
    """
    factors = []
    for factor in call.factors_of(x):
        if axis in varying(factor):
            if len(varying(factor)) == 1:
                call.channels.fix(factor, reason)
            else:
                first = np.take(factor, [0], axis)
                call.unify(factor, first, reason)
                factor = call.channels.find(first)
        factors.append(factor)
    return x.with_factors(factors)


@register_operator("unstack")
def _unstack(call: Call) -> list[TracedTensor]:
    axis = call.x.axis(int(call.argument("axis", 0)))
    x = single_out(call, call.x, axis, f"becomes a tensor of its own in '{call.path}'")
    factors = [np.squeeze(f, axis) for f in call.factors_of(x) if axis not in varying(f)]
    return [call.tensor(factors, output) for output in range(len(call.outputs))]


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
    x, axis = call.x, call.argument("axis")
    if axis is None:
        return call.opaque(f"is repeated by '{call.path}'")[0]
    axis, repeats = x.axis(int(axis)), call.numbers("repeats")
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


@register_operator("split")
def _split(call: Call) -> list[TracedTensor]:
    x = call.argument("value")
    axis = x.axis(int(call.argument("axis", 0)))
    lengths = [tensor.shape[axis] for tensor in call.outputs]
    ids = call.along(x, axis)
    given = call.argument("num_or_size_splits")
    if ids is not None and (None in lengths or any(map(_is_computed, tf.nest.flatten(given)))):
        return call.opaque(f"is split into computed sizes by '{call.path}'")
    if ids is not None:
        parts = np.split(ids, np.cumsum(lengths)[:-1])
        for part in parts:
            call.follow(part)
        call.replace_argument(
            "num_or_size_splits", lambda _, kept: [int(kept(part).sum()) for part in parts]
        )
    outputs = []
    starts = lengths if None in lengths else np.cumsum([0, *lengths[:-1]])
    for number, start in enumerate(starts):
        factors = []
        for factor in call.factors_of(x):
            if axis in varying(factor):
                factor = np.take(factor, np.arange(start, start + lengths[number]), axis)
            factors.append(factor)
        outputs.append(call.tensor(factors, number))
    return outputs


@register_operator("gather", "compat.v1.gather", "compat.v1.gather_v2")
def _gather(call: Call) -> TracedTensor:
    x, indices = call.argument("params"), call.argument("indices")
    axis = x.axis(int(call.argument("axis") or 0)) if isinstance(x, TracedTensor) else 0
    if isinstance(x, TracedTensor) and isinstance(indices, TracedTensor):
        return _gather_computed(call, x, indices, axis)
    if not isinstance(x, TracedTensor) or np.ndim(indices) != 1:
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


def _gather_computed(call: Call, x: TracedTensor, indices: TracedTensor, axis: int) -> TracedTensor:
    """Traces a look-up of places that are computed: their channels stay, others pass."""
    why = f"is looked up by '{call.path}'"
    if call.argument("batch_dims"):
        return call.opaque(why)[0]
    call.fix(indices, why)
    x = single_out(call, x, axis, why)
    new_axes = tuple(range(axis, axis + indices.rank))
    return call.tensor(
        np.expand_dims(np.squeeze(f, axis), new_axes)
        for f in call.factors_of(x)
        if axis not in varying(f)
    )


@register_operator("slice")
def _slice(call: Call) -> TracedTensor:
    x = call.argument("input_")
    begin, size = call.numbers("begin"), call.numbers("size")
    why = f"is cut out at computed places by '{call.path}'"
    if begin is None or size is None:
        return call.opaque(why)[0]
    picks: list[slice] = []
    for axis, (start, number) in enumerate(zip(begin, size)):
        ids = call.along(x, axis)
        if start == 0 and number in (-1, x.shape[axis]) and ids is None:
            picks.append(slice(None))
            continue
        computed = start is None or number is None or _is_one_tensor(call, "begin", "size")
        if ids is None or (start == 0 and number == -1):
            picks.append(slice(None))
            continue
        if computed:
            call.channels.fix(ids, why)
        if start is None or number is None:
            picks.append(slice(None))
            continue
        picks.append(slice(start, None if number == -1 else start + number))
        if computed:
            continue
        call.follow(ids[picks[-1]])

        def edit_begin(value: Any, kept: Kept, axis: int = axis, ids: Any = ids) -> list[Any]:
            return _with(value, axis, int(kept(ids[: begin[axis]]).sum()))

        def edit_size(
            value: Any, kept: Kept, axis: int = axis, ids: Any = ids, pick: Any = picks[-1]
        ) -> list[Any]:
            return _with(value, axis, int(kept(ids[pick]).sum()))

        call.replace_argument("begin", edit_begin)
        call.replace_argument("size", edit_size)
    return call.tensor(_picked(f, picks) for f in call.factors_of(x))


def _is_one_tensor(call: Call, *names: str) -> bool:
    """Returns whether an argument is a computed tensor, no element of which can be replaced."""
    return any(isinstance(call.argument(name), TracedTensor) for name in names)


def _with(value: Any, place: int, new: int) -> list[Any]:
    result = list(value.numpy() if tf.is_tensor(value) else value)
    result[place] = new
    return result


def _picked(factor: np.ndarray, picks: Sequence[slice]) -> np.ndarray:
    return factor[tuple(p if s > 1 else slice(None) for p, s in zip(picks, factor.shape))]


@register_operator("__operators__.getitem")
def _getitem(call: Call) -> Any:
    x = call.args[0]
    spec = call.argument("slice_spec")
    several = isinstance(spec, (list, tuple))
    items = list(spec) if several else [spec]
    places = _places(items, x.rank) if isinstance(x, TracedTensor) else None
    if places is None:
        return call.opaque(f"is picked by computed places in '{call.path}'")[0]
    for place, axis in places:
        x = _follow_pick(call, x, axis, place, items[place], several)
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


def _places(items: Sequence[Any], rank: int) -> Optional[list[tuple[int, int]]]:
    """Returns (position in the index, axis) of everything that picks from an axis."""
    for item in items:
        if isinstance(item, TracedTensor) and item.rank:
            return None
        if isinstance(item, (list, np.ndarray)) or tf.is_tensor(item):
            return None
    picking = sum(item is not None and item is not Ellipsis for item in items)
    places, axis = [], 0
    for position, item in enumerate(items):
        if item is None:
            continue
        if item is Ellipsis:
            axis += rank - picking
            continue
        places.append((position, axis))
        axis += 1
    return places


def _as_slice(item: Any) -> Any:
    """Returns an index or slice; a computed one as the whole axis."""
    if isinstance(item, dict):
        bounds = [item["start"], item["stop"], item["step"]]
        return slice(None) if any(map(_is_computed, bounds)) else slice(*bounds)
    return 0 if _is_computed(item) else int(item)


def _follow_pick(
    call: Call, x: TracedTensor, axis: int, place: int, item: Any, several: bool
) -> TracedTensor:
    """Makes a constant index or slice follow the channels along its axis."""
    pick = _as_slice(item)
    if isinstance(pick, int):
        if any(axis in varying(f) and len(varying(f)) > 1 for f in call.factors_of(x)):
            return single_out(call, x, axis, f"is taken out by its index in '{call.path}'")
    elif any(map(_is_computed, item.values())):
        x = single_out(call, x, axis, f"is picked at computed places in '{call.path}'")
        return x.with_factors(f for f in x.factors if axis not in varying(f))
    ids = call.along(x, axis)
    if ids is None or pick == slice(None, None, None):
        return x
    size = len(ids)
    if isinstance(pick, int):
        if _is_computed(item):
            call.channels.fix(ids, f"is picked at computed places in '{call.path}'")
            return x
        pick %= size
        call.channels.fix(ids[pick : pick + 1], f"is taken out by its index in '{call.path}'")

        def edit_item(kept: Kept) -> Any:
            return int(kept(ids[:pick]).sum())

    else:
        start, stop, step = pick.indices(size)
        if step != 1:
            call.channels.fix(ids, f"is picked with a stride by '{call.path}'")
            return x
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
    return x


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

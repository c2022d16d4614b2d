"""TensorFlow functions that pick parts of a tensor: indices, slices, splits, look-ups.

Constant bounds and indices follow what is left of the channels. Bounds that are computed in the
graph may pick from axes without channels; along others the channels stay.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Optional

import numpy as np
import tensorflow as tf

from tff_autoprune.surgery.call import Call
from tff_autoprune.surgery.layer_rules import register_operator
from tff_autoprune.surgery.traced_tensor import Kept, TracedTensor, is_computed, varying


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
    (axis,) = call.axes(call.x, 0)
    x = single_out(call, call.x, axis, f"becomes a tensor of its own in '{call.path}'")
    factors = [np.squeeze(f, axis) for f in call.factors_of(x) if axis not in varying(f)]
    return [call.tensor(factors, output) for output in range(len(call.outputs))]


@register_operator("split")
def _split(call: Call) -> list[TracedTensor]:
    x = call.argument("value")
    (axis,) = call.axes(x, 0)
    lengths = [tensor.shape[axis] for tensor in call.outputs]
    ids = call.along(x, axis)
    given = call.argument("num_or_size_splits")
    if ids is not None and (None in lengths or any(map(is_computed, tf.nest.flatten(given)))):
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
    axis = 0
    if isinstance(x, TracedTensor) and call.argument("axis") is not None:
        (axis,) = call.axes(x)
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
        return slice(None) if any(map(is_computed, bounds)) else slice(*bounds)
    return 0 if is_computed(item) else int(item)


def _follow_pick(
    call: Call, x: TracedTensor, axis: int, place: int, item: Any, several: bool
) -> TracedTensor:
    """Makes a constant index or slice follow the channels along its axis."""
    pick = _as_slice(item)
    if isinstance(pick, int):
        if any(axis in varying(f) and len(varying(f)) > 1 for f in call.factors_of(x)):
            return single_out(call, x, axis, f"is taken out by its index in '{call.path}'")
    elif any(map(is_computed, item.values())):
        x = single_out(call, x, axis, f"is picked at computed places in '{call.path}'")
        return x.with_factors(f for f in x.factors if axis not in varying(f))
    ids = call.along(x, axis)
    if ids is None or pick == slice(None, None, None):
        return x
    size = len(ids)
    if isinstance(pick, int):
        if is_computed(item):
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

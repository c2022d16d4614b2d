"""A client's batches as the engine reads them, from what users have.

    (x, y), {"x": ..., "y": ...}, int64 labels, one-hot labels ... ──> exactly the task's batches

What can only be a mistake (no batches, pixels of 0 to 255 for a model that takes floats) is said.
"""

from __future__ import annotations

import contextlib
import operator
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Optional

import numpy as np
import tensorflow as tf

from tff_autoprune.errors import UserError
from tff_autoprune.federated import heads
from tff_autoprune.federated.task import Task

_KEYS = (("x", "y"), ("inputs", "labels"), ("image", "label"), ("pixels", "label"))
_WEIGHT_KEYS = ("sample_weight", "sample_weights", "weight")


def of_clients(task: Task, client_datasets: Sequence[tf.data.Dataset]) -> list[tf.data.Dataset]:
    """Returns every client's batches as the task's `batch_spec` says.

    Args:
      task: The task.
      client_datasets: Batches of each client: tuples (inputs, labels[, weights]) or dicts with such
        keys; several inputs or outputs as tuples, or as dicts by name.

    Raises:
      UserError: If something does not fit; names the client's number.
    """
    return [_of_client(task, number, one) for number, one in enumerate(client_datasets)]


def with_seed(dataset: tf.data.Dataset, seed: Sequence[int]) -> tf.data.Dataset:
    """Returns batches that carry a client's seed, as models with random layers train on.

    Args:
      dataset: Batches as the task's `batch_spec` says.
      seed: Two numbers from which the client's dropout and augmentation in a round derive.

    Returns:
      Elements (batch, int32 [2]).
    """
    seed = tf.constant(np.asarray(seed, np.int32).reshape(2))
    return tf.data.Dataset.zip((dataset, tf.data.Dataset.from_tensors(seed).repeat()))


@contextlib.contextmanager
def errors_explained() -> Iterator[None]:
    """Says in one line what TensorFlow finds wrong with values of a client's examples."""
    try:
        yield
    except Exception as error:  # Runtimes wrap what TensorFlow raises in classes of their own.
        text = str(error)
        label = re.search(r"label value of (-?\d+) .*valid range of \[(\d+), (\d+)\)", text)
        if label:
            raise UserError(
                f"data: a client has the label {label[1]}; the model has outputs for {label[2]} to"
                f" {int(label[3]) - 1}."
            ) from error
        index = re.search(r"indices\[[^]]*\] = (-?\d+) is not in \[(\d+), (\d+)\)", text)
        if index:
            raise UserError(
                f"data: a client's inputs have the number {index[1]}; the model's embedding knows"
                f" {index[2]} to {int(index[3]) - 1}."
            ) from error
        raise


def _of_client(task: Task, number: int, dataset: Any) -> tf.data.Dataset:
    where = f"client_datasets[{number}]"
    if not isinstance(dataset, tf.data.Dataset):
        raise UserError(
            f"{where}: expected a tf.data.Dataset of batches, found {type(dataset).__name__}; make"
            " one by tf.data.Dataset.from_tensor_slices((inputs, labels)).batch(20)."
        )
    if _fits(dataset.element_spec, task.batch_spec):
        return dataset
    take = _reader(task, where, dataset.element_spec)
    wanted = tf.nest.flatten(task.batch_spec)
    found = tf.nest.flatten(take(dataset.element_spec))
    for position, (one, like) in enumerate(zip(found, wanted)):
        _check(task, where, one, like, is_input=position < len(task.inputs))

    def convert(*element: Any) -> Any:
        parts = take(element[0] if len(element) == 1 else element)
        converted = [_converted(part, one) for part, one in zip(tf.nest.flatten(parts), wanted)]
        return tf.nest.pack_sequence_as(task.batch_spec, converted)

    return dataset.map(convert)


def _fits(spec: Any, wanted: Any) -> bool:
    try:
        tf.nest.assert_same_structure(spec, wanted)
    except (TypeError, ValueError):
        return False
    return all(
        found.dtype == like.dtype
        and found.shape.rank == like.shape.rank
        and found.shape.is_compatible_with(like.shape)
        for found, like in zip(tf.nest.flatten(spec), tf.nest.flatten(wanted))
    )


def _reader(task: Task, where: str, spec: Any) -> Callable[[Any], Any]:
    """Returns a function from an element to (inputs, labels[, weights])."""
    count = 3 if task.weighted else 2
    words = "(inputs, labels, weights)" if task.weighted else "(inputs, labels)"
    if isinstance(spec, Mapping):
        keys = next((pair for pair in _KEYS if set(pair) <= set(spec)), None)
        weight = next((key for key in _WEIGHT_KEYS if key in spec), None)
        if keys is None or (task.weighted and weight is None):
            raise UserError(
                f"{where}: expected {words} or a dict with x and y"
                f"{' and sample_weight' if task.weighted else ''}, found the keys"
                f" {', '.join(map(str, spec))}."
            )
        names = (*keys, weight) if task.weighted else keys
        outer = operator.itemgetter(*names)
    elif isinstance(spec, tuple) and len(spec) == count:
        outer = tuple
    elif isinstance(spec, tuple) and len(spec) == 3:
        raise UserError(
            f"{where}: its batches have weights, which the task does not use; say"
            " federated.Task.of(model, sample_weights=True), or leave them out."
        )
    else:
        found = f"{len(spec)} parts" if isinstance(spec, tuple) else type(spec).__name__
        raise UserError(f"{where}: expected batches {words}, found {found}.")

    def take(element: Any) -> Any:
        parts = list(outer(element))
        for position, names in (
            (0, task.input_names),
            (1, [head.name for head in task.heads]),
        ):
            parts[position] = _ordered(where, parts[position], names)
        return tuple(parts)

    taken = take(spec)
    if len(tf.nest.flatten(taken)) != len(tf.nest.flatten(task.batch_spec)):
        raise UserError(
            f"{where}: the model has {len(task.inputs)} inputs and {len(task.heads)} outputs, a"
            f" batch {len(tf.nest.flatten(taken[0]))} inputs and"
            f" {len(tf.nest.flatten(taken[1]))} labels."
        )
    return take


def _ordered(where: str, part: Any, names: Sequence[str]) -> Any:
    if isinstance(part, Mapping):
        if len(part) == 1 == len(names):
            return next(iter(part.values()))
        if set(part) != set(names):
            raise UserError(
                f"{where}: expected parts by the names {', '.join(map(str, names))}, found"
                f" {', '.join(map(str, part))}."
            )
        return tuple(part[name] for name in names)
    return part


def _check(
    task: Task, where: str, found: tf.TensorSpec, wanted: tf.TensorSpec, *, is_input: bool
) -> None:
    what = "inputs" if is_input else "labels"
    reason = _mistake(task, found, wanted, is_input=is_input)
    if reason is not None:
        raise UserError(f"{where}: expected {what} {_text(wanted)}, found {_text(found)}{reason}")


def _mistake(
    task: Task, found: tf.TensorSpec, wanted: tf.TensorSpec, *, is_input: bool
) -> Optional[str]:
    """Returns why a part of the batches cannot be what it should; None if it can."""
    rank, wanted_rank = found.shape.rank, wanted.shape.rank
    if rank is None:
        return None
    one_short = rank == wanted_rank - 1
    if one_short and found.shape.is_compatible_with(wanted.shape[1:]) and found.shape[:1] != [None]:
        return ": the examples are not batched; add .batch(20)."
    if found.dtype == tf.string:
        return "."
    if is_input and wanted.dtype.is_integer and not found.dtype.is_integer:
        return ": the model takes integers."
    integers = found.dtype.is_integer and wanted.dtype.is_floating
    if is_input and integers and (found.dtype == tf.uint8 or rank > 3):
        return (
            ": pixels as integers. Map them to what the model was made for, e.g."
            " tf.cast(x, tf.float32) / 255 if it takes [0, 1]."
        )
    if not is_input and task.heads[0].kind == heads.MULTI_CLASS:
        if rank == wanted_rank + 1 and found.shape[-1] != 1 and task.heads[0].from_logits:
            return (
                ": are they one-hot, or several labels? Say it: federated.Task.of(model,"
                " 'multi-class' or 'multi-label', labels=dataset.element_spec[1])."
            )
        if rank == wanted_rank and wanted.dtype.is_integer and found.dtype.is_floating:
            return ": labels of classes are integers."
    return None if _reshapes(found, wanted, is_input=is_input) else "."


def _reshapes(found: tf.TensorSpec, wanted: tf.TensorSpec, *, is_input: bool) -> bool:
    """Whether shapes are equal, up to a last axis of 1, or of classes in one-hot labels."""
    if found.shape.rank is None or found.shape.is_compatible_with(wanted.shape):
        return True
    if found.shape.rank == wanted.shape.rank + 1 and wanted.shape.is_compatible_with(
        found.shape[:-1]
    ):
        return found.shape[-1] == 1 or not is_input
    return (
        found.shape.rank == wanted.shape.rank - 1
        and wanted.shape[-1] == 1
        and found.shape.is_compatible_with(wanted.shape[:-1])
    )


def _converted(part: tf.Tensor, wanted: tf.TensorSpec) -> tf.Tensor:
    surplus = (part.shape.rank or wanted.shape.rank) - wanted.shape.rank
    if surplus == 1 and part.shape[-1] == 1:
        part = tf.squeeze(part, -1)
    elif surplus == 1:
        # One-hot labels for a task whose labels are numbers of classes.
        part = tf.argmax(part, axis=-1)
    elif surplus == -1:
        part = part[..., tf.newaxis]
    return tf.ensure_shape(tf.cast(part, wanted.dtype), wanted.shape)


def _text(spec: tf.TensorSpec) -> str:
    shape = ", ".join("batch" if i == 0 and n is None else str(n) for i, n in enumerate(spec.shape))
    return f"{spec.dtype.name}[{shape}]"

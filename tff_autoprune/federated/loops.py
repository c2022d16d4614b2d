"""Loops over a client's batches that TensorFlow can optimize as a whole.

`Dataset.reduce` hides its body in a function that is prepared anew in every call and never
optimized together with its surroundings. A plain loop becomes part of the graph: operations in it
are fused, and no time is lost between clients.

An iterator hands each batch over from another thread, and what follows then runs there. So the
batches are gathered first, and the loop that computes reads them without changing threads: a third
less time for a small network. A client's batches are in memory together for that.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import tensorflow as tf

State = TypeVar("State")


def fold(
    dataset: tf.data.Dataset,
    initial: State,
    step: Callable[[State, Any], State],
) -> State:
    """Folds `step` over the batches of a data set, in order.

    Args:
      dataset: Batches; must be called inside a `tf.function`.
      initial: Any nested structure of tensors whose shapes the steps keep.
      step: (state, batch) -> state.

    Returns:
      The last state; `initial` for an empty data set.
    """
    count, batches = _gather(dataset)

    def body(number, state):
        new = step(state, tf.nest.map_structure(lambda array: array.read(number), batches))
        for old_tensor, new_tensor in zip(tf.nest.flatten(state), tf.nest.flatten(new)):
            # Unknown sizes get lost in arithmetic; a loop wants them as they were.
            new_tensor.set_shape(old_tensor.shape)
        return number + 1, new

    _, state = tf.while_loop(
        lambda number, state: number < count,
        body,
        (0, initial),
        # Steps depend on each other, so nothing can run ahead.
        parallel_iterations=1,
    )
    return state


def _gather(dataset: tf.data.Dataset) -> tuple[tf.Tensor, Any]:
    """Returns how many batches there are, and for each of their parts an array of them."""
    iterator = iter(dataset)
    arrays = tf.nest.map_structure(
        lambda spec: tf.TensorArray(
            spec.dtype, 0, dynamic_size=True, infer_shape=False, element_shape=spec.shape
        ),
        dataset.element_spec,
    )

    def body(batch, number, arrays):
        arrays = tf.nest.map_structure(
            lambda array, part: array.write(number, part), arrays, batch.get_value()
        )
        return iterator.get_next_as_optional(), number + 1, arrays

    _, count, arrays = tf.while_loop(
        lambda batch, number, arrays: batch.has_value(),
        body,
        (iterator.get_next_as_optional(), 0, arrays),
        parallel_iterations=1,
    )
    return count, arrays

"""Loops over a client's batches that TensorFlow can optimize as a whole.

`Dataset.reduce` hides its body in a function that is prepared anew in every call and never
optimized together with its surroundings. A plain loop over an iterator becomes part of the graph:
operations in it are fused, and no time is lost between clients.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import tensorflow as tf

State = TypeVar("State")


def fold(
    dataset: tf.data.Dataset,
    initial: State,
    step: Callable[[State, tuple[tf.Tensor, tf.Tensor]], State],
) -> State:
    """Folds `step` over the batches of a data set, in order.

    Args:
      dataset: Batches; must be called inside a `tf.function`.
      initial: Any nested structure of tensors whose shapes the steps keep.
      step: (state, batch) -> state.

    Returns:
      The last state; `initial` for an empty data set.
    """
    iterator = iter(dataset)

    def body(batch, state):
        new = step(state, batch.get_value())
        for old_tensor, new_tensor in zip(tf.nest.flatten(state), tf.nest.flatten(new)):
            # Unknown sizes get lost in arithmetic; a loop wants them as they were.
            new_tensor.set_shape(old_tensor.shape)
        return iterator.get_next_as_optional(), new

    _, state = tf.while_loop(
        lambda batch, state: batch.has_value(),
        body,
        (iterator.get_next_as_optional(), initial),
        # Steps depend on each other, so nothing can run ahead.
        parallel_iterations=1,
    )
    return state

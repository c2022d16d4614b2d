"""A group lasso over channels, for the clients' loss: unneeded channels shrink as a whole.

    R(w) = sum over groups, channels c of   || all weights that make or read channel c ||_2

Source of the group lasso on filters: Wen et al., arXiv 1608.03665. Summing over every weight of the
dependency group, not only over the filters, keeps a network from shrinking a filter while growing
what reads it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from tff_autoprune.pruning.groups import Member, find_filter_groups

if TYPE_CHECKING:
    import tensorflow as tf

# Keeps the square root differentiable for a channel that is all zero.
_EPSILON = 1e-12


def group_lasso(model: tf.keras.Model) -> Callable[[Sequence[tf.Tensor]], tf.Tensor]:
    """Returns the group lasso of a model's prunable groups.

    Args:
      model: A built model.

    Returns:
      A function from tensors shaped like `model.trainable_weights` to a float32 scalar. It reads
      the number of channels from the tensors, so it serves smaller versions of the model too.
    """
    import tensorflow as tf

    place = {id(weight): number for number, weight in enumerate(model.trainable_weights)}
    plan = []
    for group in find_filter_groups(model):
        kernels = [
            (place[id(model.weights[m.position])], m.axis)
            for m in group.members
            if m.kind.endswith("kernel")
            and id(model.weights[m.position]) in place
            and _whole_axis(m, group.channels)
        ]
        if group.prunable and kernels:
            plan.append(kernels)

    def penalty(weights: Sequence[tf.Tensor]) -> tf.Tensor:
        total = tf.zeros([])
        for kernels in plan:
            squares = tf.add_n(
                [
                    tf.reduce_sum(
                        tf.square(weights[number]),
                        axis=[a for a in range(len(weights[number].shape)) if a != axis],
                    )
                    for number, axis in kernels
                ]
            )
            total += tf.reduce_sum(tf.sqrt(squares + _EPSILON))
        return total

    return penalty


def _whole_axis(member: Member, channels: int) -> bool:
    """Whether the places of the axis are the group's channels, one by one, in order."""
    return member.size == channels and np.array_equal(member.channel_of, np.arange(channels))

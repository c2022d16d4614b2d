"""The learning rates that suit a narrower network.

Rates of Adam transfer between widths if that of each tensor goes with the inverse of its fan-in:
how many channels its outputs are sums of (Yang et al., arXiv 2203.03466, table 8). What does not
sum over removed channels, as biases and the first layer, keeps its rate. All methods that inherit
weights follow this, so that comparing them compares what they remove.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from tff_autoprune import pruning

if TYPE_CHECKING:
    import tensorflow as tf


def fan_ins(model: tf.keras.Model, selection: Mapping[str, Sequence[int]] = {}) -> list[int]:
    """Returns how many channels each trainable tensor sums over.

    Args:
      model: A built model.
      selection: Channels that do not count, by filter-group name.

    Returns:
      The number for each of `model.trainable_weights`; 1 for those that sum over none.
    """
    left: dict[int, dict[int, int]] = {}
    for group in pruning.find_filter_groups(model):
        for member in group.readers:
            sizes = left.setdefault(member.position, {})
            gone = sum(len(member.indices[c]) for c in selection.get(group.name, ()))
            # After a concatenation, several groups share an axis.
            sizes[member.axis] = sizes.get(member.axis, member.size) - gone
    position_of = {id(variable): number for number, variable in enumerate(model.weights)}
    return [
        math.prod(left.get(position_of[id(variable)], {}).values())
        for variable in model.trainable_weights
    ]


def learning_rate_scales(dense: Sequence[int], now: Sequence[int]) -> tuple[float, ...]:
    """Returns the factors on the dense network's learning rate.

    Args:
      dense: `fan_ins` of the dense network.
      now: Those of the network with fewer channels.

    Returns:
      A factor for each trainable tensor.
    """
    return tuple(before / after for before, after in zip(dense, now))

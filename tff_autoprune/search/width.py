"""How wide a network is, and the learning rate that suits it.

Rates of Adam transfer between widths in inverse proportion (Yang et al., arXiv 2203.03466): what is
narrower wants a larger one. (Other optimizers keep theirs: see `Engine.scale_for_width`.) All
methods that inherit weights follow it, so that comparing them compares what they remove.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from tff_autoprune import surgery

if TYPE_CHECKING:
    import tensorflow as tf


# The rule holds for wide networks; a few channels would ask for rates that no network learns at.
_MAX_SCALE = 4.0


def width(model: tf.keras.Model, selection: Mapping[str, Sequence[int]] = {}) -> float:
    """Returns the geometric mean of the channels in the prunable groups.

    Args:
      model: A built model.
      selection: Channels that do not count, by filter-group name.

    Returns:
      The mean; 1 for a model without prunable groups.
    """
    left = [
        group.channels - len(selection.get(group.name, ()))
        for group in surgery.find_filter_groups(model)
        if group.prunable
    ]
    return math.exp(sum(map(math.log, left)) / len(left)) if left else 1.0


def learning_rate_scale(dense_width: float, width_now: float) -> float:
    """Returns the factor on the dense network's learning rate for a network of another width.

    It is never more than 4.
    """
    return min(dense_width / width_now, _MAX_SCALE)

"""What a model costs: parameters, operations, bytes, activation memory; and what a channel costs.

cost.of(model)                          totals, and a table with one row for each layer
cost.per_channel(model, groups, what)   what removing one channel of each group saves
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Optional, Union

import tensorflow as tf

from tff_autoprune.surgery import counting
from tff_autoprune.surgery.counting import Cost
from tff_autoprune.surgery.groups import FilterGroup
from tff_autoprune.surgery.network import Network

__all__ = ["Cost", "of", "per_channel"]


def of(model: Union[tf.keras.Model, Network]) -> Cost:
    """Counts what a model costs.

    Args:
      model: A built functional or sequential model with known image size, or its network.

    Returns:
      Totals and a table by layer.

    Raises:
      UserError: If the graph cannot be followed or the size of an input is unknown.

    Example:
    >>> from tff_autoprune import models
    >>> from tff_autoprune.surgery import cost
    >>> counted = cost.of(models.build("cnn", input_shape=(28, 28, 1), num_classes=62))
    >>> counted.parameters, counted.flops
    (56126, 7529278)
    """
    return Network.of(model).cost


def per_channel(
    model: Union[tf.keras.Model, Network],
    groups: Sequence[FilterGroup],
    what: str = "flops",
    latency: Optional[Mapping[str, float]] = None,
) -> dict[str, float]:
    """Returns what removing one channel of each group saves.

    Args:
      model: The model that the groups were found in, or its network.
      groups: Groups; fixed ones save nothing.
      what: "flops", "parameters", "bytes", "activation_bytes" (sum over all layers' outputs) or
        "latency".
      latency: For "latency": measured time of each layer by its name, in any unit; each layer is
        taken to be faster by the share of its operations that goes.

    Returns:
      Saving by the group's name, in the unit of `what`.

    Raises:
      UserError: If `what` is unknown or `latency` is missing.
    """
    return counting.savings(Network.of(model).trace, groups, what, latency)

"""What an axis of a weight does with the channels along it."""

from __future__ import annotations

import enum


class Role(str, enum.Enum):
    """What an axis of a weight does with the channels along it.

    Attributes:
      PRODUCER: Makes them: the filters of a convolution, the units of a dense layer.
      CONSUMER: Reads them and sums over them: the input side of the next kernel.
      PASSENGER: Has one value for each: bias, batch-norm scale, depthwise kernel.
    """

    PRODUCER = "producer"
    CONSUMER = "consumer"
    PASSENGER = "passenger"

"""Latency of a smaller network on this host, for a budget in milliseconds.

Measured, so not the same twice: a run with such a budget is not reproducible to the bit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tff_autoprune.search.budget import Budget
from tff_autoprune.search.counted_cost import CostWeights

if TYPE_CHECKING:
    import tensorflow as tf

_ROUNDS = 5
_RUNS = 50


def budget(value: float) -> Budget:
    """Returns a budget of milliseconds on this host; time is taken to fall with operations."""
    return Budget(
        "latency_ms",
        value,
        measure=lambda network: on_this_host(network.model),
        weights=lambda network: CostWeights(parameter=0.0, flop=1.0),
    )


def on_this_host(model: tf.keras.Model) -> float:
    """Returns the median time of an inference by TFLite, float32, one thread.

    Args:
      model: A built classifier with one image input.

    Returns:
      Milliseconds. The median of the fastest round: a busy host can slow a round down, but it
      cannot speed one up.
    """
    from tff_autoprune.export import conversion, latency

    content = conversion.convert(model, "float32")
    times = latency.measure((content, content), rounds=_ROUNDS, runs=_RUNS)
    return float(min(np.median(side, axis=1).min() for side in times))

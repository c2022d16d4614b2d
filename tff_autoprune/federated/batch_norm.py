"""Statistics of batch normalization in federation.

A client k has statistics (mean_k, variance_k). Averaging the variances forgets that the clients'
means differ. By the law of total variance, with weights w_k that sum to 1,

    mean = sum w_k mean_k
    variance = sum w_k (variance_k + (mean_k - mean0)^2) - (mean - mean0)^2

for any mean0; the server's old mean is taken, so that no digits are lost by cancellation and a
client that changed nothing sends zeros, as clipping and noise expect. Only sums over clients are
needed, so this works under every aggregator.

    client: mean_k - mean0, variance_k - variance0 + (mean_k - mean0)^2   ──weighted mean──> server
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import tensorflow as tf


@dataclasses.dataclass(frozen=True)
class Statistics:
    """Which non-trainable weights are statistics of batch normalization.

    Attributes:
      means: Positions of the moving means in `model.non_trainable_weights`.
      variances: Positions of the moving variances, aligned with `means`.
    """

    means: tuple[int, ...]
    variances: tuple[int, ...]

    @classmethod
    def of(cls, model: tf.keras.Model) -> Statistics:
        """Finds the statistics of a model."""
        position = {id(v): i for i, v in enumerate(model.non_trainable_weights)}
        layers = [
            layer
            for layer in model._flatten_layers(include_self=False, recursive=True)
            if isinstance(layer, tf.keras.layers.BatchNormalization)
        ]
        return cls(
            means=tuple(position[id(layer.moving_mean)] for layer in layers),
            variances=tuple(position[id(layer.moving_variance)] for layer in layers),
        )


def client_update(
    statistics: Statistics, initial: Sequence[tf.Tensor], final: Sequence[tf.Tensor]
) -> tuple[tf.Tensor, ...]:
    """Returns what a client sends of its non-trainable weights.

    Args:
      statistics: Which of them are statistics.
      initial: As received.
      final: After local training.

    Returns:
      For a moving variance, its change plus the squared change of its moving mean; for every other
      weight, its change.
    """
    update = [new - old for new, old in zip(final, initial)]
    for mean, variance in zip(statistics.means, statistics.variances):
        update[variance] += tf.square(update[mean])
    return tuple(update)


def server_update(
    statistics: Statistics, old: Sequence[tf.Tensor], mean_update: Sequence[tf.Tensor]
) -> tuple[tf.Tensor, ...]:
    """Returns the server's new non-trainable weights.

    Args:
      statistics: Which of them are statistics.
      old: The weights that the clients received.
      mean_update: The weighted mean of `client_update` over clients.

    Returns:
      The new weights; variances are never negative, whatever noise the aggregator added.
    """
    new = [value + change for value, change in zip(old, mean_update)]
    for mean, variance in zip(statistics.means, statistics.variances):
        new[variance] = tf.maximum(new[variance] - tf.square(mean_update[mean]), 0.0)
    return tuple(new)

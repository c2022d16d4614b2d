"""What a server does with the weights that phones send back: federated averaging in NumPy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf

from tff_autoprune.errors import UserError
from tff_autoprune.export.client import weight_names
from tff_autoprune.federated import batch_norm

Weights = Mapping[str, np.ndarray]


def average_clients(
    model: tf.keras.Model, server: Weights, reports: Sequence[tuple[Weights, int]]
) -> dict[str, np.ndarray]:
    """Averages what clients trained, weighted by their numbers of examples.

    Equals a round of the engine with the aggregator `mean`, the server optimizer `sgd` at rate 1
    and `batch_norm` aggregate. A client whose weights are not finite is left out.

    Args:
      model: Whose layers say which weights are statistics of batch normalization.
      server: What the clients started from, by `weight_names`.
      reports: What each client ended with, and its number of examples.

    Returns:
      The server's new weights, by `weight_names`.

    Raises:
      UserError: If no client sent finite weights.
    """
    names = weight_names(model)
    by_id = {id(variable): name for variable, name in zip(model.weights, names)}
    statistics = batch_norm.Statistics.of(model)
    moving = [by_id[id(variable)] for variable in model.non_trainable_weights]
    trained = [by_id[id(variable)] for variable in model.trainable_weights]
    old = [np.asarray(server[name]) for name in moving]
    total = 0
    sums = {name: np.zeros(np.shape(server[name]), np.float64) for name in names}
    for weights, examples in reports:
        if not all(np.isfinite(weights[name]).all() for name in names):
            continue
        total += examples
        for name in trained:
            sums[name] += examples * (np.asarray(weights[name], np.float64) - server[name])
        updates = batch_norm.client_update(statistics, old, [weights[name] for name in moving])
        for name, update in zip(moving, updates):
            sums[name] += examples * np.asarray(update, np.float64)
    if not total:
        raise UserError("clients: expected finite weights of at least one client, found none.")
    means = {name: (value / total).astype(np.float32) for name, value in sums.items()}
    new = {name: server[name] + means[name] for name in trained}
    updated = batch_norm.server_update(statistics, old, [means[name] for name in moving])
    new.update({name: np.asarray(value) for name, value in zip(moving, updated)})
    return {name: new[name] for name in names}

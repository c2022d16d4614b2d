"""Evaluation of a model on clients, without a learning process around it."""

from __future__ import annotations

import collections
from collections.abc import Sequence

import tensorflow as tf
import tensorflow_federated as tff

from tff_autoprune.errors import UserError
from tff_autoprune.federated import process
from tff_autoprune.federated.stateless import StatelessModel

# The computation depends on the architecture, not on the weights.
_CACHE_SIZE = 4
_cache: collections.OrderedDict[str, tff.Computation] = collections.OrderedDict()


def _computation(model: tf.keras.Model) -> tff.Computation:
    try:
        key = model.to_json()
    except (NotImplementedError, TypeError, ValueError):
        # A layer of the user's own that cannot be described.
        return process.build_evaluation(StatelessModel(model))
    if key not in _cache:
        _cache[key] = process.build_evaluation(StatelessModel(model))
    _cache.move_to_end(key)
    while len(_cache) > _CACHE_SIZE:
        _cache.popitem(last=False)
    return _cache[key]


def weights_of(model: tf.keras.Model) -> tff.learning.models.ModelWeights:
    """Returns the weights of a model as arrays."""
    return tff.learning.models.ModelWeights(
        tuple(v.numpy() for v in model.trainable_weights),
        tuple(v.numpy() for v in model.non_trainable_weights),
    )


def run(
    computation: tff.Computation,
    weights: tff.learning.models.ModelWeights,
    client_datasets: Sequence[tf.data.Dataset],
) -> dict[str, float]:
    """Evaluates weights on clients.

    Args:
      computation: What `process.build_evaluation` returned.
      weights: Of an architecture that the computation serves.
      client_datasets: Batches (float32 images, int32 labels) of each client.

    Returns:
      "loss", "calibrated_loss" (see `losses`), "accuracy" and "num_examples",
      aggregated by TFF.

    Raises:
      UserError: If there are no clients.
    """
    if not client_datasets:
        raise UserError("federated: an evaluation needs at least one client, found none.")
    return process.finalize_metrics(computation(weights, list(client_datasets)))


def evaluate_model(
    model: tf.keras.Model, client_datasets: Sequence[tf.data.Dataset]
) -> dict[str, float]:
    """Evaluates a Keras model on clients.

    Args:
      model: A built classifier.
      client_datasets: Batches (float32 images, int32 labels) of each client.

    Returns:
      "loss", "calibrated_loss" (see `losses`), "accuracy" and "num_examples",
      aggregated by TFF.

    Raises:
      UserError: If there are no clients.
    """
    return run(_computation(model), weights_of(model), client_datasets)

"""Evaluation of a model on clients, without a learning process around it."""

from __future__ import annotations

import collections
from collections.abc import Sequence
from typing import Optional

import tensorflow as tf
import tensorflow_federated as tff

from tff_autoprune.errors import UserError
from tff_autoprune.federated import batches, process, reports
from tff_autoprune.federated.stateless import StatelessModel
from tff_autoprune.federated.task import Task

# The computation depends on the architecture, not on the weights.
_CACHE_SIZE = 4
_cache: collections.OrderedDict[tuple[str, Task], tff.Computation] = collections.OrderedDict()


def _computation(model: tf.keras.Model, task: Task) -> tff.Computation:
    try:
        key = (model.to_json(), task)
    except (NotImplementedError, TypeError, ValueError):
        # A layer of the user's own that cannot be described.
        return process.build_evaluation(StatelessModel(model), task, reports.Plain())
    if key not in _cache:
        _cache[key] = process.build_evaluation(StatelessModel(model), task, reports.Plain())
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


def evaluate_model(
    model: tf.keras.Model,
    client_datasets: Sequence[tf.data.Dataset],
    task: Optional[Task] = None,
) -> dict[str, float]:
    """Evaluates a Keras model on clients whose sums may be seen: one's own, or public ones.

    Args:
      model: A built model.
      client_datasets: Batches (inputs, labels) of each client; see `batches.of_clients`.
      task: What it learns; inferred by default.

    Returns:
      See `Task.finalize`; aggregated by TFF.

    Raises:
      UserError: If there are no clients.
    """
    task = task or Task.of(model)
    if not client_datasets:
        raise UserError("federated: an evaluation needs at least one client, found none.")
    with batches.errors_explained():
        sums = _computation(model, task)(
            weights_of(model), batches.of_clients(task, client_datasets)
        )
    return task.finalize(sums)

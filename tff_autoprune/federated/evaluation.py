"""Evaluation of any model on clients, without a learning process around it."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf
import tensorflow_federated as tff

from tff_autoprune.federated import process
from tff_autoprune.federated.stateless import StatelessModel


def evaluate_model(
    model: tf.keras.Model, client_datasets: Sequence[tf.data.Dataset]
) -> dict[str, float]:
    """Evaluates a Keras model on clients.

    Args:
      model: A built classifier.
      client_datasets: Batches (float32 images, int32 labels) of each client.

    Returns:
      "loss", "accuracy" and "num_examples", aggregated by TFF.
    """
    evaluation = process.build_evaluation(StatelessModel(model))
    weights = tff.learning.models.ModelWeights(
        tuple(v.numpy() for v in model.trainable_weights),
        tuple(v.numpy() for v in model.non_trainable_weights),
    )
    return process.finalize_metrics(evaluation(weights, list(client_datasets)))

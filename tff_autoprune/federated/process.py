"""Composes the learning process of one architecture.

distributor ──weights──> client work ──update, weight──> aggregator ──mean──> finalizer
"""

from __future__ import annotations

import collections
from typing import Optional

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

from tff_autoprune.federated import aggregators, losses
from tff_autoprune.federated import client_work as client_work_lib
from tff_autoprune.federated.finalizer import build_finalizer
from tff_autoprune.federated.settings import Settings
from tff_autoprune.federated.stateless import StatelessModel


def build_learning_process(
    stateless: StatelessModel,
    settings: Settings,
    *,
    regularizer: Optional[client_work_lib.Regularizer] = None,
) -> tff.learning.templates.LearningProcess:
    """Builds federated averaging for a model.

    Args:
      stateless: The model; its present weights are the initial ones.
      settings: Optimizers, aggregator, weighting.
      regularizer: See `build_client_work`.

    Returns:
      `initialize: ( -> S@SERVER)`, `next: (<S@SERVER, {D*}@CLIENTS> -> <S@SERVER, M@SERVER>)`.
    """
    trainable = [v.numpy() for v in stateless.model.trainable_weights]
    non_trainable = [v.numpy() for v in stateless.model.non_trainable_weights]

    @tff.tensorflow.computation
    def initial_weights():
        return tff.learning.models.ModelWeights(
            tuple(map(tf.constant, trainable)), tuple(map(tf.constant, non_trainable))
        )

    weights_type = initial_weights.type_signature.result
    client_work = client_work_lib.build_client_work(stateless, settings, regularizer=regularizer)
    update = client_work.next.type_signature.result.result.member
    aggregator = aggregators.build(settings.aggregator).create(update.update, update.update_weight)
    return tff.learning.templates.compose_learning_process(
        initial_weights,
        tff.learning.templates.build_broadcast_process(weights_type),
        client_work,
        aggregator,
        build_finalizer(stateless, settings),
    )


def build_evaluation(stateless: StatelessModel) -> tff.Computation:
    """Builds federated evaluation.

    Returns:
      `(<W@SERVER, {D*}@CLIENTS> -> sums@SERVER)`; the sums are those of `evaluate_batch`.
    """
    from_logits = losses.outputs_logits(stateless.model)
    weights_type = client_work_lib.weights_type(stateless)
    data_type = tff.SequenceType(
        tff.types.tensorflow_to_type(client_work_lib.batch_spec(stateless.model))
    )

    @tff.tensorflow.computation(weights_type, data_type)
    @tf.function(autograph=False)
    def evaluate_client(weights, dataset):
        return client_work_lib.evaluation_loop(stateless, weights, dataset, from_logits=from_logits)

    @tff.federated_computation(
        tff.FederatedType(weights_type, tff.SERVER), tff.FederatedType(data_type, tff.CLIENTS)
    )
    def evaluate(weights, data):
        return tff.federated_sum(
            tff.federated_map(evaluate_client, (tff.federated_broadcast(weights), data))
        )

    return evaluate


def finalize_metrics(sums: collections.abc.Mapping[str, float]) -> dict[str, float]:
    """Turns sums over examples into metrics.

    Args:
      sums: "loss_sum", "correct", "num_examples"; of an evaluation also "tempered_loss_sums".

    Returns:
      "loss", "accuracy" (NaN without examples) and "num_examples"; of an evaluation also
      "calibrated_loss", see `losses.calibrated_loss`.
    """
    count = float(sums["num_examples"])
    examples = count or float("nan")
    metrics = {
        "loss": float(sums["loss_sum"]) / examples,
        "accuracy": float(sums["correct"]) / examples,
        "num_examples": count,
    }
    if "tempered_loss_sums" in sums:
        tempered = np.asarray(sums["tempered_loss_sums"]) / examples
        metrics["calibrated_loss"] = losses.calibrated_loss(tempered)
    return metrics

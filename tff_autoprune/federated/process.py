"""Composes the learning process of one architecture.

distributor ──weights──> client work ──update, weight──> aggregator ──mean──> finalizer
"""

from __future__ import annotations

from typing import Optional

import tensorflow as tf
import tensorflow_federated as tff

from tff_autoprune.federated import aggregators, reports
from tff_autoprune.federated import client_work as client_work_lib
from tff_autoprune.federated.finalizer import build_finalizer
from tff_autoprune.federated.settings import Settings
from tff_autoprune.federated.stateless import StatelessModel
from tff_autoprune.federated.task import Task


def build_learning_process(
    stateless: StatelessModel,
    task: Task,
    settings: Settings,
    *,
    regularizer: Optional[client_work_lib.Regularizer] = None,
) -> tff.learning.templates.LearningProcess:
    """Builds federated averaging for a model.

    Args:
      stateless: The model; its present weights are the initial ones.
      task: What it learns.
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
    client_work = client_work_lib.build_client_work(
        stateless, task, settings, regularizer=regularizer
    )
    update = client_work.next.type_signature.result.result.member
    aggregator = _aggregator(settings).create(update.update, update.update_weight)
    return tff.learning.templates.compose_learning_process(
        initial_weights,
        tff.learning.templates.build_broadcast_process(weights_type),
        client_work,
        aggregator,
        build_finalizer(stateless, settings),
    )


def _aggregator(settings: Settings) -> tff.aggregators.WeightedAggregationFactory:
    own = settings.tff_aggregator
    if own is None:
        return aggregators.build(settings.aggregator)
    if isinstance(own, tff.aggregators.UnweightedAggregationFactory):
        return tff.aggregators.as_weighted_aggregator(own)
    return own


def build_evaluation(
    stateless: StatelessModel, task: Task, reporting: reports.Plain
) -> tff.Computation:
    """Builds federated evaluation.

    Args:
      stateless: The model.
      task: What it learns.
      reporting: How the sums of clients are summed.

    Returns:
      `(<W@SERVER, {D*}@CLIENTS> -> sums@SERVER)`; the sums are those of
      `task.evaluation_sums`, to be released by `reporting`.
    """
    weights_type = client_work_lib.weights_type(stateless)
    data_type = client_work_lib.data_type(task)

    @tff.tensorflow.computation(weights_type, data_type)
    @tf.function(autograph=False)
    def evaluate_client(weights, dataset):
        sums = client_work_lib.evaluation_loop(stateless, task, weights, dataset)
        return reporting.prepare(sums)

    @tff.federated_computation(
        tff.FederatedType(weights_type, tff.SERVER), tff.FederatedType(data_type, tff.CLIENTS)
    )
    def evaluate(weights, data):
        return reporting.sum(
            tff.federated_map(evaluate_client, (tff.federated_broadcast(weights), data))
        )

    return evaluate

"""How the server applies the aggregated update."""

from __future__ import annotations

import collections

import tensorflow as tf
import tensorflow_federated as tff

from tff_autoprune.federated import batch_norm, optimizers
from tff_autoprune.federated.client_work import weights_type
from tff_autoprune.federated.settings import Settings
from tff_autoprune.federated.stateless import StatelessModel


def build_finalizer(
    stateless: StatelessModel, settings: Settings
) -> tff.learning.templates.FinalizerProcess:
    """Builds the server's step: an optimizer for what is trained, statistics for the rest.

    Args:
      stateless: The model.
      settings: The server optimizer and the rule for batch normalization.

    Returns:
      A process whose state is the optimizer's. An update with a value that is not finite is
      rejected: weights and state stay as they were, and "rejected" is measured as 1.
    """
    optimizer = optimizers.build_server_optimizer(settings)
    aggregate = settings.batch_norm == "aggregate"
    statistics = (
        batch_norm.Statistics.of(stateless.model) if aggregate else batch_norm.Statistics((), ())
    )
    weights_tff_type = weights_type(stateless)
    update_type = collections.OrderedDict(trainable=stateless.trainable)
    if stateless.non_trainable:
        update_type["non_trainable"] = stateless.non_trainable
    update_type = tff.types.tensorflow_to_type(update_type)

    @tff.tensorflow.computation
    def initial_state():
        return optimizer.initialize(stateless.trainable)

    state_type = initial_state.type_signature.result

    @tff.tensorflow.computation(state_type, weights_tff_type, update_type)
    def apply(state, weights, update):
        new_state, trainable = optimizer.next(
            state, tuple(weights.trainable), tuple(update["trainable"])
        )
        non_trainable = tuple(weights.non_trainable)
        if stateless.non_trainable:
            non_trainable = batch_norm.server_update(
                statistics, non_trainable, update["non_trainable"]
            )
        _, rejected = tff.learning.tensor_utils.zero_all_if_any_non_finite(update)
        old = (state, tuple(weights.trainable), tuple(weights.non_trainable))
        new = (new_state, trainable, non_trainable)
        state, trainable, non_trainable = tf.nest.map_structure(
            lambda o, n: tf.where(rejected > 0, o, n), old, new
        )
        return (
            state,
            tff.learning.models.ModelWeights(trainable, non_trainable),
            collections.OrderedDict(rejected=rejected),
        )

    @tff.federated_computation
    def init_fn():
        return tff.federated_eval(initial_state, tff.SERVER)

    @tff.federated_computation(
        init_fn.type_signature.result,
        tff.FederatedType(weights_tff_type, tff.SERVER),
        tff.FederatedType(update_type, tff.SERVER),
    )
    def next_fn(state, weights, update):
        return tff.templates.MeasuredProcessOutput(
            *tff.federated_map(apply, (state, weights, update))
        )

    return tff.learning.templates.FinalizerProcess(init_fn, next_fn)

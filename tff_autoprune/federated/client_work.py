"""What a client computes in a round, as one inlined loop over its batches.

    weights ──> [forward, loss, gradient, optimizer step] for each batch ──> update, weight, metrics

The loop equals that of `tff.learning.templates.build_model_delta_client_work`; the forward pass is
not hidden in a function of its own (see `stateless`), which more than halves the time of a round.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Sequence
from typing import Optional

import tensorflow as tf
import tensorflow_federated as tff

from tff_autoprune.federated import (
    aggregators,
    batch_norm,
    loops,
    optimizers,
    precision,
    reports,
)
from tff_autoprune.federated.settings import Settings
from tff_autoprune.federated.stateless import StatelessModel
from tff_autoprune.federated.task import Task

Regularizer = Callable[[Sequence[tf.Tensor]], tf.Tensor]

# Tells the noise on reports from any other that derives from the same seed.
_REPORT_STREAM = 1


def weights_type(stateless: StatelessModel) -> tff.StructType:
    """Returns the TFF type of a model's weights."""
    return tff.types.tensorflow_to_type(
        tff.learning.models.ModelWeights(stateless.trainable, stateless.non_trainable)
    )


def evaluation_loop(
    stateless: StatelessModel,
    task: Task,
    weights: tff.learning.models.ModelWeights,
    dataset: tf.data.Dataset,
) -> dict[str, tf.Tensor]:
    """Returns the sums of `task.evaluation_sums` over a data set."""

    def step(sums, element):
        batch = task.batch(element)
        outputs, _ = stateless(
            weights.trainable, weights.non_trainable, batch.inputs, training=False
        )
        return tf.nest.map_structure(tf.add, sums, task.evaluation_sums(outputs, batch))

    return loops.fold(dataset, task.zeros(evaluation=True), step)


def data_type(task: Task) -> tff.SequenceType:
    """Returns the TFF type of a client's batches."""
    return tff.SequenceType(tff.types.tensorflow_to_type(task.batch_spec))


def training_data_type(stateless: StatelessModel, task: Task) -> tff.SequenceType:
    """Returns the TFF type of what a client trains on.

    Where a model has random layers, each batch comes with the client's seed, int32 [2].
    """
    spec = task.batch_spec
    if stateless.has_randomness:
        spec = (spec, tf.TensorSpec((2,), tf.int32))
    return tff.SequenceType(tff.types.tensorflow_to_type(spec))


def build_client_work(
    stateless: StatelessModel,
    task: Task,
    settings: Settings,
    *,
    regularizer: Optional[Regularizer] = None,
) -> tff.learning.templates.ClientWorkProcess:
    """Builds the client work of federated averaging.

    What clients report is summed as the aggregator says (`aggregators.build_reports`).

    Args:
      stateless: The model.
      task: What it learns.
      settings: Optimizer, schedule, weighting and the rule for batch normalization.
      regularizer: Maps the trainable tensors to a scalar that is added to the loss of a batch,
        times the state's "penalty".

    Returns:
      A process whose state is a dict of scalars: "optimizer" (its hyperparameters), "penalty",
      "learning_rate_scale" and "round_num". The update is `OrderedDict(trainable=initial - final)`,
      plus "non_trainable" if the model has such weights. A client whose update is not finite has
      weight 0 and counts in the measurement "non_finite_clients".
    """
    lowered = settings.client_precision == "bfloat16"
    trained = precision.in_bfloat16(stateless) if lowered else stateless
    optimizer = optimizers.build_client_optimizer(settings)
    aggregate = settings.batch_norm == "aggregate"
    statistics = (
        batch_norm.Statistics.of(stateless.model) if aggregate else batch_norm.Statistics((), ())
    )
    weights_tff_type = weights_type(stateless)
    batches_type = training_data_type(stateless, task)
    reporting = aggregators.build_reports(settings.aggregator, task)

    @tff.tensorflow.computation
    def initial_state():
        hparams = optimizer.get_hparams(optimizer.initialize(tf.TensorSpec((), tf.float32)))
        return collections.OrderedDict(
            optimizer=tf.nest.map_structure(tf.constant, hparams),
            penalty=tf.constant(0.0),
            learning_rate_scale=tf.constant(1.0),
            round_num=tf.constant(0),
        )

    state_type = initial_state.type_signature.result

    def unpacked(state, element, step_num):
        """Returns a batch, and what its randomness derives from."""
        if not stateless.has_randomness:
            return task.batch(element), None
        element, seed = element
        for number in (state["round_num"], step_num):
            seed = tf.random.experimental.stateless_fold_in(seed, number)
        return task.batch(element), seed

    def train(state, weights, dataset):
        hparams = state["optimizer"].copy()
        rate_key = tff.learning.optimizers.LEARNING_RATE_KEY
        if rate_key in hparams:
            hparams[rate_key] = (
                hparams[rate_key]
                * state["learning_rate_scale"]
                * optimizers.schedule_factor(settings, state["round_num"])
            )
        optimizer_state = optimizer.set_hparams(optimizer.initialize(stateless.trainable), hparams)
        penalty, received = state["penalty"], tuple(weights.trainable)

        def step(loop, element):
            step_num, trainable, non_trainable, optimizer_state, sums = loop
            batch, seed = unpacked(state, element, step_num)
            with tf.GradientTape() as tape:
                tape.watch(trainable)
                outputs, non_trainable = trained(
                    trainable, non_trainable, batch.inputs, training=True, seed=seed
                )
                new = task.training_sums(outputs, batch)
                loss = tf.math.divide_no_nan(new["loss_sum"], new["num_examples"])
                if regularizer is not None:
                    loss += penalty * regularizer(trainable)
                if settings.proximal_strength:
                    # FedProx, Li et al., arXiv 1812.06127.
                    moved = [tf.nn.l2_loss(new - old) for new, old in zip(trainable, received)]
                    loss += settings.proximal_strength * tf.add_n(moved)
            gradients = tape.gradient(
                loss, trainable, unconnected_gradients=tf.UnconnectedGradients.ZERO
            )
            optimizer_state, trainable = optimizer.next(
                optimizer_state, trainable, tuple(gradients)
            )
            sums = tf.nest.map_structure(tf.add, sums, new)
            return step_num + 1, trainable, non_trainable, optimizer_state, sums

        initial = (
            0,
            tuple(weights.trainable),
            tuple(weights.non_trainable),
            optimizer_state,
            task.zeros(evaluation=False),
        )
        _, trainable, non_trainable, _, sums = loops.fold(dataset, initial, step)
        update = collections.OrderedDict(
            trainable=tuple(old - new for old, new in zip(weights.trainable, trainable))
        )
        if stateless.non_trainable:
            update["non_trainable"] = batch_norm.client_update(
                statistics, weights.non_trainable, non_trainable
            )
        return update, sums

    @tff.tensorflow.computation(state_type, weights_tff_type, batches_type)
    @tf.function(autograph=False)
    def client_update(state, weights, dataset):
        update, sums = train(state, weights, dataset)
        update, non_finite = tff.learning.tensor_utils.zero_all_if_any_non_finite(update)
        good = tf.cast(1 - non_finite, tf.float32)
        by_examples = settings.client_weighting == "examples"
        weight = good * sums["num_examples"] if by_examples else good
        # `where`, because 0 * NaN is NaN.
        sums = tf.nest.map_structure(lambda s: tf.where(good > 0, s, tf.zeros_like(s)), sums)
        sums[reports.NON_FINITE] = tf.cast(non_finite, tf.float32)
        report = reporting.prepare(sums)
        result = tff.learning.templates.ClientResult(update=update, update_weight=weight)
        return result, report

    report_type = client_update.type_signature.result[1]

    @tff.tensorflow.computation(state_type, report_type)
    def released(state, report):
        seed = tf.stack([settings.aggregator.seed, _REPORT_STREAM, state["round_num"]])
        train = collections.OrderedDict(reporting.release(report, seed))
        non_finite = train.pop(reports.NON_FINITE)
        return collections.OrderedDict(train=train, non_finite_clients=non_finite)

    @tff.tensorflow.computation(state_type)
    def next_state(state):
        return collections.OrderedDict(state, round_num=state["round_num"] + 1)

    @tff.federated_computation
    def init_fn():
        return tff.federated_eval(initial_state, tff.SERVER)

    @tff.federated_computation(
        init_fn.type_signature.result,
        tff.FederatedType(weights_tff_type, tff.CLIENTS),
        tff.FederatedType(batches_type, tff.CLIENTS),
    )
    def next_fn(state, weights, data):
        result, report = tff.federated_map(
            client_update, (tff.federated_broadcast(state), weights, data)
        )
        return tff.templates.MeasuredProcessOutput(
            tff.federated_map(next_state, state),
            result,
            tff.federated_map(released, (state, reporting.sum(report))),
        )

    return tff.learning.templates.ClientWorkProcess(init_fn, next_fn)

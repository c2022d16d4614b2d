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

from tff_autoprune.federated import batch_norm, loops, losses, optimizers, precision
from tff_autoprune.federated.settings import Settings
from tff_autoprune.federated.stateless import StatelessModel

Regularizer = Callable[[Sequence[tf.Tensor]], tf.Tensor]

METRICS = ("loss_sum", "correct", "num_examples")


def batch_spec(model: tf.keras.Model) -> tuple[tf.TensorSpec, tf.TensorSpec]:
    """Returns the spec of a batch (images, labels) that a model trains on."""
    return (
        tf.TensorSpec((None, *model.input_shape[1:]), tf.float32),
        tf.TensorSpec((None,), tf.int32),
    )


def weights_type(stateless: StatelessModel) -> tff.StructType:
    """Returns the TFF type of a model's weights."""
    return tff.types.tensorflow_to_type(
        tff.learning.models.ModelWeights(stateless.trainable, stateless.non_trainable)
    )


def zero_metrics() -> dict[str, tf.Tensor]:
    return collections.OrderedDict((name, tf.constant(0.0)) for name in METRICS)


def zero_evaluation() -> dict[str, tf.Tensor]:
    """Returns the sums of `evaluate_batch` over no examples."""
    tempered = tf.zeros([len(losses.TEMPERATURES)])
    return collections.OrderedDict(zero_metrics(), tempered_loss_sums=tempered)


def batch_metrics(
    outputs: tf.Tensor, labels: tf.Tensor, *, from_logits: bool
) -> dict[str, tf.Tensor]:
    """Returns the sums over a batch that loss and accuracy are made of."""
    losses_of_examples = losses.cross_entropy(outputs, labels, from_logits=from_logits)
    return collections.OrderedDict(
        loss_sum=tf.reduce_sum(losses_of_examples),
        correct=losses.num_correct(outputs, labels),
        num_examples=tf.cast(tf.shape(labels)[0], tf.float32),
    )


def evaluate_batch(
    outputs: tf.Tensor, labels: tf.Tensor, *, from_logits: bool
) -> dict[str, tf.Tensor]:
    """Returns `batch_metrics`, and the sums that the calibrated loss is made of."""
    tempered = losses.tempered_cross_entropies(outputs, labels, from_logits=from_logits)
    return collections.OrderedDict(
        batch_metrics(outputs, labels, from_logits=from_logits),
        tempered_loss_sums=tf.reduce_sum(tempered, axis=0),
    )


def evaluation_loop(
    stateless: StatelessModel,
    weights: tff.learning.models.ModelWeights,
    dataset: tf.data.Dataset,
    *,
    from_logits: bool,
) -> dict[str, tf.Tensor]:
    """Returns the sums of `evaluate_batch` over a data set."""

    def step(sums, batch):
        images, labels = batch
        outputs, _ = stateless(weights.trainable, weights.non_trainable, images, training=False)
        new = evaluate_batch(outputs, labels, from_logits=from_logits)
        return tf.nest.map_structure(tf.add, sums, new)

    return loops.fold(dataset, zero_evaluation(), step)


def build_client_work(
    stateless: StatelessModel,
    settings: Settings,
    *,
    regularizer: Optional[Regularizer] = None,
) -> tff.learning.templates.ClientWorkProcess:
    """Builds the client work of federated averaging.

    Args:
      stateless: The model.
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
    from_logits = losses.outputs_logits(stateless.model)
    aggregate = settings.batch_norm == "aggregate"
    statistics = (
        batch_norm.Statistics.of(stateless.model) if aggregate else batch_norm.Statistics((), ())
    )
    weights_tff_type = weights_type(stateless)
    data_type = tff.SequenceType(tff.types.tensorflow_to_type(batch_spec(stateless.model)))

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

    def seed_of(state, images):
        # A batch of a round tells its own randomness: nothing else has to be kept or sent.
        if not stateless.has_randomness:
            return None
        return tf.stack([tf.bitcast(tf.reduce_sum(images), tf.int32), state["round_num"]])

    def train(state, weights, dataset):
        hparams = state["optimizer"].copy()
        rate_key = tff.learning.optimizers.LEARNING_RATE_KEY
        hparams[rate_key] = (
            hparams[rate_key]
            * state["learning_rate_scale"]
            * optimizers.schedule_factor(settings, state["round_num"])
        )
        optimizer_state = optimizer.set_hparams(optimizer.initialize(stateless.trainable), hparams)
        penalty = state["penalty"]

        def step(loop, batch):
            trainable, non_trainable, optimizer_state, sums = loop
            images, labels = batch
            with tf.GradientTape() as tape:
                tape.watch(trainable)
                outputs, non_trainable = trained(
                    trainable, non_trainable, images, training=True, seed=seed_of(state, images)
                )
                examples = losses.cross_entropy(outputs, labels, from_logits=from_logits)
                loss = tf.reduce_mean(examples)
                if regularizer is not None:
                    loss += penalty * regularizer(trainable)
            gradients = tape.gradient(
                loss, trainable, unconnected_gradients=tf.UnconnectedGradients.ZERO
            )
            optimizer_state, trainable = optimizer.next(
                optimizer_state, trainable, tuple(gradients)
            )
            new = batch_metrics(outputs, labels, from_logits=from_logits)
            sums = tf.nest.map_structure(tf.add, sums, new)
            return trainable, non_trainable, optimizer_state, sums

        initial = (
            tuple(weights.trainable),
            tuple(weights.non_trainable),
            optimizer_state,
            zero_metrics(),
        )
        trainable, non_trainable, _, sums = loops.fold(dataset, initial, step)
        update = collections.OrderedDict(
            trainable=tuple(old - new for old, new in zip(weights.trainable, trainable))
        )
        if stateless.non_trainable:
            update["non_trainable"] = batch_norm.client_update(
                statistics, weights.non_trainable, non_trainable
            )
        return update, sums

    @tff.tensorflow.computation(state_type, weights_tff_type, data_type)
    @tf.function(autograph=False)
    def client_update(state, weights, dataset):
        update, sums = train(state, weights, dataset)
        update, non_finite = tff.learning.tensor_utils.zero_all_if_any_non_finite(update)
        good = tf.cast(1 - non_finite, tf.float32)
        by_examples = settings.client_weighting == "examples"
        weight = good * sums["num_examples"] if by_examples else good
        # `where`, because 0 * NaN is NaN.
        sums = tf.nest.map_structure(lambda s: tf.where(good > 0, s, tf.zeros_like(s)), sums)
        report = collections.OrderedDict(
            train=sums, non_finite_clients=tf.cast(non_finite, "int32")
        )
        result = tff.learning.templates.ClientResult(update=update, update_weight=weight)
        return result, report

    @tff.tensorflow.computation(state_type)
    def next_state(state):
        return collections.OrderedDict(state, round_num=state["round_num"] + 1)

    @tff.federated_computation
    def init_fn():
        return tff.federated_eval(initial_state, tff.SERVER)

    @tff.federated_computation(
        init_fn.type_signature.result,
        tff.FederatedType(weights_tff_type, tff.CLIENTS),
        tff.FederatedType(data_type, tff.CLIENTS),
    )
    def next_fn(state, weights, data):
        result, report = tff.federated_map(
            client_update, (tff.federated_broadcast(state), weights, data)
        )
        return tff.templates.MeasuredProcessOutput(
            tff.federated_map(next_state, state), result, tff.federated_sum(report)
        )

    @tff.tensorflow.computation(state_type)
    def get_hparams(state):
        return collections.OrderedDict(
            state["optimizer"],
            penalty=state["penalty"],
            learning_rate_scale=state["learning_rate_scale"],
        )

    @tff.tensorflow.computation(state_type, get_hparams.type_signature.result)
    def set_hparams(state, hparams):
        return collections.OrderedDict(
            optimizer=collections.OrderedDict((k, hparams[k]) for k in state["optimizer"]),
            penalty=hparams["penalty"],
            learning_rate_scale=hparams["learning_rate_scale"],
            round_num=state["round_num"],
        )

    return tff.learning.templates.ClientWorkProcess(
        init_fn, next_fn, get_hparams_fn=get_hparams, set_hparams_fn=set_hparams
    )

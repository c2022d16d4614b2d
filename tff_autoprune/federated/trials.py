"""Many smaller candidates of a model, tried by clients that have the model already.

    held-out examples ──model whose layers read something else──> loss, accuracy of each candidate

A candidate is what some layers of the model read: y = T x in the place of their input x, for a
matrix T over channels. Zero columns of T leave channels out, others let channels stand in for
these. So a candidate costs a few small matrices, and no download of a model.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Mapping

import tensorflow as tf
import tensorflow_federated as tff

from tff_autoprune.federated import client_work as client_work_lib
from tff_autoprune.federated import loops
from tff_autoprune.federated.stateless import StatelessModel
from tff_autoprune.federated.task import Task


def build_trials(
    stateless: StatelessModel, task: Task, layers: Mapping[str, int]
) -> tff.Computation:
    """Builds the federated evaluation of candidates.

    Args:
      stateless: The model.
      task: What it learns.
      layers: See `examination.build_examination`.

    Returns:
      `(<W@SERVER, T@SERVER, {D*}@CLIENTS> -> sums@SERVER)`: T has for each layer
      float32 [candidates, channels, channels], the sums are those of `task.evaluation_sums`, each
      with an axis of candidates before its own, and come as a mean over clients, weighted by
      examples; "num_examples" is a sum, and a scalar.
    """
    model = stateless.model
    number = {id(weight): i for i, weight in enumerate(model.trainable_weights)}
    kernels = {name: number[id(model.get_layer(name).kernel)] for name in layers}
    # Metrics of the user's own are no part of a decision.
    task = dataclasses.replace(task, metrics_fn=None)
    weights_type = client_work_lib.weights_type(stateless)
    data_type = client_work_lib.data_type(task)
    mixes_type = tff.types.tensorflow_to_type(
        collections.OrderedDict(
            (name, tf.TensorSpec((None, None, None), tf.float32)) for name in layers
        )
    )

    def changed(trainable, mixes):
        """Lets the layers' kernels read what the matrices make of their inputs."""
        trainable = list(trainable)
        for name, mix in mixes.items():
            kernel = trainable[kernels[name]]
            outputs = tf.shape(kernel)[-1]
            # A dense layer behind a Flatten reads each place of the image in the same way.
            rows = tf.reshape(kernel, tf.stack([-1, tf.shape(mix)[0], outputs]))
            new = tf.reshape(tf.einsum("ij,pjo->pio", mix, rows), tf.shape(kernel))
            trainable[kernels[name]] = tf.ensure_shape(new, kernel.shape)
        return trainable

    @tff.tensorflow.computation(weights_type, mixes_type, data_type)
    @tf.function(autograph=False)
    def try_on_client(weights, mixes, dataset):
        candidates = tf.shape(next(iter(mixes.values())))[0]

        def step(sums, element):
            batch = task.batch(element)

            def evaluate(mix):
                outputs, _ = stateless(
                    changed(weights.trainable, mix),
                    weights.non_trainable,
                    batch.inputs,
                    training=False,
                )
                return task.evaluation_sums(outputs, batch)

            signature = tf.nest.map_structure(
                lambda zero: tf.TensorSpec(zero.shape, zero.dtype),
                task.zeros(evaluation=True),
            )
            new = tf.map_fn(evaluate, mixes, fn_output_signature=signature, parallel_iterations=1)
            return tf.nest.map_structure(tf.add, sums, new)

        zeros = tf.nest.map_structure(
            lambda zero: tf.zeros([candidates, *zero.shape], zero.dtype),
            task.zeros(evaluation=True),
        )
        sums = loops.fold(dataset, zeros, step)
        examples = sums.pop("num_examples")[0]
        means = tf.nest.map_structure(lambda total: total / tf.maximum(examples, 1.0), sums)
        return means, examples

    @tff.federated_computation(
        tff.FederatedType(weights_type, tff.SERVER),
        tff.FederatedType(mixes_type, tff.SERVER),
        tff.FederatedType(data_type, tff.CLIENTS),
    )
    def try_candidates(weights, mixes, data):
        means, examples = tff.federated_map(
            try_on_client, (tff.federated_broadcast(weights), tff.federated_broadcast(mixes), data)
        )
        # The mean, since TFF sums nothing of unknown size.
        return tff.federated_mean(means, examples), tff.federated_sum(examples)

    return try_candidates

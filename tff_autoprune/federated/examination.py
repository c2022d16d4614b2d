"""What clients tell about a model that they received: how well it does, and what its layers read.

    held-out examples ──model──> loss, accuracy
                        └── what a layer reads ──> second moments  G = mean of x x^T

x are the channels at one place of an image. G says which channels can stand in for which others.
Only means over all examples of all clients reach the server.
"""

from __future__ import annotations

import collections
from collections.abc import Mapping

import tensorflow as tf
import tensorflow_federated as tff

from tff_autoprune.federated import client_work as client_work_lib
from tff_autoprune.federated import loops
from tff_autoprune.federated.stateless import StatelessModel
from tff_autoprune.federated.task import Task


def build_examination(
    stateless: StatelessModel, task: Task, layers: Mapping[str, int]
) -> tff.Computation:
    """Builds the federated examination of a model.

    Args:
      stateless: The model.
      task: What it learns.
      layers: Names of convolutional or dense layers of the model whose inputs are examined, each
        with the number of places of a channel that the last axis of the input has: 1, but for what
        reads the output of a Flatten.

    Returns:
      `(<W@SERVER, {D*}@CLIENTS> -> <sums, moments>@SERVER)`: the sums are those of
      `task.evaluation_sums`, the moments float32 [channels, channels] by layer: means over examples
      of sums over places.
    """
    model = stateless.model
    watched = {name: model.get_layer(name) for name in layers}
    probe_model = tf.keras.Model(model.inputs, [model.output, *(w.input for w in watched.values())])
    probe = StatelessModel(probe_model)
    number = {id(weight): i for i, weight in enumerate(model.trainable_weights)}
    trainable_order = [number[id(weight)] for weight in probe_model.trainable_weights]
    frozen = {id(weight): i for i, weight in enumerate(model.non_trainable_weights)}
    frozen_order = [frozen[id(weight)] for weight in probe_model.non_trainable_weights]
    kernels = {name: number[id(layer.kernel)] for name, layer in watched.items()}
    weights_type = client_work_lib.weights_type(stateless)
    data_type = client_work_lib.data_type(task)

    @tff.tensorflow.computation(weights_type, data_type)
    @tf.function(autograph=False)
    def examine_client(weights, dataset):
        trainable = [weights.trainable[i] for i in trainable_order]
        non_trainable = [weights.non_trainable[i] for i in frozen_order]
        channels = {
            name: weights.trainable[kernels[name]].shape[-2] // places
            for name, places in layers.items()
        }
        zeros = collections.OrderedDict(
            (name, tf.zeros([count, count])) for name, count in channels.items()
        )

        def step(state, element):
            sums, moments = state
            batch = task.batch(element)
            (outputs, *inputs), _ = probe(trainable, non_trainable, batch.inputs, training=False)
            sums = tf.nest.map_structure(tf.add, sums, task.evaluation_sums(outputs, batch))
            seen = collections.OrderedDict()
            for name, values in zip(layers, inputs):
                places = tf.reshape(tf.cast(values, tf.float32), [-1, channels[name]])
                seen[name] = moments[name] + tf.matmul(places, places, transpose_a=True)
            return sums, seen

        sums, moments = loops.fold(dataset, (task.zeros(evaluation=True), zeros), step)
        examples = tf.maximum(sums["num_examples"], 1.0)
        return sums, tf.nest.map_structure(lambda moment: moment / examples, moments)

    @tff.federated_computation(
        tff.FederatedType(weights_type, tff.SERVER), tff.FederatedType(data_type, tff.CLIENTS)
    )
    def examine(weights, data):
        sums, moments = tff.federated_map(examine_client, (tff.federated_broadcast(weights), data))
        # The mean, since TFF sums nothing of unknown size.
        moments = tff.federated_mean(moments, sums["num_examples"])
        return tff.federated_sum(sums), moments

    return examine

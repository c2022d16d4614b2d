"""What clients tell about a model that they received: how well it does, and what its layers read.

    held-out examples ──model──> loss, metric
                        └── what a layer reads ──> second moments  G = sum of x x^T

x are the channels at one place of an input. G says which channels can stand in for which others.
Only sums over all examples of all clients reach the server.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import tensorflow as tf
import tensorflow_federated as tff

from tff_autoprune.federated import client_work as client_work_lib
from tff_autoprune.federated import loops, reports
from tff_autoprune.federated.stateless import StatelessModel
from tff_autoprune.federated.task import Task

_Seen = dict[str, list[tf.Tensor]]


@dataclasses.dataclass(frozen=True)
class Reach:
    """Which of some layers' inputs can be examined.

    Attributes:
      channels: By layer in reach: the channels that it reads.
      unreached: By layer out of reach: why.
    """

    channels: Mapping[str, int]
    unreached: Mapping[str, str]


@contextlib.contextmanager
def _watched(model: tf.keras.Model, names: Mapping[str, int]) -> Iterator[_Seen]:
    """Keeps what layers are called with, wherever in the model they are.

    Yields:
      By name the first input of each call.
    """
    seen: _Seen = {name: [] for name in names}
    layers = [
        layer
        for layer in model._flatten_layers(include_self=False, recursive=True)
        if layer.name in seen
    ]
    try:
        for layer in layers:
            vars(layer)["call"] = _recording(layer.call, seen[layer.name])
        yield seen
    finally:
        for layer in layers:
            vars(layer).pop("call", None)


def _recording(call: Any, seen: list[tf.Tensor]) -> Any:
    def recorded(inputs, *args, **kwargs):
        seen.append(inputs)
        return call(inputs, *args, **kwargs)

    return recorded


def reach(stateless: StatelessModel, task: Task, layers: Mapping[str, int]) -> Reach:
    """Finds out which layers' inputs can be examined, by a call of the model that runs nothing.

    Args:
      stateless: The model.
      task: What it learns.
      layers: See `build_examination`.
    """
    names = [
        layer.name for layer in stateless.model._flatten_layers(include_self=False, recursive=True)
    ]
    specs = (stateless.trainable, stateless.non_trainable, task.batch_spec[0])
    channels, unreached = {}, {}
    with tf.Graph().as_default() as graph, _watched(stateless.model, layers) as seen:
        values = tf.nest.map_structure(
            lambda spec: tf.compat.v1.placeholder(spec.dtype, spec.shape), specs
        )
        stateless(*values, training=False)
        for name, places in layers.items():
            reason = _unreached(graph, names.count(name), seen[name], places)
            if reason:
                unreached[name] = reason
            else:
                channels[name] = seen[name][0].shape[-1] // places
    return Reach(channels, unreached)


def _unreached(graph: tf.Graph, count: int, seen: list[Any], places: int) -> str:
    """Returns why a layer's inputs cannot be examined; "" if they can."""
    if count != 1:
        return f"{count} layers of the model have this name"
    if not seen:
        return "it is not called through its own `call`"
    for value in seen:
        if not tf.is_tensor(value):
            return "it reads several tensors at once"
        if value.graph is not graph:
            return "it is called inside a loop"
        if not value.shape.rank or value.shape[-1] is None or value.shape[-1] % places:
            return f"the last axis of its input, {value.shape}, is not channels at {places} places"
    if len({value.shape[-1] for value in seen}) > 1:
        return "its calls read different numbers of channels"
    return ""


def build_examination(
    stateless: StatelessModel,
    task: Task,
    reporting: reports.Plain,
    layers: Mapping[str, int],
    channels: Mapping[str, int],
) -> tff.Computation:
    """Builds the federated examination of a model.

    Args:
      stateless: The model.
      task: What it learns.
      reporting: How the sums of clients are summed.
      layers: Names of layers anywhere in the model whose inputs are examined, each with the number
        of places of a channel that the last axis of the input has: 1, but for what reads the output
        of a Flatten. A layer that is called several times is examined over all its calls.
      channels: Of each of them, from `reach`.

    Returns:
      `(<W@SERVER, {D*}@CLIENTS> -> <sums, moments>@SERVER)`: the sums are those of
      `task.evaluation_sums`, the moments float32 [channels, channels] by layer: sums over examples
      and places.
    """
    weights_type = client_work_lib.weights_type(stateless)
    data_type = client_work_lib.data_type(task)

    @tff.tensorflow.computation(weights_type, data_type)
    @tf.function(autograph=False)
    def examine_client(weights, dataset):
        zeros = collections.OrderedDict(
            (name, tf.zeros([channels[name], channels[name]])) for name in layers
        )

        def step(state, element):
            sums, moments = state
            batch = task.batch(element)
            with _watched(stateless.model, layers) as seen:
                outputs, _ = stateless(
                    weights.trainable, weights.non_trainable, batch.inputs, training=False
                )
            sums = tf.nest.map_structure(tf.add, sums, task.evaluation_sums(outputs, batch))
            new = collections.OrderedDict()
            for name in layers:
                new[name] = moments[name]
                for value in seen[name]:
                    rows = tf.reshape(tf.cast(value, tf.float32), [-1, channels[name]])
                    new[name] += tf.matmul(rows, rows, transpose_a=True)
            return sums, new

        return loops.fold(dataset, (task.zeros(evaluation=True), zeros), step)

    @tff.federated_computation(
        tff.FederatedType(weights_type, tff.SERVER), tff.FederatedType(data_type, tff.CLIENTS)
    )
    def examine(weights, data):
        return reporting.sum(
            tff.federated_map(examine_client, (tff.federated_broadcast(weights), data))
        )

    return examine

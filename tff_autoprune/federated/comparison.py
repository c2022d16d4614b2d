"""Models against the present one, on the same clients.

    held-out examples ──present model, candidates──> sums of each client, and of its differences
    sums over clients ──> mean difference and its standard error over clients

A candidate is the present model with some weights replaced: clients that have the model download
nothing else. Models of another architecture are compared in the same computation.

A client with n examples reports for each model the difference e of its sum from the present
model's, e^2 and n e, and n and n^2. The mean difference over examples is the ratio
theta = sum(e) / sum(n) over K clients, its variance sum((e - theta n)^2) / sum(n)^2 * K / (K - 1)
(Cochran, Sampling Techniques, 1977, section 2.11).
"""

from __future__ import annotations

import collections
import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

from tff_autoprune.federated import client_work as client_work_lib
from tff_autoprune.federated import loops, reports
from tff_autoprune.federated.stateless import StatelessModel
from tff_autoprune.federated.task import Task

#: Index in `model.weights` -> the weight's new value.
Candidate = Mapping[int, np.ndarray]
_FIGURES = ("loss", "metric")


@dataclasses.dataclass(frozen=True)
class Paired:
    """A model against the present one on the same clients.

    A model with a weight or a loss that is not finite is infinitely bad; if the present one has
    such, the differences are NaN.

    Attributes:
      points: Points of accuracy that it has more, over all examples; of regression, the percent by
        which its error is smaller.
      points_error: Standard error of that over clients; infinite for one client.
      loss_rise: Its loss minus that of the present model.
      loss_rise_error: Standard error of that.
      accuracy: Its metric (see `Task.metric`).
      loss: Its loss.
    """

    points: float
    points_error: float
    loss_rise: float
    loss_rise_error: float
    accuracy: float
    loss: float


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Models against the present one on the same clients.

    Attributes:
      base: "loss", "accuracy" (the task's metric) and "num_examples" of the present model.
      candidates: The candidates in order, then the other models.
    """

    base: Mapping[str, float]
    candidates: Sequence[Paired]


def build_comparison(
    stateless: StatelessModel,
    task: Task,
    reporting: reports.Plain,
    replaced: Sequence[int],
    count: int,
    others: Sequence[StatelessModel],
) -> tff.Computation:
    """Builds the federated comparison.

    Args:
      stateless: The present model.
      task: What it learns.
      reporting: How the reports of clients are summed.
      replaced: Indices in `model.weights` of what candidates replace.
      count: Number of candidates.
      others: Models of other architectures.

    Returns:
      `(<W@SERVER, R@SERVER, <W...>@SERVER, {D*}@CLIENTS> -> report@SERVER)`: R has for each of
      `replaced` float32 [count, *shape].
    """
    task = dataclasses.replace(task, metrics_fn=None)
    model = stateless.model
    trainable = {id(v): i for i, v in enumerate(model.trainable_weights)}
    frozen = {id(v): i for i, v in enumerate(model.non_trainable_weights)}
    weights_type = client_work_lib.weights_type(stateless)
    replaced_type = tff.types.tensorflow_to_type(
        tuple(
            tf.TensorSpec((count, *model.weights[i].shape), model.weights[i].dtype)
            for i in replaced
        )
    )
    others_type = tff.StructWithPythonType(
        [client_work_lib.weights_type(other) for other in others], tuple
    )
    data_type = client_work_lib.data_type(task)
    total = 1 + count + len(others)

    def with_values(weights: Any, values: Sequence[tf.Tensor]) -> tuple[list, list]:
        changed = (list(weights.trainable), list(weights.non_trainable))
        for index, value in zip(replaced, values):
            variable = model.weights[index]
            kind, places = (0, trainable) if id(variable) in trainable else (1, frozen)
            changed[kind][places[id(variable)]] = value
        return changed

    def figures(outputs: Any, batch: Any) -> tf.Tensor:
        sums = task.training_sums(outputs, batch)
        return tf.stack([sums["loss_sum"], sums["metric_sum"], sums["num_examples"]])

    @tff.tensorflow.computation(weights_type, replaced_type, others_type, data_type)
    @tf.function(autograph=False)
    def compare_on_client(weights, values, other_weights, dataset):
        def step(sums, element):
            batch = task.batch(element)

            def of(one, trainable, non_trainable):
                outputs, _ = one(trainable, non_trainable, batch.inputs, training=False)
                return figures(outputs, batch)

            found = [of(stateless, weights.trainable, weights.non_trainable)[tf.newaxis]]
            if not replaced:
                found *= 1 + count
            elif count:
                found.append(
                    tf.map_fn(
                        lambda own: of(stateless, *with_values(weights, own)),
                        tuple(values),
                        fn_output_signature=tf.TensorSpec((3,), tf.float32),
                        parallel_iterations=1,
                    )
                )
            for other, own in zip(others, other_weights):
                found.append(of(other, own.trainable, own.non_trainable)[tf.newaxis])
            return sums + tf.concat(found, axis=0)

        sums = loops.fold(dataset, tf.zeros([total, 3]), step)
        return _report(sums)

    @tff.federated_computation(
        tff.FederatedType(weights_type, tff.SERVER),
        tff.FederatedType(replaced_type, tff.SERVER),
        tff.FederatedType(others_type, tff.SERVER),
        tff.FederatedType(data_type, tff.CLIENTS),
    )
    def compare(weights, values, other_weights, data):
        at_clients = [tff.federated_broadcast(one) for one in (weights, values, other_weights)]
        return reporting.sum(tff.federated_map(compare_on_client, (*at_clients, data)))

    return compare


def _report(sums: tf.Tensor) -> dict[str, tf.Tensor]:
    """Returns what a client reports: float32 [models] each, or scalars.

    Args:
      sums: float32 [models, 3]: of loss, metric and examples; the present model is the first.
    """
    finite = tf.reduce_all(tf.math.is_finite(sums), axis=1)
    examples = sums[0, 2]
    report = collections.OrderedDict(
        examples=examples,
        examples_squared=examples**2,
        failures=1.0 - tf.cast(finite, tf.float32),
    )
    for place, name in enumerate(_FIGURES):
        values = tf.where(finite, sums[:, place], tf.zeros_like(sums[:, place]))
        differences = values - values[0]
        report[name] = values
        report[f"{name}_squares"] = differences**2
        report[f"{name}_crosses"] = differences * examples
    return report


def is_finite(values: Iterable[np.ndarray]) -> bool:
    """Returns whether all weights of a model are finite. Outputs do not tell: ReLU hides NaN."""
    return all(bool(np.isfinite(value).all()) for value in values)


def finalize(
    report: Mapping[str, Any], task: Task, num_clients: int, finite: Sequence[bool]
) -> Comparison:
    """Turns the sum of reports over clients into a comparison.

    Args:
      report: What the computation of `build_comparison` returned.
      task: What the models learn.
      num_clients: Clients that were asked.
      finite: Whether the weights of each model are; the present one is the first.
    """
    found = {name: np.asarray(value, np.float64) for name, value in report.items()}
    examples = float(found["examples"]) or math.nan
    failed = (found["failures"] > 0.5) | ~np.asarray(finite)
    base = {
        "loss": math.nan if failed[0] else float(found["loss"][0]) / examples,
        "accuracy": math.nan if failed[0] else float(found["metric"][0]) / examples,
        "num_examples": float(found["examples"]),
    }
    # Of an error, less is better, and a percent of it the unit.
    unit = 100.0
    if not task.metric.higher_is_better:
        unit = -100.0 / max(abs(base["accuracy"]), 1e-12)
    candidates = []
    for number in range(1, len(failed)):
        if failed[0] or failed[number]:
            worst = math.nan if failed[0] else math.inf
            candidates.append(Paired(-worst, 0.0, worst, 0.0, math.nan, math.nan))
            continue
        loss, loss_error = _difference(found, "loss", number, num_clients)
        metric, metric_error = _difference(found, "metric", number, num_clients)
        candidates.append(
            Paired(
                points=unit * metric,
                points_error=abs(unit) * metric_error,
                loss_rise=loss,
                loss_rise_error=loss_error,
                accuracy=float(found["metric"][number]) / examples,
                loss=float(found["loss"][number]) / examples,
            )
        )
    return Comparison(base, tuple(candidates))


def _difference(
    found: Mapping[str, np.ndarray], name: str, number: int, num_clients: int
) -> tuple[float, float]:
    """Returns a model's mean difference from the present one, and its standard error."""
    examples = float(found["examples"]) or math.nan
    mean = float(found[name][number] - found[name][0]) / examples
    if num_clients < 2:
        return mean, math.inf
    squares = (
        found[f"{name}_squares"][number]
        - 2 * mean * found[f"{name}_crosses"][number]
        + mean**2 * found["examples_squared"]
    )
    variance = max(0.0, float(squares)) / examples**2 * num_clients / (num_clients - 1)
    return mean, math.sqrt(variance)

"""Models against the present one, on the same clients.

    held-out examples ──present model, others──> sums of each client, and of its differences
    sums over clients ──> mean difference and its standard error over clients

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
      candidates: The other models, in order.
    """

    base: Mapping[str, float]
    candidates: Sequence[Paired]


def build_comparison(
    stateless: StatelessModel,
    task: Task,
    reporting: reports.Plain,
    others: Sequence[StatelessModel],
) -> tff.Computation:
    """Builds the federated comparison.

    Args:
      stateless: The present model.
      task: What it learns.
      reporting: How the reports of clients are summed.
      others: Models of any architecture.

    Returns:
      `(<W@SERVER, <W...>@SERVER, {D*}@CLIENTS> -> report@SERVER)`.
    """
    task = dataclasses.replace(task, metrics_fn=None)
    weights_type = client_work_lib.weights_type(stateless)
    others_type = tff.StructWithPythonType(
        [client_work_lib.weights_type(other) for other in others], tuple
    )
    data_type = client_work_lib.data_type(task)
    models = (stateless, *others)

    @tff.tensorflow.computation(weights_type, others_type, data_type)
    @tf.function(autograph=False)
    def compare_on_client(weights, other_weights, dataset):
        def step(sums, element):
            batch = task.batch(element)

            def figures(model, own):
                outputs, _ = model(own.trainable, own.non_trainable, batch.inputs, training=False)
                found = task.training_sums(outputs, batch)
                return tf.stack([found["loss_sum"], found["metric_sum"], found["num_examples"]])

            return sums + tf.stack(
                [figures(model, own) for model, own in zip(models, (weights, *other_weights))]
            )

        return _report(loops.fold(dataset, tf.zeros([len(models), 3]), step))

    @tff.federated_computation(
        tff.FederatedType(weights_type, tff.SERVER),
        tff.FederatedType(others_type, tff.SERVER),
        tff.FederatedType(data_type, tff.CLIENTS),
    )
    def compare(weights, other_weights, data):
        at_clients = [tff.federated_broadcast(one) for one in (weights, other_weights)]
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

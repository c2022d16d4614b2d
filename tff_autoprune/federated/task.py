"""What a model is to learn: its batches, its loss, its metric.

    batch ──model──> outputs ──heads──> losses, scores ──sum over clients──> loss, metric

The server only needs sums, so every figure is a mean over predictions of all clients.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Optional, Union

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

from tff_autoprune import data
from tff_autoprune.data import client_data
from tff_autoprune.errors import UserError
from tff_autoprune.federated import heads as heads_lib
from tff_autoprune.federated import losses, outputs
from tff_autoprune.models import graph

#: Returns new Keras metrics, by name.
MetricsFunction = Callable[[], "collections.OrderedDict[str, tf.keras.metrics.Metric]"]

_OWN = "metrics"


class Metric(NamedTuple):
    """What a model is judged by.

    Attributes:
      name: "accuracy" (of classes, in [0, 1]) or "mean absolute error".
      higher_is_better: Whether a larger value is better.
    """

    name: str
    higher_is_better: bool

    def points_lost(self, before: float, after: float) -> float:
        """Returns what a change costs: points of accuracy, or percent of an error."""
        if self.higher_is_better:
            return 100 * (before - after)
        return 100 * (after - before) / max(abs(before), 1e-12)


class Batch(NamedTuple):
    """A batch as the client work reads it.

    Attributes:
      inputs: A tensor, or a tuple of them in the order of `model.inputs`.
      labels: A tensor, or a tuple of them in the order of `model.outputs`.
      weights: float32 [batch], what each example counts; None if all count 1.
    """

    inputs: Any
    labels: Any
    weights: Optional[tf.Tensor]


@dataclasses.dataclass(frozen=True)
class Task:
    """What a model is to learn; `Task.of` makes it.

    Attributes:
      input_names: Names of the model's inputs.
      inputs: Their specs, [batch, ...].
      heads: What each output is for, in the order of `model.outputs`.
      weighted: Whether batches come with a weight for each example.
      metrics_fn: Further metrics, for the user to read.
    """

    input_names: tuple[str, ...]
    inputs: tuple[tf.TensorSpec, ...]
    heads: tuple[heads_lib.Head, ...]
    weighted: bool = False
    metrics_fn: Optional[MetricsFunction] = None

    @classmethod
    def of(
        cls,
        model: tf.keras.Model,
        kind: Union[str, Mapping[str, str], None] = None,
        *,
        labels: Any = None,
        loss: Union[str, Callable, Mapping[str, Any], None] = None,
        loss_weights: Optional[Mapping[str, float]] = None,
        metrics: Union[MetricsFunction, Sequence[Callable], None] = None,
        sample_weights: bool = False,
        ignored_label: Optional[int] = None,
    ) -> Task:
        """Tells what a model is to learn; infers what is not said.

        One output with a sigmoid is binary; several numbers with a softmax, or with no activation
        and labels that are numbers of classes, are multi-class, for each example, pixel or place of
        a sequence; several with a sigmoid, and as many labels, are multi-label; one number without
        an activation is regression if its labels are floats, and binary if they are integers.

        Args:
          model: A built model.
          kind: "multi-class", "binary", "multi-label" or "regression"; for several outputs by their
            names; None to infer it.
          labels: Specs of the labels in the data, e.g. `dataset.element_spec[1]`, from which the
            kind is inferred where outputs do not tell it.
          loss: A Keras loss (an object, a function of labels and outputs, a name); for several
            outputs by their names. By default cross entropy, or the squared error.
          loss_weights: Factors on the losses of several outputs, by their names; 1 by default.
          metrics: Further metrics: Keras classes (or functions that make a metric), or a function
            that returns an OrderedDict of them. Only for models with one output.
          sample_weights: Whether data sets give (inputs, labels, weights).
          ignored_label: multi-class: the label of places that do not count, e.g. 0 for padding.

        Raises:
          UserError: If something does not fit the model, or cannot be inferred.
        """
        graph.check_graph(model)
        names = tuple(model.output_names)
        endings = outputs.endings(model)
        by_name = dict(zip(names, _in_order(names, labels) if labels is not None else ()))
        heads = tuple(
            heads_lib.build_head(
                name,
                tf.TensorSpec(tensor.shape, tensor.dtype),
                ending,
                kind=_of_output("kind", names, name, kind),
                label=by_name.get(name),
                ignored_label=ignored_label,
                loss=_loss_function(_of_output("loss", names, name, loss)),
                weight=float((loss_weights or {}).get(name, 1.0)),
            )
            for name, tensor, ending in zip(names, model.outputs, endings)
        )
        unknown = set(loss_weights or ()) - set(names)
        if unknown:
            raise UserError(
                f"task: loss_weights names {sorted(unknown)[0]!r}; the outputs are"
                f" {', '.join(names)}."
            )
        if metrics is not None and len(heads) > 1:
            raise UserError("task: metrics of one's own need a model with one output.")
        return cls(
            input_names=tuple(model.input_names),
            inputs=tuple(tf.TensorSpec(t.shape, t.dtype) for t in model.inputs),
            heads=heads,
            weighted=sample_weights,
            metrics_fn=_metrics_function(metrics),
        )

    @classmethod
    def of_data(
        cls, model: tf.keras.Model, clients: tff.simulation.datasets.ClientData, **options: Any
    ) -> Task:
        """Tells what a model is to learn from a data set; see `of`.

        Args:
          model: A built model.
          clients: Any clients of the data set; their labels tell what outputs do not.
          **options: As for `of`.

        Raises:
          UserError: As `of`, or if examples are not (inputs, labels).
        """
        spec = data.as_examples(clients).element_type_structure
        parts = client_data.parts_of_example("data", spec)
        labels = tf.nest.map_structure(
            lambda one: tf.TensorSpec((None, *one.shape), one.dtype), parts[1]
        )
        return cls.of(model, labels=labels, **{"sample_weights": len(parts) == 3, **options})

    # ---------------------------------------------------------------- what it is

    @property
    def metric(self) -> Metric:
        """What the model is judged by: the metric of its first output."""
        if self.heads[0].classifies:
            return Metric("accuracy", higher_is_better=True)
        return Metric("mean absolute error", higher_is_better=False)

    @property
    def chance(self) -> Optional[float]:
        """The accuracy of guessing evenly; None where the metric is not an accuracy."""
        head = self.heads[0]
        if not head.classifies:
            return None
        return 0.5 if head.kind == heads_lib.MULTI_LABEL else 1 / head.num_classes

    @property
    def batch_spec(self) -> tuple[Any, ...]:
        """Specs of a batch: (inputs, labels), or (inputs, labels, weights)."""
        spec = (_single(self.inputs), _single(tuple(head.label for head in self.heads)))
        return (*spec, tf.TensorSpec((None,), tf.float32)) if self.weighted else spec

    # ---------------------------------------------------------------- what a client computes

    def batch(self, parts: Sequence[Any]) -> Batch:
        """Names the parts of an element of a data set."""
        return Batch(parts[0], parts[1], parts[2] if self.weighted else None)

    def training_sums(self, values: Any, batch: Batch) -> dict[str, Any]:
        """Returns the sums over a batch that loss and metric are made of.

        Args:
          values: The model's outputs, in its own structure.
          batch: The batch.

        Returns:
          "loss_sum", "metric_sum", "num_examples" (the sum of the weights of the predictions), and
          those of further outputs and metrics.
        """
        sums = self._sums(values, batch)
        sums.pop("tempered_loss_sums")
        return sums

    def evaluation_sums(self, values: Any, batch: Batch) -> dict[str, Any]:
        """Returns `training_sums`, and "tempered_loss_sums": see `losses.calibrated_loss`."""
        return self._sums(values, batch)

    def _sums(self, values: Any, batch: Batch) -> dict[str, Any]:
        found = [
            _weighted(
                head.predictions(value, label), label, batch.weights, single=self._single_head
            )
            for head, value, label in zip(self.heads, tf.nest.flatten(values), _tuple(batch.labels))
        ]
        first = found[0]
        sums = collections.OrderedDict(
            loss_sum=tf.add_n([head.weight * one.loss for head, one in zip(self.heads, found)]),
            metric_sum=first.score,
            num_examples=first.count,
        )
        for head, one in zip(self.heads[1:], found[1:]):
            sums[f"{head.name}/metric_sum"] = one.score
        if self.metrics_fn is not None:
            initial, update, _ = self._own_metrics()
            labels = self.heads[0].like_keras(batch.labels)
            state = update(initial(), labels, _BatchOutput(tf.nest.flatten(values)[0]))
            sums[_OWN] = tf.nest.map_structure(tf.identity, state)
        sums["tempered_loss_sums"] = (
            first.tempered if self._single_head else tf.reshape(sums["loss_sum"], [1])
        )
        return sums

    @property
    def _single_head(self) -> bool:
        return len(self.heads) == 1

    def zeros(self, *, evaluation: bool) -> dict[str, Any]:
        """Returns the sums over no examples."""
        zeros = collections.OrderedDict(
            loss_sum=tf.constant(0.0), metric_sum=tf.constant(0.0), num_examples=tf.constant(0.0)
        )
        for head in self.heads[1:]:
            zeros[f"{head.name}/metric_sum"] = tf.constant(0.0)
        if self.metrics_fn is not None:
            zeros[_OWN] = tf.nest.map_structure(tf.identity, self._own_metrics()[0]())
        if evaluation:
            kind = self.heads[0]
            tempers = kind.loss is None and kind.kind in (heads_lib.MULTI_CLASS, heads_lib.BINARY)
            count = len(losses.TEMPERATURES) if tempers and self._single_head else 1
            zeros["tempered_loss_sums"] = tf.zeros([count])
        return zeros

    def _own_metrics(self) -> tuple[Callable, Callable, Callable]:
        return _pure_metrics(self.metrics_fn)

    # ---------------------------------------------------------------- what the server computes

    def finalize(self, sums: Mapping[str, Any]) -> dict[str, float]:
        """Turns sums over all clients into metrics.

        Args:
          sums: Those of `training_sums` or `evaluation_sums`.

        Returns:
          "loss", "metric" (see `metric`; for classes also as "accuracy") and "num_examples"; the
          metric of further outputs by "OUTPUT/metric" and the user's own by their names; of an
          evaluation also "calibrated_loss", see `losses.calibrated_loss`. NaN without examples.
        """
        count = float(sums["num_examples"])
        examples = count or float("nan")
        found = {
            "loss": float(sums["loss_sum"]) / examples,
            "metric": float(sums["metric_sum"]) / examples,
            "num_examples": count,
        }
        if self.heads[0].classifies:
            found["accuracy"] = found["metric"]
        for head in self.heads[1:]:
            name = f"{head.name}/metric"
            found[name] = float(sums[f"{name}_sum"]) / examples
        if _OWN in sums:
            values = self._own_metrics()[2](tf.nest.map_structure(tf.constant, sums[_OWN]))
            found.update({name: float(value) for name, value in values.items()})
        if "tempered_loss_sums" in sums:
            tempered = np.asarray(sums["tempered_loss_sums"]) / examples
            found["calibrated_loss"] = losses.calibrated_loss(tempered)
        return found


# (initialize, update, finalize) of metrics; making them anew would trace them anew.
_pure_metrics = functools.lru_cache(maxsize=8)(tff.learning.metrics.create_functional_metric_fns)


class _BatchOutput(NamedTuple):
    """What `create_functional_metric_fns` reads of a forward pass."""

    predictions: tf.Tensor


class _Sums(NamedTuple):
    """Sums over the predictions of a batch for one output."""

    loss: tf.Tensor
    score: tf.Tensor
    tempered: tf.Tensor
    count: tf.Tensor


def _weighted(
    found: heads_lib.Predictions, labels: tf.Tensor, weights: Optional[tf.Tensor], *, single: bool
) -> _Sums:
    """Sums over predictions, or over examples where outputs have different numbers of them."""
    examples = tf.shape(labels)[0]
    places = tf.shape(found.losses)[0] // tf.maximum(examples, 1)
    counted = found.counted
    if not single:
        shaped = tf.reshape(counted, [examples, places])
        share = shaped / tf.maximum(tf.reduce_sum(shaped, axis=1, keepdims=True), 1.0)
        counted = tf.reshape(share, [-1])
    if weights is not None:
        counted *= tf.repeat(tf.cast(weights, tf.float32), places)
    return _Sums(
        loss=tf.reduce_sum(found.losses * counted),
        score=tf.reduce_sum(found.scores * counted),
        tempered=tf.reduce_sum(found.tempered * counted[:, tf.newaxis], axis=0),
        count=tf.reduce_sum(counted),
    )


def _single(parts: tuple[Any, ...]) -> Any:
    return parts[0] if len(parts) == 1 else parts


def _tuple(parts: Any) -> tuple[Any, ...]:
    return tuple(parts) if isinstance(parts, (list, tuple)) else (parts,)


def _in_order(names: Sequence[str], given: Any) -> Sequence[Any]:
    """Returns what was given for several outputs in the order of their names."""
    if isinstance(given, Mapping):
        if set(given) != set(names):
            raise UserError(
                f"task: expected labels for the outputs {', '.join(names)}, found"
                f" {', '.join(map(str, given))}."
            )
        return [given[name] for name in names]
    flat = _tuple(given)
    if len(flat) != len(names):
        raise UserError(
            f"task: the model has {len(names)} outputs, and the labels {len(flat)} parts."
        )
    return flat


def _of_output(field: str, names: Sequence[str], name: str, given: Any) -> Any:
    if not isinstance(given, Mapping):
        return given
    unknown = set(given) - set(names)
    if unknown:
        raise UserError(
            f"task: {field} names {sorted(unknown)[0]!r}; the outputs are {', '.join(names)}."
        )
    return given.get(name)


def _loss_function(given: Union[str, Callable, None]) -> Optional[heads_lib.LossFunction]:
    if given is None:
        return None
    try:
        loss = tf.keras.losses.get(given)
    except ValueError as error:
        raise UserError(f"task: there is no Keras loss {given!r}.") from error
    # A loss object reduces to one number when it is called; `call` gives one for each example.
    return loss.call if isinstance(loss, tf.keras.losses.Loss) else loss


def _metrics_function(given: Any) -> Optional[MetricsFunction]:
    if given is None:
        return None
    if isinstance(given, (list, tuple)):
        if not all(map(callable, given)):
            raise UserError(
                "task: metrics must be classes or functions that make a metric, e.g."
                " [tf.keras.metrics.AUC], since every client counts for itself."
            )
        makers = tuple(given)
        return lambda: collections.OrderedDict(
            (metric.name, metric) for metric in (make() for make in makers)
        )
    if not callable(given):
        raise UserError(f"task: metrics must be a list or a function, found {given!r}.")
    return given

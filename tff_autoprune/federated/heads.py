"""What one output of a model is for: its labels, its loss and its metric.

    outputs, labels ──> for each prediction: loss, score, whether it counts

A prediction is one example; or one pixel, or one place of a sequence.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import NamedTuple, Optional

import tensorflow as tf

from tff_autoprune.errors import UserError
from tff_autoprune.federated import losses, outputs

MULTI_CLASS, BINARY, MULTI_LABEL, REGRESSION = KINDS = (
    "multi-class",
    "binary",
    "multi-label",
    "regression",
)

#: (labels, outputs) -> one loss for each prediction, as a Keras loss computes before it reduces.
LossFunction = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]


class Predictions(NamedTuple):
    """What a batch's predictions are worth.

    Attributes:
      losses: float32 [predictions].
      scores: float32 [predictions], whose mean is the metric.
      tempered: float32 [predictions, temperatures]: the losses at `losses.TEMPERATURES` where the
        outputs are classes; else the loss alone.
      counted: float32 [predictions]: 0 where the label says that nothing is asked, else 1.
    """

    losses: tf.Tensor
    scores: tf.Tensor
    tempered: tf.Tensor
    counted: tf.Tensor


@dataclasses.dataclass(frozen=True)
class Head:
    """What one output of a model is for.

    Attributes:
      name: The output's name.
      kind: One of `KINDS`.
      output: Spec of the output.
      label: Spec of the labels.
      from_logits: Whether the output is logits rather than probabilities.
      ignored_label: multi-class: the label of places that do not count (padding); None if all do.
      loss: The user's own loss; None for the kind's: cross entropy, or the squared error.
      weight: Factor on its loss, where a model has several outputs.
    """

    name: str
    kind: str
    output: tf.TensorSpec
    label: tf.TensorSpec
    from_logits: bool
    ignored_label: Optional[int] = None
    loss: Optional[LossFunction] = None
    weight: float = 1.0

    @property
    def classifies(self) -> bool:
        """Whether the metric is an accuracy."""
        return self.kind != REGRESSION

    @property
    def num_classes(self) -> int:
        """Classes of a multi-class output; 2 of a binary one; else the number of outputs."""
        return 2 if self.kind == BINARY else self.output.shape[-1]

    @property
    def one_hot(self) -> bool:
        """Whether labels are one-hot rather than numbers."""
        return self.kind == MULTI_CLASS and self.label.shape.rank == self.output.shape.rank

    def like_keras(self, labels: tf.Tensor) -> tf.Tensor:
        """Returns labels as Keras' losses and metrics want them: one number has an axis of 1."""
        lacks = self.label.shape.rank == self.output.shape.rank - 1
        return labels[..., tf.newaxis] if lacks and self.kind != MULTI_CLASS else labels

    def predictions(self, values: tf.Tensor, labels: tf.Tensor) -> Predictions:
        """Returns loss and score of every prediction.

        Args:
          values: The output, as `output` says.
          labels: As `label` says.
        """
        found = _KINDS[self.kind](self, tf.cast(values, tf.float32), labels)
        if self.loss is None:
            return found
        own = tf.convert_to_tensor(self.loss(self.like_keras(labels), values))
        if own.shape.rank == 0:
            raise UserError(
                f"task: the loss of the output {self.name!r} gives one number for a whole batch;"
                " expected one for each example (reduction=tf.keras.losses.Reduction.NONE)."
            )
        own = tf.reshape(tf.cast(own, tf.float32), [tf.shape(found.losses)[0], -1])
        own = tf.reduce_mean(own, axis=1)
        return found._replace(losses=own, tempered=own[:, tf.newaxis])


def _multi_class(head: Head, values: tf.Tensor, labels: tf.Tensor) -> Predictions:
    rows = tf.reshape(values, [-1, head.num_classes])
    if head.one_hot:
        targets = tf.reshape(tf.cast(labels, tf.float32), [-1, head.num_classes])
        sparse = tf.argmax(targets, axis=-1, output_type=tf.int32)
        loss = tf.keras.backend.categorical_crossentropy(
            targets, rows, from_logits=head.from_logits
        )
        counted = tf.ones_like(loss)
    else:
        sparse, counted = _without_ignored(head, tf.reshape(labels, [-1]))
        loss = losses.cross_entropy(rows, sparse, from_logits=head.from_logits)
    tempered = losses.tempered_cross_entropies(rows, sparse, from_logits=head.from_logits)
    hits = tf.equal(tf.argmax(rows, axis=-1, output_type=tf.int32), sparse)
    return Predictions(loss, tf.cast(hits, tf.float32), tempered, counted)


def _without_ignored(head: Head, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns labels that are all in range, and which of them count."""
    if head.ignored_label is None:
        return labels, tf.ones_like(labels, tf.float32)
    ignored = tf.equal(labels, head.ignored_label)
    return tf.where(ignored, tf.zeros_like(labels), labels), tf.cast(~ignored, tf.float32)


def _binary(head: Head, values: tf.Tensor, labels: tf.Tensor) -> Predictions:
    rows = tf.reshape(values, [-1])
    targets = tf.reshape(tf.cast(labels, tf.float32), [-1])
    logits = rows if head.from_logits else losses.logits_of_probabilities(rows)
    scaled = logits[:, tf.newaxis] / tf.constant(losses.TEMPERATURES)
    repeated = tf.repeat(targets[:, tf.newaxis], len(losses.TEMPERATURES), axis=1)
    tempered = tf.nn.sigmoid_cross_entropy_with_logits(repeated, scaled)
    loss = tf.nn.sigmoid_cross_entropy_with_logits(targets, logits)
    hits = tf.cast(tf.equal(logits > 0, targets > 0.5), tf.float32)
    return Predictions(loss, hits, tempered, tf.ones_like(loss))


def _multi_label(head: Head, values: tf.Tensor, labels: tf.Tensor) -> Predictions:
    width = head.output.shape[-1]
    rows = tf.reshape(values, [-1, width])
    targets = tf.reshape(tf.cast(labels, tf.float32), [-1, width])
    logits = rows if head.from_logits else losses.logits_of_probabilities(rows)
    loss = tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(targets, logits), axis=-1)
    hits = tf.reduce_mean(tf.cast(tf.equal(logits > 0, targets > 0.5), tf.float32), axis=-1)
    return Predictions(loss, hits, loss[:, tf.newaxis], tf.ones_like(loss))


def _regression(head: Head, values: tf.Tensor, labels: tf.Tensor) -> Predictions:
    width = 1 if head.label.shape.rank < head.output.shape.rank else (head.output.shape[-1] or 1)
    if head.output.shape.rank == 1:
        width = 1
    error = tf.reshape(values, [-1, width]) - tf.reshape(tf.cast(labels, tf.float32), [-1, width])
    loss = tf.reduce_mean(tf.square(error), axis=-1)
    score = tf.reduce_mean(tf.abs(error), axis=-1)
    return Predictions(loss, score, loss[:, tf.newaxis], tf.ones_like(loss))


_KINDS: dict[str, Callable[[Head, tf.Tensor, tf.Tensor], Predictions]] = {
    MULTI_CLASS: _multi_class,
    BINARY: _binary,
    MULTI_LABEL: _multi_label,
    REGRESSION: _regression,
}


def build_head(
    name: str,
    output: tf.TensorSpec,
    ending: str,
    *,
    kind: Optional[str] = None,
    label: Optional[tf.TensorSpec] = None,
    ignored_label: Optional[int] = None,
    loss: Optional[LossFunction] = None,
    weight: float = 1.0,
) -> Head:
    """Finds out what an output is for.

    Args:
      name: The output's name.
      output: Its spec, [batch, ...].
      ending: "softmax", "sigmoid" or "logits", see `outputs.endings`.
      kind: One of `KINDS`; None to infer it.
      label: Spec of the labels in the user's data, if known, [batch, ...].
      ignored_label: See `Head`.
      loss: See `Head`.
      weight: See `Head`.

    Raises:
      UserError: If it cannot be inferred, or does not fit the output.
    """
    single = output.shape.rank < 2 or output.shape[-1] == 1
    kind = kind or _infer_kind(name, output, ending, label, single)
    if kind not in KINDS:
        raise UserError(f"task: expected one of {', '.join(KINDS)}, found {kind!r}.")
    if (kind == BINARY and not single) or (kind in (MULTI_CLASS, MULTI_LABEL) and single):
        raise UserError(
            f"task: the output {name!r} has shape {tuple(output.shape)}, which does not fit"
            f" {kind!r}: {_NEEDS[kind]}."
        )
    if ignored_label is not None and kind != MULTI_CLASS:
        raise UserError(f"task: ignored_label is for multi-class labels, found {kind!r}.")
    places = output.shape[:-1] if single and output.shape.rank > 1 else output.shape
    if kind == MULTI_CLASS:
        one_hot = (
            label is not None
            and label.shape.rank == output.shape.rank
            and label.shape[-1] == output.shape[-1]
        )
        shape, dtype = (output.shape, tf.float32) if one_hot else (output.shape[:-1], tf.int32)
    else:
        shape, dtype = places, tf.int32 if kind == BINARY else tf.float32
    return Head(
        name=name,
        kind=kind,
        output=output,
        label=tf.TensorSpec(shape, dtype),
        from_logits=ending == outputs.LOGITS,
        ignored_label=ignored_label,
        loss=loss,
        weight=weight,
    )


_NEEDS = {
    BINARY: "it needs one number for each example",
    MULTI_CLASS: "it needs a number for each of at least two classes",
    MULTI_LABEL: "it needs a number for each of at least two labels",
}


def _infer_kind(
    name: str, output: tf.TensorSpec, ending: str, label: Optional[tf.TensorSpec], single: bool
) -> str:
    whole = label is not None and (label.dtype.is_integer or label.dtype.is_bool)
    wide = label is not None and not single and label.shape.rank == output.shape.rank
    if single:
        if ending == outputs.SIGMOID:
            return BINARY
        if label is not None:
            return BINARY if whole else REGRESSION
    elif ending == outputs.SOFTMAX or label is None or not wide:
        return MULTI_CLASS
    elif ending == outputs.SIGMOID:
        return MULTI_LABEL
    found = "labels are not known" if label is None else f"labels are {label.dtype.name}"
    raise UserError(
        f"task: the output {name!r} has shape {tuple(output.shape)} and no activation, and its"
        f" {found}{list(label.shape) if label is not None else ''}: say what it is for, one of"
        f" {', '.join(KINDS)}, e.g. federated.Task.of(model, 'regression')."
    )

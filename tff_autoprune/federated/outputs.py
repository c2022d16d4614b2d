"""What the numbers are that a model puts out: logits, or probabilities of some kind.

Decided by numbers, not by layers: whatever the ending is made of (a Softmax layer, an activation,
`tf.nn.softmax`, a Lambda, a Reshape after it, a nested model), probabilities of classes sum to 1
for any input and any weights, and those of a sigmoid stay between 0 and 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Union

import numpy as np
import tensorflow as tf

from tff_autoprune import randomness
from tff_autoprune.errors import UserError
from tff_autoprune.federated.stateless import StatelessModel

#: Probabilities that sum to 1; probabilities that do not; anything else.
SOFTMAX, SIGMOID, LOGITS = "softmax", "sigmoid", "logits"

_EXAMPLES = 2
# The model's own weights, then random ones: logits that lie in [0, 1] by chance leave it then.
_RANDOM_WEIGHTS = 4
_TOLERANCE = 1e-2
# Sizes that a model leaves open: of images, and of everything else.
_ANY_IMAGE_SIZE, _ANY_LENGTH = 64, 8


def endings(model: tf.keras.Model) -> tuple[str, ...]:
    """Returns "softmax", "sigmoid" or "logits" for each output of a model.

    Args:
      model: A built model.

    Raises:
      UserError: If an output has one value that is always 1 (the softmax of a single number).
    """
    stateless = StatelessModel(model)
    stream = randomness.generator(0, "ending")
    seen: list[list[np.ndarray]] = [[] for _ in model.outputs]
    for draw in range(1 + _RANDOM_WEIGHTS):
        trainable = [variable.numpy() for variable in model.trainable_weights]
        if draw:
            trainable = [_random_weight(stream, weight) for weight in trainable]
        fixed = [tf.constant(variable.numpy()) for variable in model.non_trainable_weights]
        outputs, _ = stateless(
            list(map(tf.constant, trainable)), fixed, example_inputs(model, stream), training=False
        )
        for values, output in zip(seen, tf.nest.flatten(outputs)):
            values.append(np.asarray(tf.cast(output, tf.float32)))
    return tuple(map(_ending, model.outputs, seen))


def outputs_logits(model: tf.keras.Model) -> bool:
    """Returns whether the first output of a model is logits rather than probabilities."""
    return endings(model)[0] == LOGITS


def example_inputs(
    model: tf.keras.Model, stream: np.random.Generator
) -> Union[tf.Tensor, Sequence[tf.Tensor]]:
    """Returns random inputs that a model takes: floats in [0, 1), integers 0 and 1."""

    def example(tensor: tf.Tensor) -> tf.Tensor:
        size = _ANY_IMAGE_SIZE if len(tensor.shape) > 3 else _ANY_LENGTH
        shape = (_EXAMPLES, *(length or size for length in tensor.shape[1:]))
        if tensor.dtype.is_floating:
            return tf.constant(stream.random(shape), tensor.dtype)
        if tensor.dtype.is_integer or tensor.dtype.is_bool:
            # 0 and 1 are in every vocabulary.
            return tf.cast(tf.constant(stream.integers(2, size=shape)), tensor.dtype)
        raise UserError(
            f"model: the input {tensor.name!r} takes {tensor.dtype.name}; expected numbers. Turn"
            " other things into numbers where the clients' examples are made."
        )

    return tf.nest.map_structure(example, model.input)


def _random_weight(stream: np.random.Generator, like: np.ndarray) -> np.ndarray:
    fan_in = max(1, int(np.prod(like.shape[:-1])))
    return (stream.normal(size=like.shape) * 2 / np.sqrt(fan_in)).astype(like.dtype)


def _ending(tensor: tf.Tensor, draws: Sequence[np.ndarray]) -> str:
    finite = [values for values in draws if np.isfinite(values).all()]
    if not finite or any(
        values.min() < -_TOLERANCE or values.max() > 1 + _TOLERANCE for values in finite
    ):
        return LOGITS
    if all(np.abs(values.sum(axis=-1) - 1).max() < _TOLERANCE for values in finite):
        if tensor.shape[-1] == 1:
            raise UserError(
                "model: its output is the softmax of a single number, which is always 1; use a"
                " sigmoid, or no activation."
            )
        return SOFTMAX
    return SIGMOID

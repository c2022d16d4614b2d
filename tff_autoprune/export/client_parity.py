"""Whether a client file trains as TensorFlow does."""

from __future__ import annotations

import dataclasses
from typing import Optional

import numpy as np
import tensorflow as tf

from tff_autoprune.errors import UserError
from tff_autoprune.export.client import weight_names
from tff_autoprune.export.client_interpreter import TFLiteClient
from tff_autoprune.federated import losses, optimizers
from tff_autoprune.federated import outputs as outputs_lib
from tff_autoprune.federated.settings import Settings
from tff_autoprune.federated.stateless import StatelessModel

# Adam turns rounding of gradients that should be 0 (of a bias before batch norm) into steps; a
# wrong gradient differs by far more.
STEP_TOLERANCE = 2e-2


@dataclasses.dataclass(frozen=True)
class StepParity:
    """How a step of a client file compares with TensorFlow's.

    Attributes:
      loss_difference: Of the losses, relative.
      weights_difference: Euclidean distance of the changes of all weights, over TensorFlow's.

    Both are None if the model has dropout: its steps are random.
    """

    loss_difference: Optional[float]
    weights_difference: Optional[float]


def tensorflow_step(
    model: tf.keras.Model,
    settings: Settings,
    images: np.ndarray,
    labels: np.ndarray,
    learning_rate: float,
) -> tuple[float, list[np.ndarray]]:
    """Returns loss and weights after the first step of the engine's client work.

    Args:
      model: The model; it is not changed.
      settings: Of the federated engine.
      images: float32 [n, h, w, c], as the model takes them.
      labels: int32 [n].
      learning_rate: Of the step.

    Returns:
      The loss before the step and the weights after it, in the order of `model.weights`.
    """
    stateless = StatelessModel(model)
    trainable = tuple(tf.convert_to_tensor(v) for v in model.trainable_weights)
    non_trainable = tuple(tf.convert_to_tensor(v) for v in model.non_trainable_weights)
    with tf.GradientTape() as tape:
        tape.watch(trainable)
        outputs, non_trainable = stateless(
            trainable, non_trainable, tf.constant(images), training=True
        )
        loss = tf.reduce_mean(
            losses.cross_entropy(
                outputs, tf.constant(labels), from_logits=outputs_lib.outputs_logits(model)
            )
        )
    gradients = tape.gradient(loss, trainable, unconnected_gradients="zero")
    optimizer = optimizers.build_client_optimizer(
        dataclasses.replace(settings, client_learning_rate=learning_rate)
    )
    state = optimizer.initialize(tuple(tf.TensorSpec(v.shape, v.dtype) for v in trainable))
    hyperparameters = tf.nest.map_structure(tf.constant, optimizer.get_hparams(state))
    state = optimizer.set_hparams(state, hyperparameters)
    _, trainable = optimizer.next(state, trainable, tuple(gradients))
    after = {id(v): value for v, value in zip(model.trainable_weights, trainable)}
    after.update({id(v): value for v, value in zip(model.non_trainable_weights, non_trainable)})
    return float(loss), [np.asarray(after[id(v)]) for v in model.weights]


def check_step(
    content: bytes,
    model: tf.keras.Model,
    settings: Settings,
    images: np.ndarray,
    labels: np.ndarray,
    model_images: np.ndarray,
) -> StepParity:
    """Does the same step with a client file and with TensorFlow.

    Args:
      content: What `convert_client` made of the model.
      model: The model.
      settings: As given to `convert_client`.
      images: float32 [n, h, w, c], as the file takes them; at most a batch.
      labels: int [n].
      model_images: The same images as the model takes them.

    Raises:
      UserError: If the changes of the weights differ by more than `STEP_TOLERANCE`.
    """
    client = TFLiteClient(content)
    if client.has_randomness:
        return StepParity(None, None)
    names = weight_names(model)
    before = model.get_weights()
    client.set_weights(dict(zip(names, before)))
    rate = settings.client_learning_rate
    loss = client.train(images, labels, rate).loss
    found = client.get_weights()
    expected_loss, expected = tensorflow_step(
        model, settings, model_images, labels.astype(np.int32), rate
    )
    distance = _norm([found[name] - value for name, value in zip(names, expected)])
    moved = _norm([value - old for value, old in zip(expected, before)])
    parity = StepParity(
        loss_difference=abs(loss - expected_loss) / max(abs(expected_loss), 1e-6),
        weights_difference=distance / max(moved, 1e-12),
    )
    if not parity.weights_difference <= STEP_TOLERANCE:
        raise UserError(
            f"client of {model.name!r}: expected a training step within {STEP_TOLERANCE:g} of"
            f" TensorFlow's, found a difference of {parity.weights_difference:.3g}."
        )
    return parity


def _norm(arrays: list[np.ndarray]) -> float:
    return float(np.sqrt(sum(np.square(array, dtype=np.float64).sum() for array in arrays)))

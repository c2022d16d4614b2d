"""A client in a file: trains a model on a phone, in plain TFLite.

    set_weights(kernel, bias, ...)                            the round begins
    train(images, labels, mask, learning_rate) -> loss, correct     a batch; again and again
    get_weights() -> kernel, bias, ...                        the round ends

The step is that of the federated engine: the same optimizers, the same loss. It is built of
operations that every TFLite runtime has, without TensorFlow's `Select` operations.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Sequence
from typing import Any, Optional

import tensorflow as tf

from tff_autoprune.errors import UserError
from tff_autoprune.export import native_messages, training_gradients, training_layers
from tff_autoprune.export.conversion import image_shape
from tff_autoprune.federated import optimizers
from tff_autoprune.federated import outputs as outputs_lib
from tff_autoprune.federated.settings import Settings
from tff_autoprune.federated.stateless import StatelessModel

_LEARNING_RATE = "learning_rate"


def weight_names(model: tf.keras.Model) -> tuple[str, ...]:
    """Returns what the signatures call a model's weights, in the order of `model.weights`.

    `conv_1/kernel:0` is `conv_1_kernel`; a name that is taken gets a number.
    """
    names: list[str] = []
    for variable in model.weights:
        base = re.sub(r"\W", "_", variable.name.rsplit(":", 1)[0])
        name, number = base, 2
        while name in names:
            name, number = f"{base}_{number}", number + 1
        names.append(name)
    return tuple(names)


def convert_client(
    model: tf.keras.Model,
    settings: Settings,
    *,
    batch_size: int,
    source_shape: Optional[Sequence[int]] = None,
    apply_pixel_options: Callable[[tf.Tensor], tf.Tensor] = tf.identity,
) -> bytes:
    """Makes the file that trains a model.

    Args:
      model: A built classifier; its weights are those that the file starts with.
      settings: Of the federated engine; the client's optimizer is taken from them.
      batch_size: Examples in a batch. A smaller one is filled up, and `mask` says so.
      source_shape: (height, width, channels) of the images that the file takes; by default those
        of the model.
      apply_pixel_options: From such images [n, h, w, c] to those that the model takes.

    Returns:
      The content of a `.tflite` file with these signatures:

      train: images float32 [batch_size, h, w, c], labels int32 [batch_size], mask float32
        [batch_size] (1 for an example, 0 for padding), learning_rate float32 [] and, if the model
        has dropout, seed int32 []. Returns loss float32 [], the mean over the examples, and correct
        float32 [], how many were classified rightly before the step.
      infer: images float32 [1, h, w, c]. Returns probabilities float32 [1, classes].
      get_weights: nothing. Returns the weights by `weight_names`.
      set_weights: the weights by `weight_names`; the optimizer starts anew. Returns parameters
        int32 [], how many were set.

    Raises:
      UserError: If the model does not have one image input and one output of classes, or a layer
        cannot be trained in TFLite's builtin operations; names it.
    """
    if batch_size < 1:
        raise UserError(f"client: expected a batch size of at least 1, found {batch_size}.")
    own_shape = image_shape(model)
    shape = tuple(source_shape or own_shape)
    client = _Client(model, settings, apply_pixel_options)
    module = client.module()
    signatures = client.signatures(batch_size, shape)
    # The gradients are in the graph already.
    options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
    with tempfile.TemporaryDirectory() as folder, native_messages.silenced():
        tf.saved_model.save(module, folder, signatures, options)
        converter = tf.lite.TFLiteConverter.from_saved_model(folder, list(signatures))
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
        converter.experimental_enable_resource_variables = True
        try:
            return bytes(converter.convert())
        except Exception as error:  # The converter raises classes that it does not publish.
            raise _explained(error, model, signatures["train"].graph) from error


class _Client:
    """What the file computes, with the weights and the optimizer's state as variables."""

    def __init__(
        self,
        model: tf.keras.Model,
        settings: Settings,
        apply_pixel_options: Callable[[tf.Tensor], tf.Tensor],
    ) -> None:
        self._model = model
        self._stateless = StatelessModel(model, generator=training_layers.SeededGenerator)
        self._apply_pixel_options = apply_pixel_options
        self._from_logits = _ending_of_classes(model) == outputs_lib.LOGITS
        variables = {
            id(weight): tf.Variable(weight.numpy(), name=name)
            for weight, name in zip(model.weights, weight_names(model))
        }
        self._weights = dict(zip(weight_names(model), variables.values()))
        self._trainable = [variables[id(weight)] for weight in model.trainable_weights]
        self._non_trainable = [variables[id(weight)] for weight in model.non_trainable_weights]
        self._optimizer = optimizers.build_client_optimizer(settings)
        specs = tuple(tf.TensorSpec(v.shape, v.dtype) for v in self._trainable)
        self._optimizer_start = self._optimizer.initialize(specs)
        self._hyperparameters = self._optimizer.get_hparams(self._optimizer_start)
        self._slots = tf.nest.map_structure(tf.Variable, self._slots_of(self._optimizer_start))

    def _slots_of(self, state: Any) -> dict[str, Any]:
        """Returns what of an optimizer's state changes from step to step."""
        return {key: state[key] for key in state if key not in self._hyperparameters}

    def module(self) -> tf.Module:
        """Returns what owns the variables."""
        module = tf.Module()
        module.variables_of_client = [*self._weights.values(), *tf.nest.flatten(self._slots)]
        return module

    def signatures(
        self, batch_size: int, source_shape: tuple[int, ...]
    ) -> dict[str, tf.types.experimental.ConcreteFunction]:
        """Traces the four functions."""
        batch = {
            "images": tf.TensorSpec([batch_size, *source_shape], tf.float32),
            "labels": tf.TensorSpec([batch_size], tf.int32),
            "mask": tf.TensorSpec([batch_size], tf.float32),
            _LEARNING_RATE: tf.TensorSpec([], tf.float32),
        }
        if self._stateless.has_randomness:
            batch["seed"] = tf.TensorSpec([], tf.int32)
        weights = {name: tf.TensorSpec(v.shape, v.dtype) for name, v in self._weights.items()}
        image = {"images": tf.TensorSpec([1, *source_shape], tf.float32)}
        return {
            name: tf.function(function, autograph=False).get_concrete_function(**inputs)
            for name, function, inputs in (
                ("train", self._train, batch),
                ("infer", self._infer, image),
                ("get_weights", self._get_weights, {}),
                ("set_weights", self._set_weights, weights),
            )
        }

    def _train(
        self,
        images: tf.Tensor,
        labels: tf.Tensor,
        mask: tf.Tensor,
        learning_rate: tf.Tensor,
        seed: Optional[tf.Tensor] = None,
    ) -> dict[str, tf.Tensor]:
        trainable = tuple(v.read_value() for v in self._trainable)
        non_trainable = tuple(v.read_value() for v in self._non_trainable)
        images = self._apply_pixel_options(images)
        in_tflite = training_layers.trainable_in_tflite(self._model, mask)
        with training_gradients.builtin_gradients(), in_tflite:
            outputs, non_trainable = self._stateless(
                trainable, non_trainable, images, training=True, seed=seed
            )
            of_examples = self._cross_entropy(outputs, labels)
            loss = tf.reduce_sum(of_examples * mask) / tf.maximum(tf.reduce_sum(mask), 1.0)
            gradients = tf.gradients(loss, trainable, unconnected_gradients="zero")
        correct = tf.equal(tf.argmax(outputs, -1, output_type=labels.dtype), labels)
        state = dict(tf.nest.map_structure(lambda v: v.read_value(), self._slots))
        for key, value in self._hyperparameters.items():
            state[key] = tf.constant(value, tf.float32)
        state[_LEARNING_RATE] = learning_rate
        state, trainable = self._optimizer.next(state, trainable, tuple(gradients))
        self._assign(self._trainable, trainable)
        self._assign(self._non_trainable, non_trainable)
        self._assign(tf.nest.flatten(self._slots), tf.nest.flatten(self._slots_of(state)))
        return {"loss": loss, "correct": tf.reduce_sum(tf.cast(correct, tf.float32) * mask)}

    def _cross_entropy(self, outputs: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        """Returns what `losses.cross_entropy` does, float32 [batch]."""
        logits = outputs
        if outputs.op.type == "Softmax":
            (logits,) = outputs.op.inputs  # As Keras does.
        elif not self._from_logits:
            smallest = tf.keras.backend.epsilon()
            logits = tf.math.log(tf.clip_by_value(outputs, smallest, 1 - smallest))
        chosen = tf.one_hot(labels, logits.shape[-1])
        return -tf.reduce_sum(chosen * tf.nn.log_softmax(logits), -1)

    def _infer(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        with training_layers.trainable_in_tflite(self._model, tf.ones([1])):
            outputs, _ = self._stateless(
                [v.read_value() for v in self._trainable],
                [v.read_value() for v in self._non_trainable],
                self._apply_pixel_options(images),
                training=False,
            )
        return {"probabilities": tf.nn.softmax(outputs) if self._from_logits else outputs}

    def _get_weights(self) -> dict[str, tf.Tensor]:
        return {name: variable.read_value() for name, variable in self._weights.items()}

    def _set_weights(self, **weights: tf.Tensor) -> dict[str, tf.Tensor]:
        for name, variable in self._weights.items():
            variable.assign(weights[name])
        starts = tf.nest.flatten(self._slots_of(self._optimizer_start))
        self._assign(tf.nest.flatten(self._slots), starts)
        parameters = sum(v.shape.num_elements() for v in self._weights.values())
        return {"parameters": tf.constant(parameters)}

    @staticmethod
    def _assign(variables: Sequence[tf.Variable], values: Sequence[Any]) -> None:
        for variable, value in zip(variables, values):
            variable.assign(value)


def _ending_of_classes(model: tf.keras.Model) -> str:
    """Returns whether a model puts out logits or probabilities of classes.

    Raises:
      UserError: If it puts out anything else.
    """
    shape = model.output_shape
    (ending,) = outputs_lib.endings(model)
    if len(shape) != 2 or shape[1] < 2 or ending == outputs_lib.SIGMOID:
        raise UserError(
            "client: only models of classes train on a phone so far: expected outputs [batch,"
            f" classes] that are logits or a softmax, found {list(shape)} that are {ending}."
        )
    return ending


def _explained(error: Exception, model: tf.keras.Model, train: tf.Graph) -> UserError:
    """Returns which layers the converter could not express, from its message."""
    missing = set(re.findall(r"\btf\.(\w+)", str(error)))
    graph = train.as_graph_def()
    inside = {
        function.signature.name: {node.op for node in function.node_def}
        for function in graph.library.function
    }
    layers: dict[str, str] = {}
    for node in graph.node:
        called = inside.get(node.attr["f"].func.name, set()) if "f" in node.attr else set()
        for kind in sorted(missing & ({node.op} | called)):
            layers.setdefault(training_gradients.layer_of(node.name), kind)
    if not layers:
        return UserError(f"client: TFLite cannot express {model.name!r}: {error}")
    named = ", ".join(f"{layer!r} ({kind})" for layer, kind in layers.items())
    return UserError(
        f"client: TFLite's builtin operations cannot train these layers of {model.name!r}: {named}."
    )

"""A model that computes as its int8 version will, in float32, so that training can get used to it.

TensorFlow Model Optimization decides where int8 rounds: it knows which operations TFLite fuses, so
which weights and outputs are quantized. Its own wrappers keep ranges in variables and assign them
while they run, which federated clients cannot: ranges of activations are instead measured once,
on the server, and are constants of the model; ranges of kernels follow from the kernels themselves.
The copy has exactly the weights of the original.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Optional

import numpy as np
import tensorflow as tf
import tensorflow_model_optimization as tfmot
from tensorflow_model_optimization.python.core.quantization.keras import (
    quantize_layer,
    quantize_wrapper,
)

from tff_autoprune.errors import UserError

_BITS = 8
_BATCH = 32
_KERNELS = ("kernel", "depthwise_kernel")


@tf.keras.utils.register_keras_serializable(package="tff_autoprune")
class FakeQuantized(tf.keras.layers.Wrapper):
    """Calls a layer with its kernel rounded to int8, and rounds its output.

    Gradients pass through the rounding unchanged (a straight-through estimator).
    """

    def __init__(
        self,
        layer: tf.keras.layers.Layer,
        kernel: Optional[str] = None,
        per_channel: bool = False,
        output_range: Optional[tuple[float, float]] = None,
        **kwargs: Any,
    ) -> None:
        """Wraps a layer.

        Args:
          layer: The layer.
          kernel: Name of the weight that is rounded; None rounds none.
          per_channel: Whether each of the kernel's last axis has a range of its own.
          output_range: Least and greatest value of the output; None leaves it as it is.
          **kwargs: Of a Keras layer.
        """
        super().__init__(layer, **kwargs)
        self.kernel_name = kernel
        self.per_channel = per_channel
        self.output_range = None if output_range is None else tuple(output_range)

    def call(self, inputs: Any, training: Optional[bool] = None) -> tf.Tensor:
        """Returns the layer's rounded output."""
        arguments = {"training": training} if self.layer._expects_training_arg else {}
        if self.kernel_name is None:
            outputs = self.layer(inputs, **arguments)
        else:
            attributes = vars(self.layer)
            kernel = attributes[self.kernel_name]
            # Not `setattr`: to Keras, an assigned tensor or variable is a new weight.
            attributes[self.kernel_name] = self._rounded(tf.convert_to_tensor(kernel))
            try:
                outputs = self.layer(inputs, **arguments)
            finally:
                attributes[self.kernel_name] = kernel
        if self.output_range is None:
            return outputs
        low, high = self.output_range
        return tf.quantization.fake_quant_with_min_max_args(outputs, low, high, _BITS)

    def _rounded(self, kernel: tf.Tensor) -> tf.Tensor:
        """Rounds symmetrically to -127..127, as TFLite does with weights."""
        axes = list(range(kernel.shape.rank - 1)) if self.per_channel else None
        # A kernel of zeros would have an empty range.
        top = tf.maximum(tf.reduce_max(tf.abs(tf.stop_gradient(kernel)), axes), 1e-8)
        quantize = (
            tf.quantization.fake_quant_with_min_max_vars_per_channel
            if self.per_channel
            else tf.quantization.fake_quant_with_min_max_vars
        )
        return quantize(kernel, -top, top, num_bits=_BITS, narrow_range=True)

    def get_config(self) -> dict[str, Any]:
        """Returns what makes the same layer again, without its weights."""
        return {
            **super().get_config(),
            "kernel": self.kernel_name,
            "per_channel": self.per_channel,
            "output_range": self.output_range,
        }


@tf.keras.utils.register_keras_serializable(package="tff_autoprune")
class FakeQuantizedInput(tf.keras.layers.Layer):
    """Rounds images in [0, 1] to the bytes that the int8 model takes."""

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Returns the rounded images."""
        return tf.quantization.fake_quant_with_min_max_args(inputs, 0.0, 1.0, _BITS)


def fake_quantized(model: tf.keras.Model, images: np.ndarray) -> tf.keras.Model:
    """Returns a copy of a model that rounds weights and activations as its int8 version does.

    Args:
      model: A built functional or sequential model of layers that
        `tfmot.quantization.keras.quantize_model` knows.
      images: float32 [n, h, w, c], as the model takes them, to measure activations on.

    Returns:
      A functional model with the weights of `model`, in the same order.

    Raises:
      UserError: If the model has a layer that tfmot cannot quantize.
    """
    try:
        annotated = tfmot.quantization.keras.quantize_model(tf.keras.models.clone_model(model))
    except (RuntimeError, ValueError) as error:
        raise UserError(
            f"export.qat_rounds: tfmot cannot quantize {_in_the_way(model)}: {error}"
        ) from error
    _check_same_layers(annotated, model)
    ranges = _output_ranges(annotated, model, images)

    def as_constant(layer: tf.keras.layers.Layer) -> tf.keras.layers.Layer:
        if isinstance(layer, quantize_layer.QuantizeLayer):
            return FakeQuantizedInput(name=layer.name)
        if isinstance(layer, quantize_wrapper.QuantizeWrapper):
            return _constant_wrapper(layer, model, ranges)
        return layer.__class__.from_config(layer.get_config())

    copy = tf.keras.models.clone_model(annotated, clone_function=as_constant)
    _copy_weights(model, copy)
    return copy


def _in_the_way(model: tf.keras.Model) -> str:
    """Returns which layer cannot be made again from its configuration, as tfmot does, in words."""
    for layer in model.layers:
        try:
            tf.keras.layers.deserialize(tf.keras.layers.serialize(layer))
        # A layer of the user's own can raise anything.
        except Exception:
            return f"layer {layer.name!r} ({type(layer).__name__})"
    return repr(model.name)


def _check_same_layers(annotated: tf.keras.Model, model: tf.keras.Model) -> None:
    """Checks that tfmot kept every layer that has weights.

    Raises:
      UserError: If it made others of one; names it.
    """
    kept = {
        layer.layer.name if isinstance(layer, quantize_wrapper.QuantizeWrapper) else layer.name
        for layer in annotated.layers
    }
    for layer in model.layers:
        if layer.weights and layer.name not in kept:
            raise UserError(
                f"export.qat_rounds: tfmot makes other layers of {layer.name!r}"
                f" ({type(layer).__name__}); a model with it cannot be fine-tuned for int8."
            )


def without_fake_quantization(copy: tf.keras.Model, model: tf.keras.Model) -> tf.keras.Model:
    """Returns a plain model with the weights of its fake-quantized copy.

    Args:
      copy: What `fake_quantized(model, ...)` returned, perhaps trained since.
      model: The original; it is not changed.
    """
    plain = tf.keras.models.clone_model(model)
    _copy_weights(copy, plain)
    return plain


def _constant_wrapper(
    layer: quantize_wrapper.QuantizeWrapper,
    model: tf.keras.Model,
    ranges: Mapping[str, tuple[float, float]],
) -> FakeQuantized:
    """Returns the counterpart of a tfmot wrapper.

    Args:
      layer: Wraps a copy of a layer of `model`, whose activation tfmot may have replaced.
      model: The original.
      ranges: Of the outputs that are rounded, by the original layer's name.
    """
    inner = layer.layer
    kernel, per_channel = None, False
    for weight, quantizer in layer.quantize_config.get_weights_and_quantizers(inner):
        kernel = next(name for name in _KERNELS if getattr(inner, name, None) is weight)
        per_channel = quantizer.per_axis
    original = model.get_layer(inner.name)
    return FakeQuantized(
        original.__class__.from_config(original.get_config()),
        kernel=kernel,
        per_channel=per_channel,
        output_range=ranges.get(inner.name),
        name=layer.name,
    )


def _output_ranges(
    annotated: tf.keras.Model, model: tf.keras.Model, images: np.ndarray
) -> dict[str, tuple[float, float]]:
    """Measures the outputs that tfmot would round, on the original.

    Args:
      annotated: What tfmot made of a copy of `model`.
      model: The original.
      images: float32 [n, h, w, c].

    Returns:
      Least and greatest value by the original layer's name. Zero is always within: padding needs
      it to be a number of the grid.

    Raises:
      UserError: If tfmot's model has layers that the original does not have.
    """
    names = []
    for layer in annotated.layers:
        if not isinstance(layer, quantize_wrapper.QuantizeWrapper):
            continue
        if layer.layer.name not in {original.name for original in model.layers}:
            raise _rearranged(model)
        weights = {weight.name.split("/")[-1].split(":")[0] for weight in layer.weights}
        if weights & {"post_activation_min", "output_min"}:
            names.append(layer.layer.name)
    outputs = [model.get_layer(name).get_output_at(0) for name in names]
    values = tf.keras.Model(model.inputs, outputs).predict(images, _BATCH, verbose=0)
    values = values if isinstance(values, list) else [values]
    return {
        name: (min(float(value.min()), 0.0), max(float(value.max()), 1e-6))
        for name, value in zip(names, values)
    }


def _copy_weights(source: tf.keras.Model, target: tf.keras.Model) -> None:
    """Copies weights between copies of a model that have them in the same order."""
    for kind in ("trainable_weights", "non_trainable_weights"):
        values, variables = getattr(source, kind), getattr(target, kind)
        if [v.shape for v in values] != [v.shape for v in variables]:
            raise _rearranged(source)
        for variable, value in zip(variables, values):
            variable.assign(value)


def _rearranged(model: tf.keras.Model) -> UserError:
    return UserError(
        f"export.qat_rounds: tfmot rearranges the layers of {model.name!r}; such a model cannot be"
        " fine-tuned for int8."
    )

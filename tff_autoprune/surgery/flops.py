"""Floating-point operations of one layer call, as TensorFlow's profiler counts them.

A multiply-add counts 2. The kernels that make up nearly all of a network's work have a formula
here; any other layer is traced once by itself and its operations are looked up in the same table of
statistics that `tf.compat.v1.profiler` uses. Batch size 1, inference. What the profiler does not
know (einsum, steps of a recurrent layer after the first) is counted here all the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from keras.src.layers.core.tf_op_layer import TFOpLambda
from tensorflow.python.framework import ops

from tff_autoprune.errors import UserError
from tff_autoprune.surgery.traced_tensor import TracedTensor

Shape = tuple[int, ...]

#: Operators that compute nothing; their arguments may be sizes that are only known at run time.
_FREE = frozenset({"ensure_shape", "identity", "reshape", "shape", "compat.v1.shape", "transpose"})

_layers = tf.keras.layers


class Sizes:
    """Shapes that a count is made for, which may differ from those that the layer has now.

    Args:
      inputs: Shapes of the inputs, batch 1.
      outputs: Shapes of the outputs, batch 1.
      weights: Shapes of weights that differ from the present, by id of the variable.
    """

    def __init__(
        self, inputs: Sequence[Shape], outputs: Sequence[Shape], weights: dict[int, Shape]
    ) -> None:
        self.inputs = list(inputs)
        self.outputs = list(outputs)
        self._weights = weights

    @property
    def output(self) -> int:
        """Number of elements of the first output."""
        return math.prod(self.outputs[0])

    def weight(self, variable: tf.Variable) -> Shape:
        """Returns the shape of a weight."""
        return self._weights.get(id(variable), tuple(variable.shape))


Formula = Callable[[Any, Sizes], float]
_FORMULAS: dict[type, Formula] = {}


def _formula(*classes: type) -> Callable[[Formula], Formula]:
    def decorate(formula: Formula) -> Formula:
        _FORMULAS.update(dict.fromkeys(classes, formula))
        return formula

    return decorate


def _rest(layer: Any, sizes: Sizes) -> float:
    """Returns the operations of bias and activation function."""
    bias = sizes.output if layer.use_bias else 0
    return bias + of_function(layer.activation, sizes.outputs[0])


@_formula(_layers.Conv1D, _layers.Conv2D, _layers.Conv3D)
def _convolution(layer: Any, sizes: Sizes) -> float:
    return 2 * sizes.output * math.prod(sizes.weight(layer.kernel)[:-1]) + _rest(layer, sizes)


@_formula(_layers.Conv1DTranspose, _layers.Conv2DTranspose, _layers.Conv3DTranspose)
def _transposed(layer: Any, sizes: Sizes) -> float:
    *window, _, inputs = sizes.weight(layer.kernel)
    each = 2 * math.prod(window) * inputs / math.prod(layer.strides)
    return sizes.output * each + _rest(layer, sizes)


@_formula(_layers.DepthwiseConv1D, _layers.DepthwiseConv2D)
def _depthwise(layer: Any, sizes: Sizes) -> float:
    window = sizes.weight(layer.depthwise_kernel)[:-2]
    return 2 * sizes.output * math.prod(window) + _rest(layer, sizes)


@_formula(_layers.SeparableConv1D, _layers.SeparableConv2D)
def _separable(layer: Any, sizes: Sizes) -> float:
    window = math.prod(sizes.weight(layer.depthwise_kernel)[:-2])
    *_, between, filters = sizes.weight(layer.pointwise_kernel)
    places = sizes.output // filters
    return 2 * places * between * (window + filters) + _rest(layer, sizes)


@_formula(_layers.Dense)
def _dense(layer: Any, sizes: Sizes) -> float:
    return 2 * sizes.output * sizes.weight(layer.kernel)[0] + _rest(layer, sizes)


@_formula(
    _layers.MaxPooling2D,
    _layers.AveragePooling2D,
)
def _pooling(layer: Any, sizes: Sizes) -> float:
    return sizes.output * math.prod(layer.pool_size)


@_formula(_layers.GlobalAveragePooling1D, _layers.GlobalAveragePooling2D)
def _global_average(layer: Any, sizes: Sizes) -> float:
    return math.prod(sizes.inputs[0])


@_formula(_layers.Add, _layers.Multiply)
def _merge(layer: Any, sizes: Sizes) -> float:
    return sizes.output * (len(sizes.inputs) - 1)


@_formula(_layers.Activation)
def _activation(layer: Any, sizes: Sizes) -> float:
    return of_function(layer.activation, sizes.outputs[0])


@_formula(
    _layers.Flatten,
    _layers.Reshape,
    _layers.Permute,
    _layers.Concatenate,
    _layers.Dropout,
    _layers.SpatialDropout1D,
    _layers.SpatialDropout2D,
    _layers.SpatialDropout3D,
    _layers.ZeroPadding2D,
    _layers.Cropping2D,
    _layers.InputLayer,
)
def _nothing(layer: Any, sizes: Sizes) -> float:
    return 0


@_formula(_layers.BatchNormalization)
def _batch_normalization(layer: Any, sizes: Sizes) -> float:
    # The fused kernel has no entry in the profiler's table; the scale and shift that the other
    # form computes are counted.
    if layer.fused:
        return 0
    channels = math.prod(sizes.weight(layer.moving_mean))
    per_channel = 5 + bool(layer.scale)
    return channels * per_channel + 2 * sizes.output


@_formula(_layers.EinsumDense)
def _einsum_dense(layer: Any, sizes: Sizes) -> float:
    _inputs, rest = layer.equation.split(",")
    kernel, output = rest.split("->")
    shape = sizes.weight(layer.kernel)
    summed = [size for letter, size in zip(kernel, shape) if letter not in output]
    bias = sizes.output if layer.bias is not None else 0
    each = 2 * math.prod(summed)
    return sizes.output * each + bias + of_function(layer.activation, sizes.outputs[0])


@_formula(_layers.MultiHeadAttention)
def _multi_head_attention(layer: Any, sizes: Sizes) -> float:
    inputs, heads, key_dim = sizes.weight(layer._query_dense.kernel)
    value_dim = sizes.weight(layer._value_dense.kernel)[2]
    queries = math.prod(sizes.inputs[0]) // inputs
    key_inputs = sizes.weight(layer._key_dense.kernel)[0]
    keys = math.prod(sizes.inputs[min(2, len(sizes.inputs) - 1)]) // key_inputs
    total = 0
    for dense, places in (
        (layer._query_dense, queries),
        (layer._key_dense, keys),
        (layer._value_dense, keys),
        (layer._output_dense, queries),
    ):
        kernel = sizes.weight(dense.kernel)
        total += 2 * places * math.prod(kernel)
        total += places * math.prod(sizes.weight(dense.bias)) if dense.bias is not None else 0
    scores = heads * queries * keys
    softmax = 5
    return total + scores * (2 * key_dim + softmax + 2 * value_dim) + queries * heads * key_dim


@_formula(_layers.LSTM, _layers.GRU, _layers.SimpleRNN)
def _recurrent(layer: Any, sizes: Sizes) -> float:
    # The profiler counts the body of the loop over time once; here every step counts. Besides the
    # products, each unit takes a few multiplications and additions to mix its gates.
    batch, steps, inputs = sizes.inputs[0]
    units, gates = sizes.weight(layer.cell.recurrent_kernel)
    bias = math.prod(sizes.weight(layer.cell.bias)) if layer.cell.use_bias else 0
    mixing = {4: 4, 3: 5, 1: 1}[gates // units] * units
    return batch * steps * (2 * (inputs + units) * gates + bias + mixing)


def of_call(
    layer: Any, args: Any, kwargs: Any, sizes: Sizes, now: Sizes, wraps: bool = False
) -> float:
    """Returns the operations of one call of a layer.

    Args:
      layer: The layer.
      args: Its arguments with `TracedTensor` in the place of tensors.
      kwargs: Likewise.
      sizes: What to count for.
      now: The present sizes. A layer without a formula is counted for these and scaled.
      wraps: Whether the layers inside are counted by themselves; only what the wrapper adds is
        counted then.

    Returns:
      Number of operations for a batch of one.
    """
    if wraps:
        return sizes.output if getattr(layer, "merge_mode", None) in ("sum", "mul", "ave") else 0
    formula = _FORMULAS.get(type(layer))
    if formula is not None:
        return formula(layer, sizes)
    if isinstance(layer, TFOpLambda) and layer.symbol in _FREE:
        return 0
    count = _traced(layer, args, kwargs, now)
    elements = sum(math.prod(shape) for shape in now.outputs)
    new_elements = sum(math.prod(shape) for shape in sizes.outputs)
    return count * new_elements / elements if elements else count


def of_function(function: Any, shape: Shape) -> float:
    """Returns the operations of an activation function on a tensor of the given shape."""
    if function is None or function in (tf.keras.activations.linear, tf.keras.activations.relu):
        return 0
    if function not in _per_element:
        # Few elements suffice: all that is counted is proportional to them.
        spec = tf.TensorSpec([1, 8], tf.float32)
        _per_element[function] = _count(tf.function(function).get_concrete_function(spec).graph) / 8
    return _per_element[function] * math.prod(shape)


_per_element: dict[Any, float] = {}


_by_kind: dict[Any, float] = {}


def _traced(layer: Any, args: Any, kwargs: Any, now: Sizes) -> float:
    """Returns the operations of a layer's graph, the same for layers of the same settings."""
    shapes = iter(now.inputs)
    flat = []
    for value in tf.nest.flatten((args, kwargs)):
        if isinstance(value, TracedTensor):
            shape = next(shapes)
            if value.values is None:
                value = tf.TensorSpec(shape, value.dtype)
            else:
                # Sizes that are known give the results their shapes; an unknown one is the batch's.
                known = [1 if number is None else number for number in value.values.flat]
                value = np.array(known, value.dtype).reshape(shape)
        flat.append(value)
    specs = [value for value in flat if isinstance(value, tf.TensorSpec)]
    try:
        settings = {name: value for name, value in layer.get_config().items() if name != "name"}
    except (NotImplementedError, TypeError, ValueError):
        settings = {"layer": id(layer)}
    constants = [np.shape(v) for v in flat if not isinstance(v, (tf.TensorSpec, str))]
    kind = (type(layer), repr(settings), repr(specs), repr(constants))
    if kind not in _by_kind:

        def call(*values: tf.Tensor) -> Any:
            remaining = iter(values)
            filled = [next(remaining) if isinstance(v, tf.TensorSpec) else v for v in flat]
            new_args, new_kwargs = tf.nest.pack_sequence_as((args, kwargs), filled)
            return layer(*new_args, **new_kwargs)

        try:
            _by_kind[kind] = _count(tf.function(call).get_concrete_function(*specs).graph)
        except (TypeError, ValueError, tf.errors.OpError) as error:
            raise UserError(
                f"The operations of the layer '{layer.name}' cannot be counted by itself: "
                f"{str(error).strip().splitlines()[-1]}"
            ) from error
    return _by_kind[kind]


def _count(graph: tf.Graph) -> float:
    """Returns the operations of a graph and of the functions that it calls, each once."""
    total = 0.0
    for operation in graph.get_operations():
        try:
            stats = ops.get_stats_for_node_def(graph, operation.node_def, "flops")
        except ValueError:  # A shape that is not known, or data format NCHW.
            continue
        total += stats.value or 0
        if operation.type == "Einsum":
            total += _einsum(operation)
        for name in ("f", "body", "then_branch"):
            attribute = operation.node_def.attr.get(name)
            if attribute is not None and attribute.func.name:
                total += _count(graph._get_function(attribute.func.name).graph)
    return total


def _einsum(operation: tf.Operation) -> float:
    """Returns the operations of an einsum, which the profiler does not know."""
    labels = operation.get_attr("equation").decode().split("->")[0].split(",")
    sizes: dict[str, int] = {}
    for own, tensor in zip(labels, operation.inputs):
        sizes.update(zip(own, tensor.shape))
    return 2 * math.prod(sizes.values())

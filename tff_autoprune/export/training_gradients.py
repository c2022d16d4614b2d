"""Gradients of TensorFlow's operations, written in operations that TFLite has.

TensorFlow differentiates a convolution, a pooling layer or a ReLU with operations of their own
(`Conv2DBackpropFilter`, `MaxPoolGrad`, `ReluGrad`), for which TFLite has no kernel. Here each of
them is written with ordinary operations. While a graph is built within `builtin_gradients`,
`tf.gradients` takes these; the forward pass stays as it is.

    with builtin_gradients():
        loss = ...
        gradients = tf.gradients(loss, weights)

All shapes must be static, the batch's included.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Optional

import tensorflow as tf

from tff_autoprune.errors import UserError

Gradient = Callable[..., object]

_PREFIX = "tff_autoprune.builtin."
_OVERRIDES: dict[str, str] = {}


@contextlib.contextmanager
def builtin_gradients() -> Iterator[None]:
    """Makes `tf.gradients` use the gradients of this module, for operations created within."""
    graph = tf.compat.v1.get_default_graph()
    with graph.gradient_override_map(_OVERRIDES):
        yield


def layer_of(operation_name: str) -> str:
    """Returns the name of the layer that made an operation, from the operation's name.

    Keras puts each layer in a name scope, and TensorFlow names gradients after their operation:
    `gradients/model/conv_1/Conv2D_grad/Reshape` belongs to `conv_1`.
    """
    scopes = operation_name.split("/")
    if scopes[0].startswith("gradients"):
        scopes = scopes[1:]
    scopes = [scope for scope in scopes if not scope.endswith("_grad")]
    return scopes[1] if len(scopes) > 1 else scopes[0]


def _overrides(*types: str) -> Callable[[Gradient], Gradient]:
    """Registers a gradient for some types of operations."""

    def register(function: Gradient) -> Gradient:
        for name in types:
            tf.RegisterGradient(_PREFIX + name)(function)
            _OVERRIDES[name] = _PREFIX + name
        return function

    return register


def _refuse(operation: tf.Operation, what: str) -> UserError:
    return UserError(
        f"client: the layer {layer_of(operation.name)!r} has {what}, which cannot be trained in"
        " TFLite's builtin operations."
    )


def _require_channels_last(operation: tf.Operation) -> None:
    if operation.get_attr("data_format") not in (b"NHWC", b"NDHWC"):
        raise _refuse(operation, "channels first")


def _where(condition: tf.Tensor, gradient: tf.Tensor) -> tf.Tensor:
    """Returns the gradient where the condition holds, else 0."""
    return gradient * tf.cast(condition, gradient.dtype)


# --- activations: all of them from the output, which is at hand


@_overrides("Relu")
def _relu(operation: tf.Operation, gradient: tf.Tensor) -> tf.Tensor:
    return _where(operation.outputs[0] > 0, gradient)


@_overrides("Relu6")
def _relu6(operation: tf.Operation, gradient: tf.Tensor) -> tf.Tensor:
    output = operation.outputs[0]
    return _where(tf.logical_and(output > 0, output < 6), gradient)


@_overrides("LeakyRelu")
def _leaky_relu(operation: tf.Operation, gradient: tf.Tensor) -> tf.Tensor:
    positive = tf.cast(operation.inputs[0] > 0, gradient.dtype)
    slope = operation.get_attr("alpha")
    return gradient * (positive * (1 - slope) + slope)


@_overrides("Elu")
def _elu(operation: tf.Operation, gradient: tf.Tensor) -> tf.Tensor:
    return gradient * (tf.minimum(operation.outputs[0], 0.0) + 1.0)


@_overrides("Sigmoid")
def _sigmoid(operation: tf.Operation, gradient: tf.Tensor) -> tf.Tensor:
    output = operation.outputs[0]
    return gradient * output * (1 - output)


@_overrides("Tanh")
def _tanh(operation: tf.Operation, gradient: tf.Tensor) -> tf.Tensor:
    return gradient * (1 - tf.square(operation.outputs[0]))


@_overrides("Sqrt")
def _sqrt(operation: tf.Operation, gradient: tf.Tensor) -> tf.Tensor:
    return gradient * 0.5 / operation.outputs[0]


@_overrides("Rsqrt")
def _rsqrt(operation: tf.Operation, gradient: tf.Tensor) -> tf.Tensor:
    output = operation.outputs[0]
    return gradient * (-0.5) * output * tf.square(output)


# --- sums and shapes


@_overrides("BiasAdd")
def _bias_add(operation: tf.Operation, gradient: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    _require_channels_last(operation)
    return gradient, tf.reduce_sum(gradient, list(range(gradient.shape.rank - 1)))


def _reduced_axes(operation: tf.Operation) -> list[int]:
    rank = operation.inputs[0].shape.rank
    axes = tf.get_static_value(operation.inputs[1])
    return [int(axis) % rank for axis in axes.reshape([-1])]


def _tiled(values: tf.Tensor, shape: Sequence[int]) -> tf.Tensor:
    """Broadcasts; the converter writes `broadcast_to` as a product with a constant of ones."""
    return tf.tile(values, [to // size for size, to in zip(values.shape, shape)])


@_overrides("Sum", "Mean")
def _sum_or_mean(operation: tf.Operation, gradient: tf.Tensor) -> tuple[tf.Tensor, None]:
    shape = operation.inputs[0].shape.as_list()
    axes = _reduced_axes(operation)
    kept = [1 if axis in axes else size for axis, size in enumerate(shape)]
    gradient = tf.reshape(gradient, kept)
    if operation.type == "Mean":
        count = 1
        for axis in axes:
            count *= shape[axis]
        gradient = gradient / count
    return _tiled(gradient, shape), None


@_overrides("ConcatV2")
def _concat(operation: tf.Operation, gradient: tf.Tensor) -> list[Optional[tf.Tensor]]:
    parts = operation.inputs[:-1]
    axis = int(tf.get_static_value(operation.inputs[-1]))
    return [*tf.split(gradient, [part.shape[axis] for part in parts], axis), None]


@_overrides("Pad", "PadV2", "MirrorPad")
def _pad(operation: tf.Operation, gradient: tf.Tensor) -> list[Optional[tf.Tensor]]:
    if operation.type == "MirrorPad":
        raise _refuse(operation, "mirrored padding")
    paddings = tf.get_static_value(operation.inputs[1])
    inner = tf.slice(gradient, paddings[:, 0], operation.inputs[0].shape)
    return [inner] + [None] * (len(operation.inputs) - 1)


# --- windows: what convolutions and pooling have in common


@dataclasses.dataclass(frozen=True)
class _Axis:
    """How a window moves along one axis.

    Attributes:
      size: Of the input.
      kernel: Of the window.
      stride: From one window to the next.
      dilation: From one entry of the window to the next.
      before: Zeros that stand before the input.
      outputs: Number of windows.
    """

    size: int
    kernel: int
    stride: int
    dilation: int
    before: int
    outputs: int

    @property
    def reach(self) -> int:
        """Positions that a window spans."""
        return (self.kernel - 1) * self.dilation + 1

    @property
    def read(self) -> int:
        """Positions that all windows together span, padding included."""
        return (self.outputs - 1) * self.stride + self.reach


def _axes(operation: tf.Operation, kernel: Sequence[int]) -> tuple[_Axis, _Axis]:
    """Returns the two axes of a convolution or pooling operation."""
    sizes = operation.inputs[0].shape[1:3]
    outputs = operation.outputs[0].shape[1:3]
    strides = operation.get_attr("strides")[1:3]
    attributes = operation.node_def.attr
    dilations = operation.get_attr("dilations")[1:3] if "dilations" in attributes else (1, 1)
    padding = operation.get_attr("padding")
    axes = []
    for axis in range(2):
        stride, dilation = strides[axis], dilations[axis]
        before = 0
        if padding == b"SAME":
            reach = (kernel[axis] - 1) * dilation + 1
            before = max((outputs[axis] - 1) * stride + reach - sizes[axis], 0) // 2
        elif padding == b"EXPLICIT":
            before = operation.get_attr("explicit_paddings")[2 * (axis + 1)]
        axes.append(_Axis(sizes[axis], kernel[axis], stride, dilation, before, outputs[axis]))
    return axes[0], axes[1]


def _as_read(values: tf.Tensor, axes: Sequence[_Axis], padding: float = 0.0) -> tf.Tensor:
    """Pads and crops [batch, h, w, c] to exactly the positions that windows read."""
    around = [(axis.before, max(axis.read - axis.before - axis.size, 0)) for axis in axes]
    if any(around[0] + around[1]):
        values = tf.pad(values, [(0, 0), *around, (0, 0)], constant_values=padding)
    return values[:, : axes[0].read, : axes[1].read]


def _as_input(values: tf.Tensor, axes: Sequence[_Axis]) -> tf.Tensor:
    """Undoes `_as_read`: drops what stands for padding, adds zeros for what no window reads."""
    values = values[
        :,
        axes[0].before : axes[0].before + axes[0].size,
        axes[1].before : axes[1].before + axes[1].size,
    ]
    missing = [(0, axis.size - values.shape[n + 1]) for n, axis in enumerate(axes)]
    if any(after for _, after in missing):
        values = tf.pad(values, [(0, 0), *missing, (0, 0)])
    return values


def _spread(values: tf.Tensor, strides: Sequence[int]) -> tf.Tensor:
    """Puts zeros between the positions of [batch, h, w, c], and `stride - 1` after the last."""
    batch, height, width, channels = values.shape
    if strides[1] > 1:
        values = tf.reshape(values, [batch * height, width, 1, channels])
        values = tf.pad(values, [(0, 0), (0, 0), (0, strides[1] - 1), (0, 0)])
        width *= strides[1]
    if strides[0] > 1:
        values = tf.reshape(values, [batch, height, 1, width * channels])
        values = tf.pad(values, [(0, 0), (0, 0), (0, strides[0] - 1), (0, 0)])
        height *= strides[0]
    return tf.reshape(values, [batch, height, width, channels])


def _spread_to_reads(gradient: tf.Tensor, axes: Sequence[_Axis]) -> tf.Tensor:
    """Returns output gradients at the stride of their windows, without zeros at the end."""
    spread = _spread(gradient, [axis.stride for axis in axes])
    ends = [(axis.outputs - 1) * axis.stride + 1 for axis in axes]
    return spread[:, : ends[0], : ends[1]]


def _window_entry(read: tf.Tensor, axes: Sequence[_Axis], row: int, column: int) -> tf.Tensor:
    """Returns what every window has at one of its entries: [batch, outputs, outputs, c]."""
    starts = (row * axes[0].dilation, column * axes[1].dilation)
    ends = [start + (axis.outputs - 1) * axis.stride + 1 for start, axis in zip(starts, axes)]
    return read[:, starts[0] : ends[0] : axes[0].stride, starts[1] : ends[1] : axes[1].stride]


# --- convolutions


@_overrides("Conv2D")
def _convolution(operation: tf.Operation, gradient: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    _require_channels_last(operation)
    inputs, kernel = operation.inputs
    if inputs.shape[3] != kernel.shape[2]:
        raise _refuse(operation, "a convolution in groups")
    axes = _axes(operation, kernel.shape[:2])
    return _input_gradient(operation, gradient, axes), _kernel_gradient(inputs, gradient, axes)


def _kernel_gradient(inputs: tf.Tensor, gradient: tf.Tensor, axes: Sequence[_Axis]) -> tf.Tensor:
    """Convolves inputs with output gradients; the batch takes the place of the channels."""
    read = _as_read(inputs, axes)
    if axes[0].kernel == axes[1].kernel == 1:
        # Each output reads one position: a product of matrices.
        pixels = _window_entry(read, axes, 0, 0)
        product = tf.matmul(
            tf.reshape(pixels, [-1, pixels.shape[3]]),
            tf.reshape(gradient, [-1, gradient.shape[3]]),
            transpose_a=True,
        )
        return product[tf.newaxis, tf.newaxis]
    convolved = tf.nn.conv2d(
        tf.transpose(read, [3, 1, 2, 0]),
        tf.transpose(gradient, [1, 2, 0, 3]),
        strides=[axis.dilation for axis in axes],
        dilations=[axis.stride for axis in axes],
        padding="VALID",
    )
    return tf.transpose(convolved, [1, 2, 0, 3])


def _input_gradient(
    operation: tf.Operation, gradient: tf.Tensor, axes: Sequence[_Axis]
) -> tf.Tensor:
    """Convolves padded output gradients with the flipped kernel, in and out channels swapped."""
    kernel = operation.inputs[1]
    if operation.get_attr("padding") != b"EXPLICIT" and all(axis.dilation == 1 for axis in axes):
        # TFLite's transposed convolution: three times as fast, but without dilation.
        return tf.raw_ops.Conv2DBackpropInput(
            input_sizes=operation.inputs[0].shape,
            filter=kernel,
            out_backprop=gradient,
            strides=operation.get_attr("strides"),
            padding=operation.get_attr("padding"),
        )
    spread = _spread_to_reads(gradient, axes)
    around = [(axis.reach - 1, axis.reach - 1) for axis in axes]
    read = tf.nn.conv2d(
        tf.pad(spread, [(0, 0), *around, (0, 0)]),
        tf.transpose(_flipped(kernel), [0, 1, 3, 2]),
        strides=1,
        dilations=[axis.dilation for axis in axes],
        padding="VALID",
    )
    return _as_input(read, axes)


def _flipped(kernel: tf.Tensor) -> tf.Tensor:
    """Turns a kernel by 180 degrees; TFLite 2.14 reverses one axis at a time."""
    for axis in (0, 1):
        if kernel.shape[axis] > 1:
            kernel = tf.reverse(kernel, [axis])
    return kernel


@_overrides("DepthwiseConv2dNative")
def _depthwise(operation: tf.Operation, gradient: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    _require_channels_last(operation)
    inputs, kernel = operation.inputs
    rows, columns, channels, multiplier = kernel.shape
    axes = _axes(operation, (rows, columns))
    read = _as_read(inputs, axes)
    if multiplier > 1:  # Channel c makes the outputs c * multiplier and on.
        batch, height, width, _ = read.shape
        read = tf.reshape(read, [batch * height * width, channels, 1])
        read = _tiled(read, [batch * height * width, channels, multiplier])
        read = tf.reshape(read, [batch, height, width, channels * multiplier])
    entries = [
        tf.reduce_sum(_window_entry(read, axes, row, column) * gradient, [0, 1, 2])
        for row in range(rows)
        for column in range(columns)
    ]
    kernel_gradient = tf.reshape(tf.stack(entries), kernel.shape)

    flipped = tf.reshape(_flipped(kernel), [rows, columns, channels * multiplier, 1])
    around = [(axis.reach - 1, axis.reach - 1) for axis in axes]
    by_output = tf.nn.depthwise_conv2d(
        tf.pad(_spread_to_reads(gradient, axes), [(0, 0), *around, (0, 0)]),
        flipped,
        strides=[1, 1, 1, 1],
        dilations=[axis.dilation for axis in axes],
        padding="VALID",
    )
    if multiplier > 1:
        batch, height, width, _ = by_output.shape
        by_output = tf.reshape(by_output, [batch * height * width, channels, multiplier])
        by_output = tf.reshape(tf.reduce_sum(by_output, 2), [batch, height, width, channels])
    return _as_input(by_output, axes), kernel_gradient


# --- pooling


@_overrides("MaxPool")
def _max_pool(operation: tf.Operation, gradient: tf.Tensor) -> tf.Tensor:
    """Gives the gradient to the first of a window's largest entries, as TensorFlow does."""
    _require_channels_last(operation)
    kernel = operation.get_attr("ksize")[1:3]
    axes = _axes(operation, kernel)
    output = operation.outputs[0]
    read = _as_read(operation.inputs[0], axes, padding=output.dtype.min)
    left: Optional[tf.Tensor] = None  # Where the largest entry is still to come; None: everywhere.
    shares = []
    for row in range(kernel[0]):
        for column in range(kernel[1]):
            entry = _window_entry(read, axes, row, column)
            chosen = tf.cast(tf.equal(entry, output), output.dtype)
            if left is not None:
                chosen = chosen * left
            left = 1 - chosen if left is None else left - chosen
            shares.append(gradient * chosen)
    return _windows_to_input(shares, axes)


@_overrides("AvgPool")
def _average_pool(operation: tf.Operation, gradient: tf.Tensor) -> tf.Tensor:
    """Divides by the number of the window's entries that are not padding."""
    _require_channels_last(operation)
    kernel = operation.get_attr("ksize")[1:3]
    axes = _axes(operation, kernel)
    counts = []
    for axis in axes:
        starts = [n * axis.stride - axis.before for n in range(axis.outputs)]
        counts.append([min(s + axis.kernel, axis.size) - max(s, 0) for s in starts])
    areas = tf.constant(counts[0])[:, tf.newaxis] * tf.constant(counts[1])
    share = gradient / tf.cast(areas, gradient.dtype)[tf.newaxis, :, :, tf.newaxis]
    return _windows_to_input([share] * (kernel[0] * kernel[1]), axes)


def _windows_to_input(entries: Sequence[tf.Tensor], axes: Sequence[_Axis]) -> tf.Tensor:
    """Adds up what each window gives to each of its entries, at their places in the input.

    Args:
      entries: For each entry of the window, row by row, [batch, outputs, outputs, c].
      axes: Of the windows, without dilation.

    Returns:
      The sums, [batch, h, w, c].
    """
    vertical, horizontal = axes
    total: Optional[tf.Tensor] = None
    # Entries less than a stride apart never meet: they are laid out side by side, then added.
    for top in range(0, vertical.kernel, vertical.stride):
        for left in range(0, horizontal.kernel, horizontal.stride):
            rows = []
            for row in range(top, top + vertical.stride):
                for column in range(left, left + horizontal.stride):
                    inside = row < vertical.kernel and column < horizontal.kernel
                    # Not `zeros_like`, which would become a constant as large as the activations.
                    rows.append(
                        entries[row * horizontal.kernel + column] if inside else entries[0] * 0.0
                    )
            laid = _interleave(rows, vertical.stride, horizontal.stride)
            ends = (
                max(vertical.read - top - laid.shape[1], 0),
                max(horizontal.read - left - laid.shape[2], 0),
            )
            laid = tf.pad(laid, [(0, 0), (top, ends[0]), (left, ends[1]), (0, 0)])
            laid = laid[:, : vertical.read, : horizontal.read]
            total = laid if total is None else total + laid
    return _as_input(total, axes)


def _interleave(entries: Sequence[tf.Tensor], rows: int, columns: int) -> tf.Tensor:
    """Lays rows * columns tensors [batch, h, w, c] out in blocks, each block one of each."""
    batch, height, width, channels = entries[0].shape
    if rows == columns == 1:
        return entries[0]
    if rows == columns:
        return tf.nn.depth_to_space(tf.concat(entries, 3), rows)
    lines = []
    for row in range(rows):
        line = tf.concat(entries[row * columns : (row + 1) * columns], 3)
        lines.append(tf.reshape(line, [batch * height, 1, width * columns * channels]))
    return tf.reshape(tf.concat(lines, 1), [batch, height * rows, width * columns, channels])

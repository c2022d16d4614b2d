"""Which layers can be factorized, how, and what the two layers are that take the place of one."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, Optional, Union

import numpy as np
import tensorflow as tf

from tff_autoprune.errors import UserError
from tff_autoprune.surgery import decomposition
from tff_autoprune.surgery.decomposition import KINDS, Split
from tff_autoprune.surgery.network import Network
from tff_autoprune.surgery.rebuild import configuration
from tff_autoprune.surgery.trace import NodeTrace, Trace
from tff_autoprune.surgery.traced_tensor import TracedTensor

_layers = tf.keras.layers
CONVOLUTIONS = (_layers.Conv1D, _layers.Conv2D, _layers.Conv3D)
TRANSPOSED = (_layers.Conv1DTranspose, _layers.Conv2DTranspose, _layers.Conv3DTranspose)
DEPTHWISE = {1: _layers.DepthwiseConv1D, 2: _layers.DepthwiseConv2D}
# Layers with a kernel that are no candidates, and why.
_NARROW = {
    _layers.DepthwiseConv1D: "filters each channel by itself already",
    _layers.DepthwiseConv2D: "filters each channel by itself already",
    _layers.SeparableConv1D: "is factorized already",
    _layers.SeparableConv2D: "is factorized already",
}


@dataclasses.dataclass(frozen=True)
class Factorization:
    """How to factorize one layer.

    Attributes:
      kind: "spatial" (k1 x 1, then 1 x k2), "channel" (k1 x k2, then 1x1; for transposed
        convolutions 1x1, then k1 x k2), "depthwise" (depthwise k1 x k2, then 1x1) or "dense".
      rank: Channels of the layer in between; for "depthwise" its filters for each input channel.
    """

    kind: str
    rank: int


@dataclasses.dataclass(frozen=True)
class Candidate:
    """One way to factorize one layer, or why there is none.

    Attributes:
      layer: Its name, after the names of the models around it.
      kind: One of `decomposition.KINDS`.
      max_rank: The rank at which nothing is lost; 0 if it cannot be factorized in this way.
      reason: Why not, or "".
      parameters: Weights of its kernel now.
      flops: Operations that its kernel takes now, over all its calls, as `cost` counts them.
      parameters_per_rank: Weights that each rank would take instead.
      flops_per_rank: Operations that each rank would take instead.
    """

    layer: str
    kind: str
    max_rank: int
    reason: str
    parameters: int = 0
    flops: float = 0
    parameters_per_rank: int = 0
    flops_per_rank: float = 0

    @property
    def paying_rank(self) -> int:
        """The largest rank with fewer parameters and operations than now; 0 if there is none."""
        if self.reason:
            return 0
        by_parameters = (self.parameters - 1) // self.parameters_per_rank
        by_flops = math.ceil(self.flops / self.flops_per_rank) - 1
        return min(by_parameters, by_flops, self.max_rank)


def candidates(model: Union[tf.keras.Model, Network]) -> list[Candidate]:
    """Tells which layers of a model can be factorized, and how.

    Args:
      model: A built functional or sequential model, or its network. Where its inputs have an
        unknown size, operations are counted for a size of 1.

    Returns:
      One for each layer with a kernel and each kind that is meant for it, in the order of the
      graph; those that are refused with the reason.

    Example:
    >>> from tff_autoprune import models, surgery
    >>> model = models.build("cnn", input_shape=(28, 28, 1), num_classes=62)
    >>> for candidate in surgery.candidates(model):
    ...     print(candidate.layer, candidate.kind, candidate.max_rank, candidate.paying_rank)
    conv_1 spatial 5 4
    conv_1 channel 25 14
    conv_1 depthwise 25 14
    conv_2 spatial 160 91
    conv_2 channel 64 59
    conv_2 depthwise 25 17
    logits dense 62 31
    """
    trace = Network.of(model).trace
    layers, refused = leaves(trace)
    calls: dict[int, list[NodeTrace]] = {}
    for node in trace.nodes:
        calls.setdefault(id(node.layer), []).append(node)
    found = []
    kinds = (*CONVOLUTIONS, *_NARROW, _layers.Dense)
    for path, layer in layers.items():
        for kind in kinds_for(layer) if isinstance(layer, kinds) else ():
            reason = refused.get(path) or refusal(layer, kind)
            if reason:
                found.append(Candidate(path, kind, 0, reason))
            else:
                found.append(_priced(path, layer, kind, calls[id(layer)]))
    return found


def _priced(
    path: str, layer: tf.keras.layers.Layer, kind: str, calls: Sequence[NodeTrace]
) -> Candidate:
    """Returns the candidate with what the layer costs now and what each rank would cost."""
    split = split_of(layer, kind)
    strides = getattr(layer, "strides", ())
    now = each = 0.0
    for node in calls:
        read, written = (places_of(layer, tensor) for tensor in (node.args[0], node.outputs[0]))
        now += kernel_flops(split, written, strides)
        each += flops_per_rank(split, read, written, strides)
    return Candidate(
        path,
        kind,
        split.max_rank,
        "",
        math.prod(layer.kernel.shape),
        now,
        split.parameters_per_rank,
        each,
    )


def places_of(layer: tf.keras.layers.Layer, tensor: TracedTensor) -> tuple[int, ...]:
    """Returns the sizes of a tensor without batch and channels."""
    sizes = [1 if size is None else size for size in tensor.shape]
    first = getattr(layer, "data_format", "channels_last") == "channels_first"
    return tuple(sizes[2:] if first else sizes[1:-1])


def kernel_flops(split: Split, written: Sequence[int], strides: Sequence[int]) -> float:
    """Returns the operations of the undivided kernel in one call.

    Args:
      split: The kernel.
      written: Sizes of the output without batch and channels.
      strides: Of the layer; () if it has none.
    """
    skipped = math.prod(strides) if split.transposed else 1
    each = 2 * math.prod(split.window) * split.inputs * split.outputs / skipped
    return math.prod(written) * each


def flops_per_rank(
    split: Split, read: Sequence[int], written: Sequence[int], strides: Sequence[int]
) -> float:
    """Returns the operations of each rank of the divided kernel in one call.

    Args:
      split: The kernel.
      read: Sizes of the input without batch and channels.
      written: Sizes of the output, likewise.
      strides: Of the undivided layer; () if it has none.
    """
    size, places = math.prod(split.window), math.prod(written)
    if split.kind == "spatial":
        head, rest = split.window[0], size // split.window[0]
        between = written[0] * math.prod(read[1:])
        strides = strides if split.transposed else (1,) * len(read)
        reading = between * head * split.inputs / strides[0]
        return 2 * (reading + places * rest * split.outputs / math.prod(strides[1:]))
    if split.transposed:
        writing = places * size * split.outputs / math.prod(strides)
        return 2 * (math.prod(read) * split.inputs + writing)
    if split.kind == "depthwise":
        return 2 * places * split.inputs * (size + split.outputs)
    return 2 * places * (size * split.inputs + split.outputs)


def refusal(layer: tf.keras.layers.Layer, kind: str) -> str:
    """Returns why a layer cannot be factorized in some way, "" if it can."""
    cls = type(layer)
    if cls in _NARROW:
        return _NARROW[cls]
    if cls not in (*CONVOLUTIONS, *TRANSPOSED, _layers.Dense):
        return f"is a {cls.__name__}, which is neither a convolution nor a dense layer of Keras"
    if not layer.built:
        return "has no weights yet"
    if layer.kernel_constraint is not None:
        return "has a kernel constraint, which says nothing about the factors"
    if (kind == "dense") != (cls is _layers.Dense):
        return f"is a {cls.__name__}"
    if cls is _layers.Dense:
        return ""
    if layer.groups > 1:
        return f"is a convolution of {layer.groups} groups, whose filters read few channels already"
    window = "x".join(str(size) for size in layer.kernel_size)
    if kind == "spatial":
        if layer.rank == 1:
            return "has one axis of space only"
        if layer.kernel_size[0] == 1 or math.prod(layer.kernel_size[1:]) == 1:
            return f"has a {window} kernel, in which there is nothing to separate"
    if kind == "depthwise":
        if cls in TRANSPOSED or layer.rank not in DEPTHWISE:
            return f"is a {cls.__name__}, of which Keras has no depthwise kind"
        if math.prod(layer.kernel_size) == 1:
            return f"has a {window} kernel: its depthwise part would only scale"
        if layer.padding == "causal":
            return "has causal padding, which Keras' depthwise convolutions do not know"
        if len(set(layer.strides)) > 1:
            return "has unequal strides, which TensorFlow's depthwise convolutions do not know"
    return ""


def max_rank(layer: tf.keras.layers.Layer, kind: str) -> int:
    """Returns the rank at which a factorization loses nothing.

    Args:
      layer: A layer that can be factorized in this way.
      kind: One of `decomposition.KINDS`.

    Raises:
      UserError: If it cannot.
    """
    return split_of(layer, kind).max_rank


def singular_values(
    layer: tf.keras.layers.Layer, kind: str, moments: Optional[np.ndarray] = None
) -> np.ndarray:
    """Returns what each rank of a factorization adds to the size of the layer's output.

    Args:
      layer: A layer that can be factorized in this way.
      kind: One of `decomposition.KINDS`.
      moments: Second moments of what the layer reads, float [channels, channels], of any scale;
        None to look at the weights alone.

    Returns:
      float64 [max_rank], descending. `lost_energy` of them predicts the error of each rank.

    Raises:
      UserError: If it cannot, or the moments do not fit.
    """
    split = split_of(layer, kind)
    moments = None if moments is None else np.asarray(moments, np.float64)
    check_told(layer.name, layer, moments, None)
    kernel = layer.kernel.numpy()
    check_finite(layer.name, kernel)
    return decomposition.singular_values(split, kernel, moments)


def split_of(layer: tf.keras.layers.Layer, kind: str) -> Split:
    """Returns how the kernel of a layer falls into two.

    Raises:
      UserError: If the layer cannot be factorized in this way.
    """
    reason = refusal(layer, kind)
    if reason:
        raise UserError(f"'{layer.name}' cannot be factorized as {kind!r}: it {reason}.")
    *window, inputs, outputs = (int(size) for size in layer.kernel.shape)
    transposed = type(layer) in TRANSPOSED
    if transposed:
        inputs, outputs = outputs, inputs
    return Split(kind, tuple(window), inputs, outputs, transposed)


def kinds_for(layer: tf.keras.layers.Layer) -> tuple[str, ...]:
    """Returns the kinds that are meant for a layer with a kernel."""
    if isinstance(layer, _layers.Dense):
        return ("dense",)
    return tuple(kind for kind in KINDS if kind != "dense")


def leaves(trace: Trace) -> tuple[dict[str, tf.keras.layers.Layer], dict[str, str]]:
    """Returns all layers without a graph of their own by path, and why some must stay."""
    layers: dict[str, tf.keras.layers.Layer] = {}
    refused: dict[str, str] = {}
    borrowed: dict[int, str] = {}
    seen: set[int] = set()
    for node in trace.nodes:
        for value in tf.nest.flatten((node.args, node.kwargs)):
            if isinstance(value, tf.Variable):
                borrowed[id(value)] = node.path
        if id(node.layer) not in seen:
            seen.add(id(node.layer))
            layers[node.path] = node.layer
            if node.inner:
                refused[node.path] = f"is inside the wrapper '{node.path.rpartition('/')[0]}'"
    owners: dict[int, list[str]] = {}
    for path, layer in layers.items():
        for weight in layer.weights:
            owners.setdefault(id(weight), []).append(path)
    for path, layer in layers.items():
        for weight in layer.weights:
            others = [owner for owner in owners[id(weight)] if owner != path]
            others += [borrowed[id(weight)]] if id(weight) in borrowed else []
            if others:
                refused.setdefault(path, f"has a weight that '{others[0]}' reads too")
    return layers, refused


def new_layers(
    layer: tf.keras.layers.Layer, wanted: Factorization, taken: set[str]
) -> list[tf.keras.layers.Layer]:
    """Returns the two layers that take the place of one, not built yet."""
    config = configuration(layer)
    config.pop("batch_input_shape", None)
    config["kernel_initializer"] = any_shape(layer, config)
    first, second = dict(config), dict(config)
    name, number = f"{layer.name}_rank", 2
    while name in taken:
        name, number = f"{layer.name}_rank_{number}", number + 1
    first.update(
        name=name,
        use_bias=False,
        activation="linear",
        bias_regularizer=None,
        bias_constraint=None,
        activity_regularizer=None,
    )
    rank = int(wanted.rank)
    if wanted.kind == "dense":
        first["units"] = rank
        return [_layers.Dense.from_config(first), _layers.Dense.from_config(second)]
    cls, ones = type(layer), (1,) * layer.rank
    first["filters"] = rank
    plain = {"kernel_size": ones, "strides": ones, "dilation_rate": ones, "padding": "valid"}
    if wanted.kind == "spatial":
        for setting in ("kernel_size", "strides", "dilation_rate", "output_padding"):
            if config.get(setting) is not None:
                neutral = 0 if setting == "output_padding" else 1
                head, *rest = config[setting]
                first[setting] = (head, *[neutral] * len(rest))
                second[setting] = (neutral, *rest)
        return [cls.from_config(first), cls.from_config(second)]
    if cls in TRANSPOSED:
        first.update(plain)
        first.pop("output_padding", None)
        plain_cls = CONVOLUTIONS[layer.rank - 1]
        return [plain_cls.from_config(first), cls.from_config(second)]
    second.update(plain)
    if wanted.kind == "channel":
        return [cls.from_config(first), cls.from_config(second)]
    for setting in ("filters", "groups"):
        first.pop(setting, None)
    for setting in ("initializer", "regularizer", "constraint"):
        first[f"depthwise_{setting}"] = first.pop(f"kernel_{setting}", None)
    first["depth_multiplier"] = rank
    return [DEPTHWISE[layer.rank].from_config(first), cls.from_config(second)]


def any_shape(layer: tf.keras.layers.Layer, config: Mapping[str, Any]) -> Any:
    """Returns the initializer of a layer's kernel, or Keras' usual one if it may fit that only."""
    kinds = tf.keras.initializers
    fits = (kinds.VarianceScaling, kinds.RandomNormal, kinds.RandomUniform, kinds.TruncatedNormal)
    known = isinstance(layer.kernel_initializer, fits)
    return config["kernel_initializer"] if known else "glorot_uniform"


def check_told(
    name: str,
    layer: tf.keras.layers.Layer,
    moments: Optional[np.ndarray],
    mean: Optional[np.ndarray],
) -> None:
    """Raises unless moments and mean fit what a layer reads."""
    axis = -1 if type(layer) in TRANSPOSED else -2
    inputs = int(layer.kernel.shape[axis])
    places = isinstance(layer, _layers.Dense)
    for what, told, rank in (("moments", moments, 2), ("means", mean, 1)):
        if told is None:
            continue
        size = len(told) if told.ndim else 0
        fits = size == inputs or (places and size and inputs % size == 0)
        if not fits or told.shape != (size,) * rank:
            expected = "x".join([str(inputs)] * rank)
            raise UserError(f"{what} of '{name}': expected {expected}, found shape {told.shape}.")
        if not np.isfinite(told).all():
            raise UserError(f"{what} of '{name}' are not finite.")
    both = moments is not None and mean is not None
    if both and (len(moments) != len(mean) or (np.diag(moments) < 0.999 * mean**2).any()):
        raise UserError(
            f"moments of '{name}' are smaller than the square of the means: both must be means "
            "over all places."
        )


def check_finite(name: str, kernel: np.ndarray) -> None:
    if not np.isfinite(kernel).all():
        raise UserError(f"The kernel of '{name}' is not finite: it cannot be factorized.")

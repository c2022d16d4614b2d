"""Multiplies factorized layers back where two thin layers cost more than one.

A pair is what `factorize` could have made: two layers, nothing but a sum over the rank in between,
and nobody else who reads the rank. A bias in between goes into the bias of the product, where the
window of the second layer always lies inside of what the first one wrote.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, Optional, Union

import numpy as np
import tensorflow as tf

from tff_autoprune.errors import UserError
from tff_autoprune.surgery import factor_layers
from tff_autoprune.surgery.decomposition import Split
from tff_autoprune.surgery.factor_layers import CONVOLUTIONS, DEPTHWISE, TRANSPOSED
from tff_autoprune.surgery.network import Network
from tff_autoprune.surgery.rebuild import Rebuilder, configuration
from tff_autoprune.surgery.rewrite import Rewrite, all_kept
from tff_autoprune.surgery.trace import NodeTrace, Trace
from tff_autoprune.surgery.traced_tensor import TracedTensor

_Dense = tf.keras.layers.Dense
_SHAPED = ("kernel_size", "strides", "dilation_rate", "padding", "output_padding", "data_format")


@dataclasses.dataclass(frozen=True)
class Pair:
    """Two layers that can be multiplied.

    Attributes:
      name: Name of the second layer, which the product keeps.
      first: The layer that reads.
      second: The layer that writes.
      split: How the kernel of the product falls into theirs.
      settings: Configuration of the product.
      pays: Whether the product has fewer parameters or operations, and more of neither.
    """

    name: str
    first: tf.keras.layers.Layer
    second: tf.keras.layers.Layer
    split: Split
    settings: Mapping[str, Any]
    pays: bool


class MergePlan(Rewrite):
    """A checked multiplication of layers, not yet carried out.

    Attributes:
      model: The model that it is about; not changed.
      pairs: The layers.
    """

    def __init__(self, trace: Trace, pairs: Sequence[Pair]) -> None:
        super().__init__(trace)
        self.pairs = list(pairs)

    def apply(self, weights: Optional[Sequence[np.ndarray]] = None) -> tf.keras.Model:
        """Builds the model with the products, see `Rewrite.apply`."""
        values = self._values(weights)
        products = {pair.name: type(pair.second).from_config(pair.settings) for pair in self.pairs}
        replacements: dict[int, list[tf.keras.layers.Layer]] = {}
        for pair in self.pairs:
            replacements[id(pair.first)] = []
            replacements[id(pair.second)] = [products[pair.name]]
        rebuilder = Rebuilder(self._trace, all_kept, replacements=replacements)
        new = rebuilder.build()
        biases = {}
        for pair in self.pairs:
            product, split = products[pair.name], pair.split
            reading = split.reading(self._value(pair.first.weights[0], values))
            writing = split.writing(self._value(pair.second.kernel, values))
            product.kernel.assign(split.product(reading, writing))
            if product.use_bias and not pair.first.use_bias:
                biases[id(product.bias)] = self._position[id(pair.second.bias)]
            elif product.use_bias:
                passed = self._value(pair.first.bias, values) @ _summed(writing, split)
                bias = self._value(pair.second.bias, values) if pair.second.use_bias else 0.0
                product.bias.assign(bias + passed)
        self._inherit(rebuilder, new, values, biases)
        return new

    def _value(self, weight: tf.Variable, values: Sequence[np.ndarray]) -> np.ndarray:
        return np.asarray(values[self._position[id(weight)]], np.float64)


def merge(
    model: Union[tf.keras.Model, Network], layers: Optional[Sequence[str]] = None
) -> tf.keras.Model:
    """Multiplies factorized layers back.

    Args:
      model: A built functional or sequential model, or its network; not changed.
      layers: See `plan_merge`.

    Returns:
      The model with the products, which have the names of the second layers.

    Raises:
      UserError: See `plan_merge`.

    Example:
    >>> from tff_autoprune import models, surgery
    >>> model = models.build("cnn", input_shape=(28, 28, 1), num_classes=62)
    >>> wide = surgery.factorize(model, {"conv_2": surgery.Factorization("spatial", 120)})
    >>> wide.count_params(), surgery.merge(wide).count_params()
    (62526, 56126)
    """
    return plan_merge(model, layers).apply()


def plan_merge(
    model: Union[tf.keras.Model, Network], layers: Optional[Sequence[str]] = None
) -> MergePlan:
    """Checks which factorized layers are multiplied back, without building anything.

    Args:
      model: A built functional or sequential model of known image size, or its network.
      layers: Names of the second layers of pairs; None for all pairs whose product has fewer
        parameters or operations, and more of neither.

    Returns:
      The checked multiplication.

    Raises:
      UserError: If a layer is not the second one of a pair.
    """
    trace = Network.of(model).trace
    _, kept = factor_layers.leaves(trace)
    found = {
        seconds[0].path: (
            kept.get(firsts[0].path) or kept.get(seconds[0].path) or _pair(firsts, seconds)
        )
        for firsts, seconds in _neighbours(trace)
    }
    paying = [name for name, pair in found.items() if isinstance(pair, Pair) and pair.pays]
    chosen: list[Pair] = []
    for name in dict.fromkeys(paying if layers is None else layers):
        pair = found.get(name, "does not read one other layer alone")
        if isinstance(pair, Pair) and any(p.second is pair.first for p in chosen):
            if layers is None:
                continue
            pair = f"reads '{pair.first.name}', which is merged itself"
        if isinstance(pair, str):
            raise UserError(f"'{name}' cannot be merged with what it reads: it {pair}.")
        chosen.append(pair)
    return MergePlan(trace, chosen)


def _neighbours(trace: Trace) -> list[tuple[list[NodeTrace], list[NodeTrace]]]:
    """Returns all calls of layers of which one reads the other, and nothing else has to do with it.

    Returns:
      Pairs of lists of the same length: the calls of the first and of the second layer.
    """
    makers: dict[int, NodeTrace] = {}
    readers: dict[int, list[NodeTrace]] = {}
    calls: dict[int, list[NodeTrace]] = {}
    for node in trace.nodes:
        calls.setdefault(id(node.layer), []).append(node)
        makers.update((id(tensor), node) for tensor in node.outputs)
        for value in tf.nest.flatten((node.args, node.kwargs)):
            if isinstance(value, TracedTensor):
                readers.setdefault(id(value), []).append(node)
    results = {id(tensor) for tensor in trace.outputs}
    found = []
    for some in calls.values():
        firsts = [makers.get(id(node.args[0])) for node in some if _one_input(node)]
        if len(firsts) < len(some) or None in firsts or any(node.inner for node in some):
            continue
        first = firsts[0].layer
        outputs = [node.outputs[0] for node in calls[id(first)]]
        alone = all(
            len(readers.get(id(x), [])) == 1 and readers[id(x)][0].layer is some[0].layer
            for x in outputs
        )
        same = all(node.layer is first and not node.inner for node in firsts)
        here = firsts[0].path.rpartition("/")[0] == some[0].path.rpartition("/")[0]
        if alone and same and here and not any(id(x) in results for x in outputs):
            found.append((firsts, some))
    return found


def _one_input(node: NodeTrace) -> bool:
    return len(node.args) == 1 and isinstance(node.args[0], TracedTensor)


def _pair(firsts: Sequence[NodeTrace], seconds: Sequence[NodeTrace]) -> Union[Pair, str]:
    """Returns a pair, or why two neighbours are none."""
    first, second = firsts[0].layer, seconds[0].layer
    why = _not_linear(first, second)
    if why:
        return why
    kind = _kind(first, second)
    if kind is None:
        return f"and '{first.name}' together are not what a factorization makes"
    transposed = type(second) in TRANSPOSED
    settings = _product_settings(kind, first, second)
    if first.use_bias and not _bias_passes(kind, first, transposed):
        return f"would need the bias of '{first.name}', which differs at the border"
    kernels = first.weights[0].shape, second.kernel.shape
    inputs = kernels[0][-1 if type(first) in TRANSPOSED else -2]
    split = Split(
        kind,
        tuple(settings.get("kernel_size", ())),
        int(inputs),
        int(kernels[1][-2 if transposed else -1]),
        transposed,
    )
    rank = (
        first.depth_multiplier if kind == "depthwise" else int(kernels[1][-1 if transposed else -2])
    )
    now, then = [0.0, 0.0], [0.0, 0.0]
    strides = settings.get("strides", ())
    for one, other in zip(firsts, seconds):
        read = factor_layers.places_of(first, one.args[0])
        written = factor_layers.places_of(second, other.outputs[0])
        now[1] += rank * factor_layers.flops_per_rank(split, read, written, strides)
        then[1] += factor_layers.kernel_flops(split, written, strides)
        if first.use_bias:
            now[1] += math.prod(factor_layers.places_of(first, one.outputs[0])) * rank
    now[0] = rank * split.parameters_per_rank + sum(math.prod(w.shape) for w in first.weights[1:])
    then[0] = math.prod(split.window) * split.inputs * split.outputs
    pays = all(a <= b for a, b in zip(then, now)) and then != now
    return Pair(seconds[0].path, first, second, split, settings, pays)


def _not_linear(first: Any, second: Any) -> str:
    known = (*CONVOLUTIONS, *TRANSPOSED, _Dense)
    if type(second) not in known or type(first) not in (*known, *DEPTHWISE.values()):
        return f"or '{first.name}' is neither a convolution nor a dense layer of Keras"
    if first.activation is not tf.keras.activations.linear or first.activity_regularizer:
        return f"reads '{first.name}', which has an activation function or regularizes its output"
    constraints = [getattr(first, f"{kind}_constraint", None) for kind in ("kernel", "depthwise")]
    if any(c is not None for c in (*constraints, second.kernel_constraint)):
        return "has a kernel constraint, or what it reads has"
    if first.trainable != second.trainable or first.dtype_policy.name != second.dtype_policy.name:
        return f"and '{first.name}' differ in dtype or in whether they are trained"
    return ""


def _kind(first: Any, second: Any) -> Optional[str]:
    """Returns the kind of factorization that makes two such layers, None if there is none."""
    if type(second) is _Dense or type(first) is _Dense:
        return "dense" if type(first) is type(second) else None
    if first.rank != second.rank or first.data_format != second.data_format:
        return None
    is_depthwise = type(first) in DEPTHWISE.values()
    if second.groups > 1 or (first.groups > 1 and not is_depthwise):
        return None
    ones = (1,) * first.rank
    if type(second) in CONVOLUTIONS and _is_pointwise(second):
        return "depthwise" if is_depthwise else "channel" if type(first) in CONVOLUTIONS else None
    if type(second) in TRANSPOSED and type(first) in CONVOLUTIONS and _is_pointwise(first):
        return "channel"
    if type(first) is not type(second) or first.padding != second.padding or first.rank == 1:
        return None
    if first.padding not in ("valid", "same"):
        return None
    separate = all(
        getattr(first, setting)[1:] == ones[1:] and getattr(second, setting)[0] == 1
        for setting in ("kernel_size", "strides", "dilation_rate")
    )
    # An explicit padding of the output is not put together again from two.
    padded = any(getattr(layer, "output_padding", None) is not None for layer in (first, second))
    both = max(_joined("strides", first, second)) > 1
    both = both and max(_joined("dilation_rate", first, second)) > 1
    return "spatial" if separate and not padded and not both else None


def _is_pointwise(layer: Any) -> bool:
    return max(*layer.kernel_size, *layer.strides) == 1


def _joined(setting: str, first: Any, second: Any) -> tuple[int, ...]:
    return (getattr(first, setting)[0], *getattr(second, setting)[1:])


def _product_settings(kind: str, first: Any, second: Any) -> dict[str, Any]:
    settings = configuration(second)
    settings["kernel_initializer"] = factor_layers.any_shape(second, settings)
    settings["use_bias"] = first.use_bias or second.use_bias
    if kind == "spatial":
        for setting in ("kernel_size", "strides", "dilation_rate"):
            settings[setting] = _joined(setting, first, second)
    elif kind != "dense" and type(second) not in TRANSPOSED:
        old = first.get_config()
        settings.update((key, old[key]) for key in _SHAPED if key in old and key in settings)
    return settings


def _bias_passes(kind: str, first: Any, transposed: bool) -> bool:
    """Whether every output reads the first layer's bias equally often."""
    if transposed:
        return False
    return kind != "spatial" or first.padding == "valid"


def _summed(writing: np.ndarray, split: Split) -> np.ndarray:
    """Returns how the outputs read a constant of each rank, [ranks, outputs]."""
    return writing.reshape(len(writing), -1, split.outputs).sum(axis=1)

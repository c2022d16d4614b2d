"""What a model costs: parameters, operations, bytes, activation memory; and what a channel costs.

    cost.of(model)                          totals, and a table with one row for each layer
    cost.per_channel(model, groups, what)   what removing one channel of each group saves

Operations are counted as TensorFlow's profiler does: a multiply-add is 2.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, Optional

import numpy as np
import pandas as pd
import tensorflow as tf

from tff_autoprune.errors import UserError
from tff_autoprune.surgery import flops
from tff_autoprune.surgery.groups import FilterGroup
from tff_autoprune.surgery.trace import NodeTrace, Trace
from tff_autoprune.surgery.traced_tensor import TracedTensor, compress, varying


@dataclasses.dataclass(frozen=True)
class Cost:
    """What one model costs at inference, batch size 1.

    Attributes:
      parameters: Number of weights, trained or not, as `model.count_params()`.
      flops: Floating-point operations.
      bytes: Size of all weights in their own types.
      activation_bytes: Largest sum of the sizes of tensors that exist at the same time when the
        layers run in order and each writes a tensor of its own; the input image included.
      table: One row for each layer: layer, type, calls, parameters, flops, bytes,
        activation_bytes (of the layer's outputs).
    """

    parameters: int
    flops: int
    bytes: int
    activation_bytes: int
    table: pd.DataFrame = dataclasses.field(repr=False, compare=False)


def of(model: tf.keras.Model) -> Cost:
    """Counts what a model costs.

    Args:
      model: A built functional or sequential model with known image size.

    Returns:
      Totals and a table by layer.

    Raises:
      UserError: If the graph cannot be followed or the size of an input is unknown.

    Example:
    >>> from tff_autoprune import models
    >>> from tff_autoprune.surgery import cost
    >>> counted = cost.of(models.build("cnn", input_shape=(28, 28, 1), num_classes=62))
    >>> counted.parameters, counted.flops
    (56126, 7529278)
    """
    _check_sizes(model)
    trace = Trace(model, warn=False)
    rows: dict[str, dict[str, Any]] = {}
    counted: set[int] = set()
    for node in trace.nodes:
        sizes = _sizes(node)
        row = rows.setdefault(
            node.path,
            {
                "layer": node.path,
                "type": type(node.layer).__name__,
                "calls": 0,
                "parameters": 0,
                "flops": 0,
                "bytes": 0,
                "activation_bytes": 0,
            },
        )
        row["calls"] += 1
        if not node.inner:
            row["flops"] += round(flops.of_call(node.layer, node.args, node.kwargs, sizes, sizes))
            row["activation_bytes"] += sum(_bytes(tensor) for tensor in node.outputs)
        for weight in node.layer.weights:
            if id(weight) not in counted:
                counted.add(id(weight))
                row["parameters"] += math.prod(weight.shape)
                row["bytes"] += math.prod(weight.shape) * weight.dtype.size
    table = pd.DataFrame(list(rows.values()))
    return Cost(
        parameters=int(table["parameters"].sum()),
        flops=int(table["flops"].sum()),
        bytes=int(table["bytes"].sum()),
        activation_bytes=_peak(trace),
        table=table,
    )


def per_channel(
    model: tf.keras.Model,
    groups: Sequence[FilterGroup],
    what: str = "flops",
    latency: Optional[Mapping[str, float]] = None,
) -> dict[str, float]:
    """Returns what removing one channel of each group saves.

    Args:
      model: The model that the groups were found in.
      groups: Groups; fixed ones save nothing.
      what: "flops", "parameters", "bytes", "activation_bytes" (sum over all layers' outputs) or
        "latency".
      latency: For "latency": measured time of each layer by its name, in any unit; each layer is
        taken to be faster by the share of its operations that goes.

    Returns:
      Saving by the group's name, in the unit of `what`.

    Raises:
      UserError: If `what` is unknown or `latency` is missing.
    """
    allowed = ("flops", "parameters", "bytes", "activation_bytes", "latency")
    if what not in allowed:
        raise UserError(f"what must be one of {', '.join(allowed)}, found {what!r}.")
    if what == "latency" and latency is None:
        raise UserError("what='latency' needs `latency`, measured times by layer name.")
    _check_sizes(model)
    trace = Trace(model, warn=False)
    savings = _Savings(trace, groups)
    if what in ("parameters", "bytes"):
        return savings.weights(in_bytes=what == "bytes")
    if what == "activation_bytes":
        return savings.activations()
    return savings.operations(latency if what == "latency" else None)


class _Savings:
    """Shapes with and without the first channel of each group."""

    def __init__(self, trace: Trace, groups: Sequence[FilterGroup]) -> None:
        self._trace = trace
        self._groups = list(groups)
        self._probe = np.full(len(trace.channels) + 1, -1)
        for index, group in enumerate(groups):
            if group.prunable:
                self._probe[group.roots[0]] = index
        self._weights: dict[int, dict[int, list[int]]] = {}
        for tie in trace.ties:
            if tie.weight is not None:
                for index, count in self._counts(tie.ids).items():
                    shapes = self._weights.setdefault(id(tie.weight), {})
                    shape = shapes.setdefault(index, list(tie.weight.shape))
                    shape[tie.axis] -= count

    def _counts(self, ids: np.ndarray) -> dict[int, int]:
        """Returns how many positions the first channel of each group has."""
        found = self._probe[self._trace.channels.find(ids)]
        indices, counts = np.unique(found[found >= 0], return_counts=True)
        return dict(zip(indices.tolist(), counts.tolist()))

    def _shapes(self, tensor: TracedTensor) -> dict[int, list[int]]:
        """Returns the shapes that a tensor has without the first channel, by group."""
        shapes: dict[int, list[int]] = {}
        for factor in tensor.factors:
            factor = compress(self._trace.channels, factor)
            if factor is not None and len(varying(factor)) == 1:
                axis = varying(factor)[0]
                for index, count in self._counts(factor).items():
                    shapes.setdefault(index, _static(tensor))[axis] -= count
        return shapes

    def weights(self, in_bytes: bool) -> dict[str, float]:
        """Returns saved parameters or bytes."""
        saved = np.zeros(len(self._groups))
        for weight in self._trace.model.weights:
            for index, shape in self._weights.get(id(weight), {}).items():
                difference = math.prod(weight.shape) - math.prod(shape)
                saved[index] += difference * (weight.dtype.size if in_bytes else 1)
        return self._by_name(saved)

    def activations(self) -> dict[str, float]:
        """Returns saved bytes of layer outputs."""
        saved = np.zeros(len(self._groups))
        for node in self._trace.nodes:
            for tensor in () if node.inner else node.outputs:
                for index, shape in self._shapes(tensor).items():
                    size = tf.as_dtype(tensor.dtype).size
                    saved[index] += (math.prod(_static(tensor)) - math.prod(shape)) * size
        return self._by_name(saved)

    def operations(self, latency: Optional[Mapping[str, float]]) -> dict[str, float]:
        """Returns saved operations, or saved time given the time of each layer."""
        saved = np.zeros(len(self._groups))
        for node in self._trace.nodes:
            if node.inner:
                continue
            inputs = [self._shapes(tensor) for tensor in _tensors(node)]
            outputs = [self._shapes(tensor) for tensor in node.outputs]
            weights = {id(w): self._weights.get(id(w), {}) for w in node.layer.weights}
            touched = set().union(*inputs, *outputs, *weights.values())
            if not touched:
                continue
            now = _sizes(node)
            before = flops.of_call(node.layer, node.args, node.kwargs, now, now)
            for index in touched:
                sizes = flops.Sizes(
                    [tuple(new.get(index, old)) for new, old in zip(inputs, now.inputs)],
                    [tuple(new.get(index, old)) for new, old in zip(outputs, now.outputs)],
                    {key: tuple(some[index]) for key, some in weights.items() if index in some},
                )
                after = flops.of_call(node.layer, node.args, node.kwargs, sizes, now)
                if latency is None:
                    saved[index] += before - after
                elif before:
                    saved[index] += latency.get(node.path, 0.0) * (before - after) / before
        return self._by_name(saved)

    def _by_name(self, saved: np.ndarray) -> dict[str, float]:
        return {group.name: float(value) for group, value in zip(self._groups, saved)}


def _check_sizes(model: tf.keras.Model) -> None:
    for tensor in model.inputs:
        if None in tuple(tensor.shape)[1:]:
            raise UserError(
                f"The input '{tensor.name}' of '{model.name}' has shape {tuple(tensor.shape)}: "
                "give it a fixed size to count its cost."
            )


def _tensors(node: NodeTrace) -> list[TracedTensor]:
    flat = tf.nest.flatten((node.args, node.kwargs))
    return [value for value in flat if isinstance(value, TracedTensor)]


def _static(tensor: TracedTensor) -> list[int]:
    """Returns the shape with batch size 1."""
    return [1 if size is None else size for size in tensor.shape]


def _sizes(node: NodeTrace) -> flops.Sizes:
    inputs = [tuple(_static(tensor)) for tensor in _tensors(node)]
    return flops.Sizes(inputs, [tuple(_static(tensor)) for tensor in node.outputs], {})


def _bytes(tensor: TracedTensor) -> int:
    return math.prod(_static(tensor)) * tf.as_dtype(tensor.dtype).size


def _peak(trace: Trace) -> int:
    """Returns the largest sum of live tensors over the run of the model."""
    nodes = [node for node in trace.nodes if not node.inner]
    last_use = {id(tensor): at for at, node in enumerate(nodes) for tensor in _tensors(node)}
    last_use.update((id(tensor), len(nodes)) for tensor in trace.outputs)
    alive = {id(tensor): _bytes(tensor) for tensor in trace.inputs}
    peak = sum(alive.values())
    for at, node in enumerate(nodes):
        alive.update((id(tensor), _bytes(tensor)) for tensor in node.outputs)
        peak = max(peak, sum(alive.values()))
        alive = {key: size for key, size in alive.items() if last_use.get(key, -1) > at}
    return peak

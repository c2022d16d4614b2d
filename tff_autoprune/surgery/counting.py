"""Counts parameters, operations, bytes and activation memory of a traced model.

Operations are counted as TensorFlow's profiler does: a multiply-add is 2.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
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


def of_trace(trace: Trace) -> Cost:
    """Counts what a model costs; see `cost.of`."""
    _check_sizes(trace.model)
    rows: dict[str, dict[str, Any]] = {}
    counted: set[int] = set()
    for node in trace.nodes:
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
            row["flops"] += round(_operations(node, _sizes))
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


def savings(
    trace: Trace,
    groups: Sequence[FilterGroup],
    what: str = "flops",
    latency: Optional[Mapping[str, float]] = None,
) -> dict[str, float]:
    """Returns what removing one channel of each group saves; see `cost.per_channel`."""
    allowed = ("flops", "parameters", "bytes", "activation_bytes", "latency")
    if what not in allowed:
        raise UserError(f"what must be one of {', '.join(allowed)}, found {what!r}.")
    if what == "latency" and latency is None:
        raise UserError("what='latency' needs `latency`, measured times by layer name.")
    _check_sizes(trace.model)
    saved = _Savings(trace, groups)
    if what in ("parameters", "bytes"):
        return saved.weights(in_bytes=what == "bytes")
    if what == "activation_bytes":
        return saved.activations()
    return saved.operations(latency if what == "latency" else None)


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
        for tie in trace.record.ties:
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

    def _shapes(self, tensor: TracedTensor, batch: int = 1) -> dict[int, list[int]]:
        """Returns the shapes that a tensor has without the first channel, by group."""
        shapes: dict[int, list[int]] = {}
        for factor in tensor.factors:
            factor = compress(self._trace.channels, factor)
            if factor is not None and len(varying(factor)) == 1:
                axis = varying(factor)[0]
                for index, count in self._counts(factor).items():
                    shapes.setdefault(index, _static(tensor, batch))[axis] -= count
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
            touched = set() if node.inner else self._touched(node)
            before = _operations(node, _sizes) if touched else 0
            for index in touched:

                def without(part: NodeTrace, index: int = index) -> flops.Sizes:
                    return self._sizes_without(part, index)

                after = _operations(node, without)
                if latency is None:
                    saved[index] += before - after
                elif before:
                    saved[index] += latency.get(node.path, 0.0) * (before - after) / before
        return self._by_name(saved)

    def _touched(self, node: NodeTrace) -> set[int]:
        """Returns the groups that change what a call computes."""
        tensors = [*_tensors(node), *node.outputs]
        shapes = [self._shapes(tensor) for tensor in tensors]
        weights = [self._weights.get(id(weight), {}) for weight in node.layer.weights]
        return set().union(*shapes, *weights)

    def _sizes_without(self, node: NodeTrace, index: int) -> flops.Sizes:
        """Returns the sizes of a call without the first channel of a group."""
        weights = {id(w): self._weights.get(id(w), {}) for w in node.layer.weights}
        inputs, sizes = _tensors(node), _sizes(node)
        return flops.Sizes(
            [
                tuple(self._shapes(x, node.batch).get(index, now))
                for x, now in zip(inputs, sizes.inputs)
            ],
            [
                tuple(self._shapes(y, node.batch).get(index, now))
                for y, now in zip(node.outputs, sizes.outputs)
            ],
            {key: tuple(some[index]) for key, some in weights.items() if index in some},
        )

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


def _static(tensor: TracedTensor, batch: int = 1) -> list[int]:
    """Returns the shape for a batch of the given size."""
    return [
        1 if size is None and axis else batch if size is None else size
        for axis, size in enumerate(tensor.shape)
    ]


def _operations(node: NodeTrace, sizes: Callable[[NodeTrace], flops.Sizes]) -> float:
    """Returns the operations of a call for given sizes; a wrapper's are those of its parts."""
    own = flops.of_call(
        node.layer, node.args, node.kwargs, sizes(node), _sizes(node), wraps=bool(node.parts)
    )
    return own + sum(_operations(part, sizes) for part in node.parts)


def _sizes(node: NodeTrace) -> flops.Sizes:
    inputs = [tuple(_static(tensor, node.batch)) for tensor in _tensors(node)]
    return flops.Sizes(inputs, [tuple(_static(tensor, node.batch)) for tensor in node.outputs], {})


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

"""Follows every channel of a Keras model from the layer that makes it to all that read it.

    model ── nodes in order ──> Call ── rule of the layer ──> TracedTensor of the output
                                 └──> Ties (weight, axis, channels), settings that follow, unions

The result knows for every axis of every weight to which channels its positions belong, which
channels are one, and which must stay. Nothing is executed and no weight is read.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Optional, Union

import numpy as np
import tensorflow as tf
from keras.src.engine import functional

from tff_autoprune.errors import UserError
from tff_autoprune.surgery import layer_rules as registry
from tff_autoprune.surgery import rules
from tff_autoprune.surgery.call import Call
from tff_autoprune.surgery.channels import Channels
from tff_autoprune.surgery.roles import Role
from tff_autoprune.surgery.traced_tensor import (
    Kept,
    TracedShape,
    TracedTensor,
    compress,
    size_along,
    varying,
)

rules.load()


class FixedBoundaryWarning(UserWarning):
    """A layer is not known; channels that reach it are kept."""


@dataclasses.dataclass
class Tie:
    """One axis of one weight and the channels along it.

    Attributes:
      path: Path of the layer that has the weight.
      layer: The layer.
      weight: The variable; None for a place outside weights that must not become empty.
      axis: The axis, counted from the front.
      ids: Channel numbers along the axis, NONE where a position belongs to none.
      role: What the axis does with the channels.
      copies: How often the axis has each filter (once for each gate of an LSTM).
    """

    path: str
    layer: tf.keras.layers.Layer
    weight: Optional[tf.Variable]
    axis: int
    ids: np.ndarray
    role: Role
    copies: int = 1


@dataclasses.dataclass
class NodeTrace:
    """One call of a layer without a graph of its own: what went in and what came out.

    Attributes:
      path: Name of the layer, after the names of the models and wrappers around it.
      layer: The layer.
      args: Positional arguments with traced tensors.
      kwargs: Keyword arguments with traced tensors.
      outputs: The outputs, flat.
      inner: Whether it is part of a wrapper that is listed as well.
    """

    path: str
    layer: tf.keras.layers.Layer
    args: Any
    kwargs: Any
    outputs: list[TracedTensor]
    inner: bool


def check_model(model: tf.keras.Model) -> None:
    """Raises a UserError unless the model has a graph of layers that can be followed."""
    if not isinstance(model, tf.keras.Model):
        raise UserError(f"Expected a tf.keras.Model, found {type(model).__name__}.")
    if not getattr(model, "_is_graph_network", False):
        if isinstance(model, tf.keras.Sequential):
            raise UserError(
                f"The Sequential model '{model.name}' has no input shape yet: call "
                "model.build((None, height, width, channels)) or begin it with an Input layer."
            )
        raise UserError(
            f"The model '{model.name}' is a {type(model).__name__} with a call() of its own: its "
            "graph cannot be followed. Build it with the functional API, as "
            "tf.keras.Model(inputs, outputs)."
        )
    for layer in model._flatten_layers(include_self=False, recursive=True):
        if any(not isinstance(weight, tf.Variable) for weight in layer.weights):
            raise UserError(
                f"The layer '{layer.name}' holds a table that adapt() made, which cannot be "
                "copied: apply it before the model, or make it with "
                "vocabulary=layer.get_vocabulary(include_special_tokens=False)."
            )


class Trace:
    """All that is known about the channels of one model.

    Args:
      model: A functional or sequential Keras model with known number of channels.
      warn: Whether to warn of unknown layers.

    Attributes:
      model: The model.
      channels: Which channels are one, which are fixed.
      ties: All tied weight axes, in the order of the graph.
      settings: Changes of layer configurations, by id of the layer.
      arguments: Changes of constant call arguments, by id of the node.
      nodes: Every call of a layer that is not itself a model, in the order of the graph.
      inputs: The model's inputs.
      outputs: The model's outputs.
    """

    def __init__(self, model: tf.keras.Model, warn: bool = True) -> None:
        check_model(model)
        self.model = model
        self._warn = warn
        self._depth = 0
        self.channels = Channels()
        self.ties: list[Tie] = []
        self.settings: dict[int, list[Callable[[dict[str, Any], Kept], None]]] = {}
        self.arguments: dict[int, list[tuple[Union[str, int], Callable[[Any, Kept], Any]]]] = {}
        self.nodes: list[NodeTrace] = []
        self._ties: dict[tuple[int, int], Tie] = {}
        self._tensors: list[TracedTensor] = []
        self._warned: set[int] = set()
        self._entered: dict[int, Sequence[TracedTensor]] = {}
        self.inputs = [_template(x) for x in model.inputs]
        self.outputs = self._run(model, "", self.inputs, outermost=True)
        for name, output in zip(model.output_names, self.outputs):
            for factor in output.factors:
                self.channels.fix(factor, f"feeds the model's output '{name}'")
        self._fix_borrowed()
        self._make_rectangular()

    # -- Used by Call ----------------------------------------------------------------------------

    def produce(self, call: Call, weight: tf.Variable, axis: int, copies: int) -> np.ndarray:
        """Returns the channels along an axis, new ones at the first call."""
        axis %= len(weight.shape)
        tie = self._ties.get((id(weight), axis))
        if tie is None:
            ids = self.channels.new(weight.shape[axis])
            if len(ids) == 1:
                self.channels.fix(ids, "has a single channel")
            tie = self._add(Tie(call.path, call.layer, weight, axis, ids, Role.PRODUCER, copies))
        return self.channels.find(tie.ids)

    def tie(
        self,
        call: Call,
        weight: Optional[tf.Variable],
        axis: int,
        ids: Optional[np.ndarray],
        role: Role,
    ) -> None:
        """Ties an axis of a weight to channels; at a further call of the layer they become one."""
        if weight is not None:
            axis %= len(weight.shape)
            known = self._ties.get((id(weight), axis))
            if known is not None:
                if ids is None:
                    self.channels.fix(known.ids, f"'{call.path}' is also applied to other values")
                else:
                    self.channels.unify(
                        known.ids, ids, f"'{call.path}' is also applied to values that must stay"
                    )
                return
            if ids is None:
                # Remembered, so that a later call of the same layer cannot cut this axis.
                ids = np.full(weight.shape[axis], -1)
            if len(ids) != weight.shape[axis]:
                raise AssertionError(
                    f"{call.path}: axis {axis} of {weight.name} has {weight.shape[axis]} places, "
                    f"the rule of {type(call.layer).__name__} ties {len(ids)}."
                )
        if ids is not None:
            self._add(Tie(call.path, call.layer, weight, axis, np.array(ids), role))

    def _add(self, tie: Tie) -> Tie:
        self.ties.append(tie)
        if tie.weight is not None:
            self._ties[id(tie.weight), tie.axis] = tie
        return tie

    def configure(
        self, layer: tf.keras.layers.Layer, edit: Callable[[dict[str, Any], Kept], None]
    ) -> None:
        """Registers a change of a layer's configuration."""
        self.settings.setdefault(id(layer), []).append(edit)

    def replace_argument(
        self, node: Any, name: Union[str, int], edit: Callable[[Any, Kept], Any]
    ) -> None:
        """Registers a change of a constant argument of a call."""
        self.arguments.setdefault(id(node), []).append((name, edit))

    # -- The walk --------------------------------------------------------------------------------

    def _run(
        self,
        model: tf.keras.Model,
        prefix: str,
        inputs: Sequence[TracedTensor],
        outermost: bool = False,
    ) -> list[TracedTensor]:
        """Traces the graph of a model; returns its outputs, flat."""
        known = {id(x): tensor for x, tensor in zip(model.inputs, inputs)}
        for node in ordered_nodes(model):
            if node.is_input:
                continue
            if any(id(x) not in known for x in node.keras_inputs):
                continue
            args, kwargs = tf.nest.map_structure(
                lambda value: known.get(id(value), value), (node.call_args, node.call_kwargs)
            )
            flat = tf.nest.flatten(node.outputs)
            templates = [_template(x) for x in flat]
            outputs = self.call(node.layer, prefix + node.layer.name, args, kwargs, templates, node)
            known.update((id(x), tensor) for x, tensor in zip(flat, outputs))
            if outermost and not _feeds_outputs(node):
                for tensor in outputs:
                    for factor in tensor.factors:
                        self.channels.fix(factor, f"feeds the loss or metric '{node.layer.name}'")
        return [known[id(x)] for x in model.outputs]

    def call(
        self,
        layer: tf.keras.layers.Layer,
        path: str,
        args: Any,
        kwargs: Any,
        templates: Sequence[TracedTensor],
        node: Any,
    ) -> list[TracedTensor]:
        """Traces one call of a layer or nested model; returns the outputs, flat.

        Args:
          layer: The layer.
          path: Its name, after the names of the models and wrappers around it.
          args: Positional arguments with traced tensors.
          kwargs: Keyword arguments with traced tensors.
          templates: The outputs without channels.
          node: The Keras node, None inside a wrapper.
        """
        call = Call(self, layer, path, args, kwargs, templates, node)
        if isinstance(layer, functional.Functional) and layer._is_graph_network:
            tensors = _in_input_order(layer, args, call.inputs)
            shapes = [tuple(x.shape) for x in layer.inputs]
            if len(tensors) == len(shapes) and all(
                tensor.rank == len(shape) for tensor, shape in zip(tensors, shapes)
            ):
                self._enter(call, tensors)
                return self._run(layer, path + "/", tensors)
        rule = registry.layer_rule(layer)
        if getattr(layer, "symbol", None) != "__operators__.getitem":
            # Only indexing can tell which of the sizes are used.
            for tensor in call.inputs:
                if isinstance(tensor, TracedShape):
                    call.fix(tensor.of, f"has its number used by '{path}'")
        if rule is None:
            outputs = self._boundary(call)
        else:
            outputs = [x for x in tf.nest.flatten(rule(call)) if isinstance(x, TracedTensor)]
        if len(outputs) != len(templates):
            raise AssertionError(
                f"{path}: the rule of {type(layer).__name__} gave {len(outputs)} outputs, "
                f"the layer has {len(templates)}."
            )
        self._tensors.extend(outputs)
        self.nodes.append(NodeTrace(path, layer, call.args, call.kwargs, outputs, self._depth > 0))
        return outputs

    def inner_call(
        self,
        layer: tf.keras.layers.Layer,
        path: str,
        args: Any,
        templates: Sequence[TracedTensor],
    ) -> list[TracedTensor]:
        """Traces a layer that a wrapper calls; the wrapper stands for it in the list of nodes."""
        self._depth += 1
        try:
            return self.call(layer, path, args, {}, templates, node=None)
        finally:
            self._depth -= 1

    def _enter(self, call: Call, tensors: Sequence[TracedTensor]) -> None:
        """Makes the declared input shapes of a nested model follow the channels passed to it."""
        known = self._entered.setdefault(id(call.layer), tensors)
        for first, tensor in zip(known, tensors):
            if first is not tensor:
                # The declared shape is the same for all calls.
                call.elementwise([first, tensor], f"is also read by '{call.path}' elsewhere")
        for input_layer, tensor in zip(call.layer._input_layers, tensors):
            if tensor.factors:
                self.configure(input_layer, _edit_input(tensor))

    def _boundary(self, call: Call) -> list[TracedTensor]:
        layer = call.layer
        touches = bool(layer.weights) or any(x.factors for x in call.inputs)
        if self._warn and touches and id(layer) not in self._warned:
            self._warned.add(id(layer))
            warnings.warn(
                f"Layer '{call.path}' ({registry.describe(layer)}) is not known to "
                "tff_autoprune.surgery: the channels that reach it are kept. Register a rule "
                "with surgery.register_layer to prune them (docs/pruning_any_model.md).",
                FixedBoundaryWarning,
                stacklevel=2,
            )
        return call.opaque(f"reaches '{call.path}', an unknown {registry.describe(layer)}")

    def _fix_borrowed(self) -> None:
        """Keeps weights whole that a call gets as an argument, besides their own layer."""
        for node in self.nodes:
            for value in tf.nest.flatten((node.args, node.kwargs)):
                if isinstance(value, tf.Variable):
                    for axis in range(len(value.shape)):
                        tie = self._ties.get((id(value), axis))
                        if tie is not None:
                            self.channels.fix(tie.ids, f"is also read by '{node.path}'")

    # -- Rectangles ------------------------------------------------------------------------------

    def _make_rectangular(self) -> None:
        """Unites channels until every removal leaves every tensor a full rectangle.

        A reshape can spread independent channels over two axes (the groups of a channel shuffle).
        Only whole rows or columns can go then; the axis with more places keeps its freedom.
        """
        pending = [
            tensor for tensor in self._tensors if any(len(varying(f)) > 1 for f in tensor.factors)
        ]
        changed = True
        while changed:
            changed = False
            for tensor in pending:
                for factor in tensor.factors:
                    factor = compress(self.channels, factor)
                    axes = varying(factor) if factor is not None else ()
                    if len(axes) < 2:
                        continue
                    free = max(axes, key=lambda axis: (factor.shape[axis], axis))
                    first = factor
                    for axis in axes:
                        if axis != free:
                            first = np.take(first, [0], axis=axis)
                    self.channels.unify(factor, first, "shares a row or column with fixed values")
                    changed = True


def ordered_nodes(model: tf.keras.Model) -> list[Any]:
    """Returns the nodes of a functional model in an order in which they can be computed."""
    depths = sorted(model._nodes_by_depth, reverse=True)
    return [node for depth in depths for node in model._nodes_by_depth[depth]]


def _feeds_outputs(node: Any) -> bool:
    # Keras adds these layers for `model.add_loss(tensor)` and `model.add_metric(tensor)`.
    return type(node.layer).__name__ not in ("AddLoss", "AddMetric")


def _template(tensor: Any) -> TracedTensor:
    """Returns a Keras tensor without channels."""
    shape = getattr(tensor, "shape", None)
    known = shape is not None and shape.rank is not None
    return TracedTensor(tuple(shape) if known else (), dtype=tf.as_dtype(tensor.dtype).name)


def _edit_input(tensor: TracedTensor) -> Callable[[dict[str, Any], Kept], None]:
    def edit(config: dict[str, Any], kept: Kept) -> None:
        shape = list(config["batch_input_shape"])
        for axis in {axis for factor in tensor.factors for axis in varying(factor)}:
            if shape[axis] is not None:
                shape[axis] = size_along(tensor.factors, axis, tensor.shape[axis], kept)
        config["batch_input_shape"] = tuple(shape)

    return edit


def _in_input_order(
    model: tf.keras.Model, args: Any, tensors: Sequence[TracedTensor]
) -> Sequence[TracedTensor]:
    """Returns the tensors passed to a nested model in the order of `model.inputs`."""
    if args and isinstance(args[0], Mapping):
        return model._flatten_to_reference_inputs(args[0])
    return tensors

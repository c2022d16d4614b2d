"""Follows every channel of a Keras model from the layer that makes it to all that read it.

    model ── nodes in order ──> Call ── rule of the layer ──> TracedTensor of the output
                                 └──> Record: ties (weight, axis, channels), edits, unions

The result knows for every axis of every weight to which channels its positions belong, which
channels are one, and which must stay. Nothing is executed and no weight is read.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Optional

import numpy as np
import tensorflow as tf

from tff_autoprune.errors import UserError
from tff_autoprune.surgery import layer_rules as registry
from tff_autoprune.surgery import rules, sizes
from tff_autoprune.surgery.call import Call
from tff_autoprune.surgery.record import ConfigEdit, Record
from tff_autoprune.surgery.traced_tensor import (
    Kept,
    TracedSizes,
    TracedTensor,
    compress,
    size_along,
    varying,
)

rules.load()


@dataclasses.dataclass
class NodeTrace:
    """One call of a layer without a graph of its own: what went in and what came out.

    Attributes:
      path: The layer's name, after the names of the models and wrappers around it.
      layer: The layer.
      args: Positional arguments with traced tensors.
      kwargs: Keyword arguments with traced tensors.
      outputs: The outputs, flat.
      inner: Whether the call is part of a wrapper that is listed as well.
      batch: Size of the batch that it works on when the model gets a single example: a wrapper puts
        time steps there.
      parts: For a wrapper the calls inside it.
    """

    path: str
    layer: tf.keras.layers.Layer
    args: Any
    kwargs: Any
    outputs: list[TracedTensor]
    inner: bool
    batch: int
    parts: list[NodeTrace]


def check_model(model: tf.keras.Model) -> None:
    """Raises a UserError unless the model has a graph of layers that can be followed."""
    if not isinstance(model, tf.keras.Model):
        raise UserError(f"Expected a tf.keras.Model, found {type(model).__name__}.")
    if not registry.computes_its_graph(model):
        if isinstance(model, tf.keras.Sequential) and not model._is_graph_network:
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
      within_groups: See `Record`.

    Attributes:
      model: The model.
      record: Channels, ties and edits.
      channels: Which channels are one, which are fixed.
      nodes: Every call of a layer that is not itself a followed model, in the order of the graph.
      inputs: The model's inputs.
      outputs: The model's outputs.
      unknown: Layers without a rule that have weights or that channels reach, and their paths.
    """

    def __init__(self, model: tf.keras.Model, within_groups: Collection[int] = ()) -> None:
        check_model(model)
        self.model = model
        self.record = Record(self._walk_inner, within_groups)
        self.channels = self.record.channels
        self.nodes: list[NodeTrace] = []
        self._batch = 1
        # The calls inside each of the wrappers that are being traced.
        self._wrappers: list[list[NodeTrace]] = []
        self._tensors: list[TracedTensor] = []
        self.unknown: list[tuple[str, tf.keras.layers.Layer]] = []
        self._boundaries: list[Call] = []
        self._entered: dict[int, Sequence[TracedTensor]] = {}
        self.inputs = [_template(x) for x in model.inputs]
        self.outputs = self._run(model, "", self.inputs, outermost=True)
        for name, output in zip(model.output_names, self.outputs):
            self._fix_all(output, f"feeds the model's output '{name}'")
        self._fix_borrowed()
        self._make_rectangular()

    def _fix_all(self, tensor: TracedTensor, reason: str) -> None:
        for factor in tensor.factors:
            self.channels.fix(factor, reason)
        if isinstance(tensor, TracedSizes):
            for size in frozenset().union(*tensor.of.reshape(-1)):
                self._fix_all(size.tensor, reason)

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
                    self._fix_all(tensor, f"feeds the loss or metric '{node.layer.name}'")
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
        call = Call(self.record, layer, path, args, kwargs, templates, node)
        parts: list[NodeTrace] = []
        if sizes.only_sizes(call):
            outputs = sizes.follow(call)
        else:
            for tensor in call.inputs:
                if isinstance(tensor, TracedSizes) and not _reads_sizes(layer):
                    sizes.fix(call, tensor.of.reshape(-1))
            entered = self._entry(call)
            if entered is not None:
                self._enter(call, entered)
                return self._run(layer, path + "/", entered)
            self._wrappers.append(parts)
            outputs = self._ruled(call)
            self._wrappers.pop()
        self._tensors.extend(outputs)
        inner = bool(self._wrappers)
        traced = NodeTrace(path, layer, call.args, call.kwargs, outputs, inner, self._batch, parts)
        self.nodes.append(traced)
        if inner:
            self._wrappers[-1].append(traced)
        return outputs

    def _entry(self, call: Call) -> Optional[Sequence[TracedTensor]]:
        """Returns the inputs of a nested model whose graph can be followed, else None."""
        model = call.layer
        if not registry.computes_its_graph(model) or registry.layer_rule(model) is not None:
            return None
        tensors = _in_input_order(model, call.args, call.inputs)
        shapes = [tuple(x.shape) for x in model.inputs]
        fits = len(tensors) == len(shapes) and all(
            tensor.rank == len(shape) for tensor, shape in zip(tensors, shapes)
        )
        return tensors if fits else None

    def _ruled(self, call: Call) -> list[TracedTensor]:
        """Applies the rule of a layer; without one, the layer is a boundary."""
        rule = registry.layer_rule(call.layer)
        if rule is None:
            return self._boundary(call)
        try:
            found = rule(call)
        except (TypeError, ValueError, IndexError):
            if not (call.is_operator and any(_is_integer(x) for x in call.inputs)):
                raise
            # A number that the rule reads is computed in the graph.
            self.record.arguments.pop(id(call.node), None)
            found = call.opaque(f"reaches '{call.path}' together with a computed number")
        outputs = [x for x in tf.nest.flatten(found) if isinstance(x, TracedTensor)]
        if len(outputs) != len(call.outputs):
            raise AssertionError(
                f"{call.path}: the rule of {type(call.layer).__name__} gave {len(outputs)} "
                f"outputs, the layer has {len(call.outputs)}."
            )
        self._fix_unmentioned(call)
        return outputs

    def _fix_unmentioned(self, call: Call) -> None:
        """Keeps channels that a weight may have a place for of which the rule says nothing."""
        weights = call.layer.weights
        ties = [tie for weight in weights for tie in self.record.ties_of(weight)]
        for weight in weights:
            if self.record.ties_of(weight):
                continue
            for tie in ties:
                if len(tie.ids) in weight.shape:
                    self.channels.fix(
                        tie.ids,
                        f"may have a place in '{weight.name}', of which the rule of "
                        f"{type(call.layer).__name__} says nothing",
                    )

    def _walk_inner(
        self,
        layer: tf.keras.layers.Layer,
        path: str,
        args: Any,
        templates: Sequence[TracedTensor],
        times: int,
    ) -> list[TracedTensor]:
        """Traces a layer that a wrapper calls; the wrapper stands for it in the list of nodes."""
        before, self._batch = self._batch, self._batch * times
        try:
            return self.call(layer, path, args, {}, templates, node=None)
        finally:
            self._batch = before

    def _enter(self, call: Call, tensors: Sequence[TracedTensor]) -> None:
        """Makes the declared input shapes of a nested model follow the channels passed to it."""
        known = self._entered.setdefault(id(call.layer), tensors)
        for first, tensor in zip(known, tensors):
            if first is not tensor:
                # The declared shape is the same for all calls.
                call.elementwise([first, tensor], f"is also read by '{call.path}' elsewhere")
        for input_layer, tensor in zip(call.layer._input_layers, tensors):
            if tensor.factors:
                self.record.configure(input_layer, _edit_input(tensor))

    def _boundary(self, call: Call) -> list[TracedTensor]:
        layer = call.layer
        self._boundaries.append(call)
        touches = bool(layer.weights) or any(x.factors for x in call.inputs)
        if touches and all(layer is not known for _, known in self.unknown):
            self.unknown.append((call.path, layer))
        return call.opaque(f"reaches '{call.path}', an unknown {registry.describe(layer)}")

    def _fix_borrowed(self) -> None:
        """Keeps weights whole that a call reads besides their own layer."""
        for node in self.nodes:
            for value in tf.nest.flatten((node.args, node.kwargs)):
                if isinstance(value, tf.Variable):
                    self.record.fix_weight(value, f"is also read by '{node.path}'")
        for call in self._boundaries:
            for weight in call.layer.weights:
                self.record.fix_weight(weight, f"is also read by '{call.path}'")

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
                    self.channels.unify(
                        factor,
                        first,
                        "shares a row or column of a tensor with values that must stay",
                    )
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
    shape = tuple(shape) if known else ()
    values = getattr(tensor, "_inferred_value", None)
    if values is not None and None not in shape:
        array = np.empty(len(values), object)
        array[:] = values
        values = array.reshape(shape) if array.size == math.prod(shape) else None
    return TracedTensor(shape, dtype=tf.as_dtype(tensor.dtype).name, values=values)


def _reads_sizes(layer: Any) -> bool:
    """Returns whether the rule of a layer looks itself at the sizes that it is given."""
    return getattr(layer, "symbol", None) == "reshape"


def _is_integer(tensor: TracedTensor) -> bool:
    return tf.as_dtype(tensor.dtype).is_integer


def _edit_input(tensor: TracedTensor) -> ConfigEdit:
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

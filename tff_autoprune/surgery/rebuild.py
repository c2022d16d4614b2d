"""Builds a model again with other layer settings: same graph, same names, smaller layers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Optional

import tensorflow as tf
from keras.src.engine import functional

from tff_autoprune.errors import UserError
from tff_autoprune.surgery.trace import Trace, ordered_nodes
from tff_autoprune.surgery.traced_tensor import Kept


class Rebuilder:
    """Copies models layer by layer; a layer or model that is used twice is copied once.

    Args:
      trace: Knows which settings and call arguments follow from the channels that are left.
      kept: Tells for channel numbers which positions stay.
      replacements: New layers, in order, that take the place of a layer, by its id.
    """

    def __init__(
        self,
        trace: Trace,
        kept: Kept,
        replacements: Optional[Mapping[int, Sequence[tf.keras.layers.Layer]]] = None,
    ) -> None:
        self._trace = trace
        self._kept = kept
        self._replacements = replacements or {}
        self._copies: dict[int, tf.keras.layers.Layer] = {}

    def copy(self, layer: tf.keras.layers.Layer) -> tf.keras.layers.Layer:
        """Returns the smaller copy of a layer or model."""
        if id(layer) not in self._copies:
            self._copies[id(layer)] = self._copier(layer)(layer)
        return self._copies[id(layer)]

    def pairs(self) -> list[tuple[tf.keras.layers.Layer, tf.keras.layers.Layer]]:
        """Returns the layers that have been copied, nested models left out, with their copies."""
        layers = self._trace.model._flatten_layers(include_self=False, recursive=True)
        return [
            (layer, self._copies[id(layer)])
            for layer in layers
            if id(layer) in self._copies and not getattr(layer, "_is_graph_network", False)
        ]

    def _successors(self, layer: tf.keras.layers.Layer) -> Sequence[tf.keras.layers.Layer]:
        if id(layer) in self._replacements:
            return self._replacements[id(layer)]
        return [self.copy(layer)]

    def _copier(self, layer: Any) -> Callable[[Any], Any]:
        if isinstance(layer, tf.keras.Sequential) and layer._is_graph_network:
            return self._sequential
        if isinstance(layer, functional.Functional) and layer._is_graph_network:
            return self._functional
        if isinstance(layer, tf.keras.layers.TimeDistributed):
            return self._time_distributed
        return self._layer

    def _layer(self, layer: tf.keras.layers.Layer) -> tf.keras.layers.Layer:
        config = configuration(layer)
        for edit in self._trace.settings.get(id(layer), ()):
            edit(config, self._kept)
        return type(layer).from_config(config)

    def _time_distributed(self, layer: tf.keras.layers.Layer) -> tf.keras.layers.Layer:
        config = layer.get_config()
        config["layer"] = self.copy(layer.layer)
        return type(layer)(**config)

    def _sequential(self, model: tf.keras.Sequential) -> tf.keras.Sequential:
        layers = model._flatten_layers(include_self=False, recursive=False)
        new_layers = [new for layer in layers for new in self._successors(layer)]
        new = tf.keras.Sequential(new_layers, name=model.name)
        if not new._is_graph_network:
            # The input shape was not declared but found at the first call.
            new.build(self.copy(model._input_layers[0]).input_shape[0])
        new._trainable = model._trainable
        return new

    def _functional(self, model: tf.keras.Model) -> tf.keras.Model:
        tensors: dict[int, Any] = {}
        for layer, old in zip(model._input_layers, model.inputs):
            tensors[id(old)] = self.copy(layer).output
        created = {}
        for node in ordered_nodes(model):
            if node.is_input or any(id(x) not in tensors for x in node.keras_inputs):
                continue
            args, kwargs = tf.nest.map_structure(
                lambda value: (
                    self._weight(value)
                    if isinstance(value, tf.Variable)
                    else tensors.get(id(value), value)
                ),
                (node.call_args, node.call_kwargs),
            )
            args, kwargs = self._arguments(node, args, kwargs)
            for layer in self._successors(node.layer):
                created[layer.name] = layer
                outputs = layer(*args, **kwargs)
                args, kwargs = [outputs], {}
            for old, new in zip(tf.nest.flatten(node.outputs), tf.nest.flatten(outputs)):
                tensors[id(old)] = new
        inputs, outputs = tf.nest.map_structure(
            lambda old: tensors[id(old)], (model._nested_inputs, model._nested_outputs)
        )
        # Like clone_model: a subclass that adds a constructor of its own cannot be called.
        own = functional.has_functional_like_constructor(type(model))
        cls = type(model) if own else tf.keras.Model
        new_model = cls(inputs, outputs, name=model.name)
        functional.connect_ancillary_layers(new_model, created)
        new_model._trainable = model._trainable
        return new_model

    def _weight(self, variable: tf.Variable) -> tf.Variable:
        """Returns the copy of a weight that a call gets as an argument, as tied embeddings do."""
        owners = [
            layer
            for layer in self._trace.model._flatten_layers(include_self=False)
            if any(weight is variable for weight in layer.weights)
        ]
        for layer in owners:
            copied = self._copies[id(layer)].weights if id(layer) in self._copies else []
            for old, new in zip(layer.weights, copied):
                if old is variable:
                    return new
        if owners:
            raise UserError(
                f"The weight '{variable.name}' of '{owners[-1].name}' is read by another call "
                "before its own layer is called; such a model cannot be copied."
            )
        return variable

    def _arguments(
        self, node: Any, args: Any, kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        args, kwargs = list(args), dict(kwargs)
        for name, edit in self._trace.arguments.get(id(node), ()):
            place = args if isinstance(name, int) else kwargs
            place[name] = edit(place[name], self._kept)
        return tuple(args), kwargs


def configuration(layer: tf.keras.layers.Layer) -> dict[str, Any]:
    """Returns a layer's configuration; functions pass as they are.

    So that activation functions of the user's own need not be registered with Keras.
    """
    config = layer.get_config()
    for name, value in config.items():
        function = getattr(layer, name, None) if "activation" in name else None
        is_function = callable(function) and not isinstance(function, tf.keras.layers.Layer)
        if is_function and not isinstance(value, str):
            config[name] = function
    return config

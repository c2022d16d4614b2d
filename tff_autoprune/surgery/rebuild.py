"""Builds a model again with other layer settings: same graph, same names, smaller layers."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, Optional

import numpy as np
import tensorflow as tf
from keras.src import backend
from keras.src.engine import functional
from keras.src.layers.core.tf_op_layer import TFOpLambda

from tff_autoprune.errors import UserError
from tff_autoprune.surgery import layer_rules as registry
from tff_autoprune.surgery.trace import Trace, ordered_nodes
from tff_autoprune.surgery.traced_tensor import Kept

#: For a weight the axes that shrink and the places that stay.
Places = Callable[[tf.Variable], Sequence[tuple[int, np.ndarray]]]

_layers = tf.keras.layers


def all_stays(weight: tf.Variable) -> Sequence[tuple[int, np.ndarray]]:
    """Says of every weight that it keeps its shape; see `Places`."""
    del weight
    return ()


class Rebuilder:
    """Copies models layer by layer; a layer or model that is used twice is copied once.

    Args:
      trace: Knows which settings and call arguments follow from the channels that are left.
      kept: Tells for channel numbers which positions stay.
      places: Tells for a weight of the model what stays of it.
      replacements: New layers, in order, that take the place of a layer, by its id; none if it is
        to be left out.
      operands: Which operands of an addition stay, by id of its node; of a single one there is
        nothing to add.
      dropped: Ids of nodes that are not called any more.
    """

    def __init__(
        self,
        trace: Trace,
        kept: Kept,
        places: Places = all_stays,
        replacements: Optional[Mapping[int, Sequence[Any]]] = None,
        operands: Optional[Mapping[int, Sequence[int]]] = None,
        dropped: Collection[int] = (),
    ) -> None:
        self._model = trace.model
        self._record = trace.record
        self._kept = kept
        self._places = places
        self._replacements = replacements or {}
        self._operands = operands or {}
        self._dropped = dropped
        self._copies: dict[int, Any] = {}
        self._units: list[tuple[Any, Any]] = []

    def check(self) -> None:
        """Raises a UserError if a layer cannot be made again; builds nothing."""
        with _random_state_kept():
            self._check(self._model)

    def _check(self, layer: Any) -> None:
        if id(layer) in self._copies or id(layer) in self._replacements:
            return
        self._copies[id(layer)] = None
        if registry.computes_its_graph(layer):
            for inner in layer._flatten_layers(include_self=False, recursive=False):
                self._check(inner)
        elif _is_followed_wrapper(layer):
            self._check(layer.layer)
            self._wrapper(layer, layer.layer)
        elif not isinstance(layer, _layers.InputLayer):
            self._layer(layer)

    def build(self) -> tf.keras.Model:
        """Returns the smaller copy of the model, with new weights."""
        self._copies.clear()
        self._units.clear()
        new = self._copy(self._model)
        for old, unit in self._units:
            _restore(old, unit)
        self._share_weights()
        return new

    def pairs(self) -> list[tuple[Any, Any]]:
        """Returns the layers that have been copied, nested models left out, with their copies."""
        layers = self._model._flatten_layers(include_self=False, recursive=True)
        return [
            (layer, self._copies[id(layer)])
            for layer in layers
            if id(layer) in self._copies and not registry.computes_its_graph(layer)
        ]

    def _successors(self, layer: Any) -> Sequence[Any]:
        if id(layer) in self._replacements:
            return self._replacements[id(layer)]
        return [self._copy(layer)]

    def _copy(self, layer: Any) -> Any:
        if id(layer) not in self._copies:
            self._copies[id(layer)] = self._copier(layer)(layer)
        return self._copies[id(layer)]

    def _copier(self, layer: Any) -> Callable[[Any], Any]:
        if registry.computes_its_graph(layer):
            sequential = isinstance(layer, tf.keras.Sequential)
            return self._sequential if sequential else self._functional
        if _is_followed_wrapper(layer):
            return self._time_distributed
        return self._layer

    def _layer(self, layer: Any) -> Any:
        """Makes a layer again from its configuration."""
        if registry.call_is_replaced(layer) and not isinstance(layer, TFOpLambda):
            raise UserError(
                f"The layer '{layer.name}' has its call() replaced in this one object, which "
                "cannot be copied: make it a subclass of Layer."
            )
        with _refusal(layer):
            config = configuration(layer, self._places)
            for edit in self._record.settings.get(id(layer), ()):
                edit(config, self._kept)
            new = type(layer).from_config(config)
        _restore(layer, new)
        self._units.append((layer, new))
        return new

    def _time_distributed(self, layer: Any) -> Any:
        return self._wrapper(layer, self._copy(layer.layer))

    def _wrapper(self, layer: Any, inner: Any) -> Any:
        """Makes a wrapper again, around another layer."""
        with _refusal(layer):
            return type(layer)(**{**layer.get_config(), "layer": inner})

    def _sequential(self, model: tf.keras.Sequential) -> tf.keras.Sequential:
        layers = model._flatten_layers(include_self=False, recursive=False)
        new_layers = [new for layer in layers for new in self._successors(layer)]
        new = tf.keras.Sequential(new_layers, name=model.name)
        if not new._is_graph_network:
            # The input shape was not declared but found at the first call.
            new.build(self._copy(model._input_layers[0]).input_shape[0])
        new._trainable = model._trainable
        return new

    def _functional(self, model: tf.keras.Model) -> tf.keras.Model:
        tensors: dict[int, Any] = {}
        for layer, old in zip(model._input_layers, model.inputs):
            tensors[id(old)] = self._copy(layer).output
        created = {}
        for node in ordered_nodes(model):
            if node.is_input or id(node) in self._dropped:
                continue
            if id(node) in self._operands:
                sources = [node.keras_inputs[i] for i in self._operands[id(node)]]
                outputs = [tensors[id(x)] for x in sources]
                if len(outputs) > 1:
                    layer = self._copy(node.layer)
                    created[layer.name] = layer
                    outputs = [layer(outputs)]
                tensors[id(node.outputs)] = outputs[0]
                continue
            if any(id(x) not in tensors for x in node.keras_inputs):
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
            outputs = args[0] if args else None
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
            for layer in self._model._flatten_layers(include_self=False)
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
        for name, edit in self._record.arguments.get(id(node), ()):
            place = args if isinstance(name, int) else kwargs
            place[name] = edit(place[name], self._kept)
        return tuple(args), kwargs

    def _share_weights(self) -> None:
        """Makes layers of the copy share the weights that their originals share."""
        held: dict[int, list[tuple[tf.Variable, Any, str]]] = {}
        for old_unit, new_unit in self._units:
            for old, new in zip(_parts(old_unit), _parts(new_unit)):
                for name, weight in vars(old).items():
                    if isinstance(weight, tf.Variable) and name in vars(new):
                        held.setdefault(id(weight), []).append((weight, new, name))
        for holders in held.values():
            copies = [vars(layer)[name] for _, layer, name in holders]
            shared = next((c for c in copies if c.name == holders[0][0].name), copies[0])
            for copied, (_, layer, name) in zip(copies, holders):
                if copied is not shared:
                    setattr(layer, name, shared)


def configuration(layer: Any, places: Places = all_stays) -> dict[str, Any]:
    """Returns a layer's configuration with which it can be made again.

    Functions and objects that Keras cannot make again pass as they are; what holds an array of a
    weight's shape is cut with the weight.

    Args:
      layer: The layer.
      places: Tells for a weight of the layer what stays of it.

    Raises:
      UserError: If an initializer, regularizer or constraint fits the old shape only.
    """
    config = dict(layer.get_config())
    for name, value in config.items():
        found = getattr(layer, name, None)
        if "activation" in name:
            passes = callable(found) and not isinstance(found, _layers.Layer)
            config[name] = found if passes and not isinstance(value, str) else value
        elif name.endswith(("regularizer", "constraint")):
            config[name] = value if found is None else found
            if callable(found):
                _check_takes(layer, name, found, places)
        elif name.endswith("initializer") and found is not None:
            config[name] = _initializer(layer, name, value, found, places)
    if isinstance(layer, _layers.Bidirectional):
        directions = {"layer": layer.forward_layer, "backward_layer": layer.backward_layer}
        for name, inner in directions.items():
            if name in config:
                own = config[name]["config"]
                for key in [key for key in own if key.endswith("initializer")]:
                    own[key] = _initializer(inner, key, own[key], getattr(inner, key), places)
    return config


def _initializer(layer: Any, name: str, value: Any, found: Any, places: Places) -> Any:
    """Returns an initializer that gives values of the new shape."""
    weight, cuts, shape = _cut_weight(layer, name, places)
    fixed = getattr(found, "value", None)
    if type(found).__name__ == "Constant" and np.ndim(fixed):
        fixed = np.asarray(fixed)
        if cuts and fixed.shape == tuple(weight.shape):
            for axis, stays in cuts:
                fixed = np.take(fixed, stays, axis=axis)
        return tf.keras.initializers.Constant(fixed)
    if type(found).__module__.startswith("keras."):
        return value
    if cuts and tuple(found(shape, dtype=weight.dtype).shape) != shape:
        raise UserError(
            f"The {name} of '{layer.name}' does not give values of the smaller shape {shape}: use "
            "tf.keras.initializers.Constant(array)."
        )
    try:
        tf.keras.initializers.get(value)
    except (TypeError, ValueError):
        return found  # Not registered with Keras.
    return value


def _is_followed_wrapper(layer: Any) -> bool:
    followed = isinstance(layer, _layers.TimeDistributed)
    return followed and registry.layer_rule(layer) is not None


def _parts(layer: Any) -> list[Any]:
    return list(layer._flatten_layers(include_self=True, recursive=True))


def _restore(old: Any, new: Any) -> None:
    """Gives a copied layer the name, the type policy and the frozen state of the original."""
    olds, news = _parts(old), _parts(new)
    if [type(part) for part in olds] != [type(part) for part in news]:
        # Some layers make their parts when they are built; this is called again then.
        olds, news = olds[:1], news[:1]
    for before, after in zip(olds, news):
        after._name = before._name
        after._trainable = before._trainable
        if after.dtype_policy.name != before.dtype_policy.name:
            after._set_dtype_policy(before.dtype_policy)


def _check_takes(layer: Any, name: str, found: Any, places: Places) -> None:
    """Raises unless a regularizer or constraint of the user's takes a weight of the new shape."""
    weight, cuts, shape = _cut_weight(layer, name, places)
    if not cuts or type(found).__module__.startswith("keras."):
        return
    try:
        result = found(tf.zeros(shape, weight.dtype))
        fits = name.endswith("regularizer") or tuple(result.shape) == shape
    except (TypeError, ValueError, tf.errors.OpError):
        fits = False
    if not fits:
        raise UserError(
            f"The {name} of '{layer.name}' does not take a weight of the smaller shape {shape}: "
            "it may hold an array of the present shape."
        )


def _cut_weight(
    layer: Any, name: str, places: Places
) -> tuple[Any, Sequence[tuple[int, np.ndarray]], tuple[int, ...]]:
    """Returns the weight that a setting such as "kernel_initializer" is for, its cuts, its shape.

    The weight is None and the cuts are empty if it cannot be told.
    """
    prefix = name.rsplit("_", 1)[0]
    for owner in (layer, getattr(layer, "cell", None)):
        for attribute in (prefix, f"{prefix}_kernel"):
            weight = getattr(owner, attribute, None)
            if isinstance(weight, tf.Variable):
                cuts, shape = places(weight), list(weight.shape)
                for axis, stays in cuts:
                    shape[axis] = len(stays)
                return weight, cuts, tuple(shape)
    return None, (), ()


@contextlib.contextmanager
def _refusal(layer: Any) -> Iterator[None]:
    """Names the layer if Keras cannot make it again."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        # Keras repeats the whole configuration before it says what was wrong.
        told = [line for line in lines if line.startswith("Exception encountered")]
        why = (told or lines or [""])[0]
        raise UserError(
            f"The layer '{layer.name}' ({registry.describe(layer)}) cannot be made again from "
            "its get_config(): give it a get_config() that returns all arguments of its "
            "constructor, and register what these hold with Keras. "
            f"({type(error).__name__}: {why[:200]})"
        ) from error


@contextlib.contextmanager
def _random_state_kept() -> Iterator[None]:
    """Hides that layers draw seeds when they are made, so that a check changes no later draw."""
    keras_generator = getattr(backend._SEED_GENERATOR, "generator", None)
    states = random.getstate(), np.random.get_state()
    keras_state = keras_generator.getstate() if keras_generator is not None else None
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        if keras_generator is not None:
            keras_generator.setstate(keras_state)

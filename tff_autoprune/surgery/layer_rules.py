"""What is known of each kind of layer, operator and activation function.

A rule is a function from a `Call` to the traced output. It says which axes of the layer's weights
belong to which channels, and which settings of the layer follow from the number of channels left.
Whatever has no rule is a fixed boundary: its inputs keep all their channels.

Your own layers join here; docs/pruning_any_model.md has an example:

    @surgery.register_layer(MyScale)
    def _(call):
        call.carry(call.layer.gain, 0, call.along(call.x, -1))
        return call.same(call.x)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Optional

import tensorflow as tf
from keras.src.engine import functional
from keras.src.layers.core.tf_op_layer import TFOpLambda

#: Takes a `call.Call`, returns the traced output or outputs.
Rule = Callable[[Any], Any]

_LAYERS: dict[type, Rule] = {}
_OPERATORS: dict[str, Rule] = {}
_ELEMENTWISE_FUNCTIONS: set[Any] = set()

# A subclass that only adds these to a known layer computes what that layer computes.
_HARMLESS_OVERRIDES = frozenset({"__init__", "get_config", "from_config"})


def register_layer(*classes: type) -> Callable[[Rule], Rule]:
    """Registers the rule of one or more layer classes; a later registration replaces an earlier.

    Args:
      *classes: Subclasses of `tf.keras.layers.Layer`. Their own subclasses inherit the rule as long
        as they override nothing but the constructor and (de)serialization.

    Returns:
      A decorator that takes the rule and returns it unchanged.
    """
    return _filling(_LAYERS, classes)


def register_operator(*symbols: str) -> Callable[[Rule], Rule]:
    """Registers the rule of TensorFlow functions applied to Keras tensors.

    Args:
      *symbols: Canonical names without "tf.", such as "math.add" or "reshape".

    Returns:
      A decorator that takes the rule and returns it unchanged.
    """
    return _filling(_OPERATORS, symbols)


def _filling(rules: dict[Any, Rule], keys: Sequence[Any]) -> Callable[[Rule], Rule]:
    """Returns a decorator that enters the rule under all keys."""

    def decorate(rule: Rule) -> Rule:
        rules.update(dict.fromkeys(keys, rule))
        return rule

    return decorate


def register_activation(function: Callable[..., Any]) -> Callable[..., Any]:
    """Declares that `function` (of a layer's `activation=`) acts on each element by itself.

    Args:
      function: The activation function. Functions that mix channels, as softmax does, must not be
        registered: layers that use them keep their channels.

    Returns:
      `function`, so that this can be used as a decorator.
    """
    _ELEMENTWISE_FUNCTIONS.add(function)
    return function


def is_elementwise(function: Callable[..., Any]) -> bool:
    """Returns whether an activation function is known to act on each element by itself."""
    return function in _ELEMENTWISE_FUNCTIONS


def layer_rule(layer: Any) -> Optional[Rule]:
    """Returns the rule of a layer, None if there is none.

    Subclasses inherit a rule only if they cannot compute anything else than their base class.
    """
    if isinstance(layer, TFOpLambda):
        return _OPERATORS.get(layer.symbol)
    if call_is_replaced(layer):
        return None
    for cls in type(layer).__mro__:
        if cls in _LAYERS:
            return _LAYERS[cls]
        overrides = {name for name, value in vars(cls).items() if callable(value)}
        if (overrides | _descriptors(cls)) - _HARMLESS_OVERRIDES:
            return None
    return None


def _descriptors(cls: type) -> set[str]:
    kinds = (property, classmethod, staticmethod)
    return {name for name, value in vars(cls).items() if isinstance(value, kinds)}


def call_is_replaced(layer: Any) -> bool:
    """Returns whether one object computes something else than its class does.

    Keras binds the class's own `call` to each object when it saves or converts a model.
    """
    own = vars(layer).get("call")
    return own is not None and getattr(own, "__func__", None) is not type(layer).call


def computes_its_graph(model: Any) -> bool:
    """Returns whether calling a model computes the graph of layers that it holds, and no more.

    A subclass of Sequential or of a functional model that overrides `call` (a residual block that
    adds its input, say) computes something else.
    """
    if not isinstance(model, functional.Functional) or not model._is_graph_network:
        return False
    cls = type(model)
    known = (functional.Functional, tf.keras.Sequential)
    return (
        not call_is_replaced(model)
        and any(cls.call is base.call for base in known)
        and any(cls.__call__ is base.__call__ for base in known)
    )


def describe(layer: Any) -> str:
    """Returns the class of a layer, or the function that an operator layer applies."""
    if isinstance(layer, TFOpLambda):
        return f"tf.{layer.symbol}" if layer.symbol else str(layer.function)
    return type(layer).__name__

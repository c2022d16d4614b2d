"""One call of a layer, as its rule sees it.

A rule reads the traced inputs from the call, ties the layer's weights to channels, and returns the
traced output. The words for a weight axis are those of `groups.Member`:

  produce  the axis makes the channels (the filters of a convolution)
  consume  the axis reads the channels and sums over them (the input side of a kernel)
  carry    the axis has one value for each channel, which passes through (a batch-norm scale)

Rules only ever make units of removal coarser (`unify`) or fixed (`fix`), which is always safe; what
a rule does not mention is left as it is.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Optional, Union

import numpy as np
import tensorflow as tf
from keras.src.layers.core.tf_op_layer import TFOpLambda

from tff_autoprune.surgery import layer_rules as registry
from tff_autoprune.surgery.record import Record
from tff_autoprune.surgery.roles import Role
from tff_autoprune.surgery.traced_tensor import Kept, TracedTensor, compress, numbers, varying

#: Activation functions that mix the channels of a place.
_MIXING = ("softmax", "log_softmax", "l2_normalize")


class Call:
    """One call of a layer in the graph.

    Attributes:
      record: What the rules have said so far of the model.
      layer: The Keras layer.
      path: Its name, after the names of the models and wrappers around it.
      args: Positional arguments, with `TracedTensor` in the place of Keras tensors.
      kwargs: Keyword arguments, likewise.
      outputs: The outputs, flat, with their shapes and types but no channels yet.
      node: The Keras node of the call, None inside a wrapper.
    """

    def __init__(
        self,
        record: Record,
        layer: tf.keras.layers.Layer,
        path: str,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        outputs: Sequence[TracedTensor],
        node: Any = None,
    ) -> None:
        self.record = record
        self.layer = layer
        self.path = path
        self.args = tuple(args)
        self.kwargs = dict(kwargs)
        self.outputs = list(outputs)
        self.node = node
        self.channels = record.channels

    # -- What goes in and out ------------------------------------------------------------------

    @property
    def inputs(self) -> list[TracedTensor]:
        """All traced tensors among the arguments, in order."""
        flat = tf.nest.flatten((self.args, self.kwargs))
        return [value for value in flat if isinstance(value, TracedTensor)]

    @property
    def x(self) -> TracedTensor:
        """The first traced input."""
        return self.inputs[0]

    @property
    def is_operator(self) -> bool:
        """Whether a TensorFlow function is called, and not a layer."""
        return isinstance(self.layer, TFOpLambda)

    def operands(self) -> list[TracedTensor]:
        """Returns the tensors in the first argument; channels of all others (masks) are fixed."""
        first = [x for x in tf.nest.flatten(self.args[0]) if isinstance(x, TracedTensor)]
        for tensor in self.inputs[len(first) :]:
            self.fix(tensor, f"is an extra argument of '{self.path}'")
        return first

    def argument(self, name: str, default: Any = None) -> Any:
        """Returns an argument of an operator by its name in the function's signature."""
        if name in self.kwargs:
            return self.kwargs[name]
        names = self._signature()
        if name in names and names.index(name) < len(self.args):
            return self.args[names.index(name)]
        return default

    def numbers(self, name: str, default: Any = None) -> Optional[np.ndarray]:
        """Returns an integer argument of an operator; see `traced_tensor.numbers`."""
        return numbers(self.argument(name, default))

    def axes(self, tensor: TracedTensor, default: Any = None) -> list[int]:
        """Returns the operator's argument `axis`, counted from the front.

        Args:
          tensor: The tensor whose axes are meant.
          default: The value of the argument if it is not given; None stands for all axes.

        Raises:
          TypeError: If an axis is only known when the model runs.
        """
        given = self.argument("axis", default)
        if given is None:
            return list(range(tensor.rank))
        known = numbers(given)
        if known is None or None in known.reshape(-1):
            raise TypeError(f"{self.path}: the axis is computed.")
        return [tensor.axis(int(axis)) for axis in known.reshape(-1)]

    def _signature(self) -> list[str]:
        return list(inspect.signature(self.layer.function).parameters)

    def tensor(self, factors: Iterable[Optional[np.ndarray]], output: int = 0) -> TracedTensor:
        """Returns an output with the given factors; None and channel-free ones are dropped."""
        factors = [compress(self.channels, f) for f in factors if f is not None]
        return self.outputs[output].with_factors(f for f in factors if f is not None)

    def vector(self, ids: Optional[np.ndarray], axis: int, output: int = 0) -> Optional[np.ndarray]:
        """Returns a factor for an output that has channels `ids` along `axis` only."""
        if ids is None:
            return None
        shape = [1] * self.outputs[output].rank
        shape[axis] = -1
        return np.reshape(ids, shape)

    def same(self, tensor: TracedTensor) -> TracedTensor:
        """Returns the output of a layer that acts on each element of `tensor` by itself."""
        return self.tensor(tensor.factors)

    def opaque(self, reason: str) -> list[TracedTensor]:
        """Fixes all inputs; the outputs belong to no removable channel."""
        for tensor in self.inputs:
            self.fix(tensor, reason)
        return list(self.outputs)

    # -- Constraints -----------------------------------------------------------------------------

    def fix(self, tensor: TracedTensor, reason: str) -> None:
        """Keeps all channels of a tensor."""
        for factor in tensor.factors:
            self.channels.fix(factor, reason)

    def unify(self, first: np.ndarray, second: np.ndarray, reason: str) -> None:
        """Makes channels equal element by element, see `Channels.unify`."""
        self.channels.unify(first, second, reason)

    def mix(self, tensor: TracedTensor, axes: Iterable[int], reason: str) -> TracedTensor:
        """Says that the layer mixes positions along `axes`, as a pooling or a softmax does.

        Channels that differ along these axes become one; if nothing then tells two positions of
        the tensor apart, they are fixed.

        Args:
          tensor: The input.
          axes: The mixed axes.
          reason: Why the channels must stay if they lie along these axes.

        Returns:
          The tensor, whose factors are constant along `axes`.
        """
        axes = {tensor.axis(axis) for axis in axes}
        factors = []
        for factor in self.factors_of(tensor):
            mixed = axes & set(varying(factor))
            if mixed and mixed == set(varying(factor)):
                self.channels.fix(factor, reason)
                continue
            for axis in mixed:
                self.unify(factor, np.take(factor, [0], axis=axis), reason)
            factor = compress(self.channels, factor) if mixed else factor
            if factor is None or (mixed and not varying(factor)):
                if factor is not None:
                    self.channels.fix(factor, reason)
                continue
            factors.append(factor)
        return tensor.with_factors(factors)

    def along(self, tensor: TracedTensor, axis: int) -> Optional[np.ndarray]:
        """Returns the channels along one axis of a tensor.

        Positions along the other axes that share a place on this axis are made one, because a
        weight that this axis is tied to has one place for all of them.

        Args:
          tensor: The tensor.
          axis: The axis.

        Returns:
          Channel numbers, int64 [size of the axis], or None if no channel lies along the axis.
        """
        axis = tensor.axis(axis)
        why = f"shares a place in '{self.path}' with values that must stay"
        found = None
        for factor in self.factors_of(tensor):
            if not varying(factor):
                self.channels.fix(
                    factor, f"is one with all others that '{self.path}' reads, so none can go alone"
                )
            if axis not in varying(factor):
                continue
            others = tuple(a for a in varying(factor) if a != axis)
            first = factor
            for other in others:
                first = np.take(first, [0], axis=other)
            self.unify(factor, first, why)
            vector = self.channels.find(first.reshape(-1))
            if found is not None:
                self.unify(found, vector, why)
            found = vector
        return None if found is None else self.channels.find(found)

    def factors_of(self, tensor: TracedTensor) -> list[np.ndarray]:
        """Returns the factors of a tensor as they are now, after all unifications."""
        factors = (compress(self.channels, factor) for factor in tensor.factors)
        return [factor for factor in factors if factor is not None]

    def elementwise(self, tensors: Sequence[TracedTensor], reason: str = "") -> TracedTensor:
        """Returns the output of an operation on the elements of several tensors, with broadcasting.

        A tensor of size 1 along an axis is spread over the others' channels and does not hold them.
        Otherwise channels at the same place become one.
        """
        reason = reason or f"meets values that must stay in '{self.path}'"
        rank = self.outputs[0].rank
        tensors = [_pad(tensor, rank) for tensor in tensors]
        result: list[np.ndarray] = []
        for index, tensor in enumerate(tensors):
            for factor in self.factors_of(tensor):
                axes = varying(factor)
                spread = any(
                    size == 1 and any(other.shape[axis] != 1 for other in tensors)
                    for axis, size in enumerate(tensor.shape)
                )
                if not axes and spread:
                    self.channels.fix(
                        factor, f"is one channel that '{self.path}' spreads over several"
                    )
                    continue
                for other in tensors[:index] + tensors[index + 1 :]:
                    self._match(factor, axes, other, reason)
                result.append(factor)
        return self.tensor(_distinct(self.channels, result))

    def _match(
        self, factor: np.ndarray, axes: Sequence[int], other: TracedTensor, reason: str
    ) -> None:
        if axes and all(other.shape[axis] == 1 for axis in axes):
            return
        partners = [
            partner
            for partner in self.factors_of(other)
            if set(varying(partner)) & set(axes) or not (axes or varying(partner))
        ]
        for partner in partners:
            self.unify(factor, partner, reason)
        if not partners:
            self.channels.fix(factor, reason)

    # -- Weights and settings --------------------------------------------------------------------

    def produce(self, weight: tf.Variable, axis: int, copies: int = 1) -> np.ndarray:
        """Returns the channels that an axis of a weight makes, the same for every call.

        Args:
          weight: The weight.
          axis: The axis.
          copies: How often the axis has each filter (once for each gate of an LSTM).
        """
        return self.record.produce(self.path, self.layer, weight, axis, copies)

    def consume(self, weight: tf.Variable, axis: int, ids: Optional[np.ndarray]) -> None:
        """Ties an axis of a weight that sums over channels; None ties nothing."""
        self.record.tie(self.path, self.layer, weight, axis, ids, Role.CONSUMER)

    def carry(self, weight: tf.Variable, axis: int, ids: Optional[np.ndarray]) -> None:
        """Ties an axis of a weight that has one value for each channel; None ties nothing."""
        self.record.tie(self.path, self.layer, weight, axis, ids, Role.PASSENGER)

    def follow(self, ids: Optional[np.ndarray]) -> None:
        """Says that `ids` have a place of their own outside weights, which must not get empty."""
        if ids is not None:
            self.record.tie(self.path, self.layer, None, 0, ids, Role.PASSENGER)

    def configure(self, edit: Callable[[dict[str, Any], Kept], None]) -> None:
        """Registers a change of the layer's configuration.

        Args:
          edit: Called with the configuration (to be changed in place) and a function that tells for
            channel numbers which positions stay.
        """
        self.record.configure(self.layer, edit)

    def resize(self, setting: str, ids: Optional[np.ndarray]) -> None:
        """Sets a setting of the layer to the number of positions of `ids` that stay."""
        if ids is not None:
            ids = np.array(ids)

            def edit(config: dict[str, Any], kept: Kept) -> None:
                config[setting] = int(kept(ids).sum())

            self.configure(edit)

    def replace_argument(self, name: Union[str, int], edit: Callable[[Any, Kept], Any]) -> None:
        """Registers a change of a constant argument of this call.

        Args:
          name: The argument's name in the operator's signature, or its position.
          edit: Called with the old value and `kept` as in `configure`; returns the new value.
        """
        if isinstance(name, str) and name not in self.kwargs:
            name = self._signature().index(name)
        self.record.replace_argument(self.node, name, edit)

    def activation(self, function: Any, tensor: TracedTensor, axis: int = -1) -> TracedTensor:
        """Applies an `activation=` setting to the traced output.

        Args:
          function: Function, layer or None.
          tensor: What it is applied to.
          axis: The axis that softmax and its kind mix.

        Returns:
          The traced result; `tensor` is fixed if the function is not known to act on single values.
        """
        if function is None or registry.is_elementwise(function):
            return tensor
        if isinstance(function, tf.keras.layers.Layer) and not function.weights:
            rule = registry.layer_rule(function)
            if rule is not None:
                call = Call(
                    self.record, function, self.path, [tensor], {}, [tensor.with_factors(())]
                )
                return rule(call)
        name = getattr(function, "__name__", type(function).__name__)
        reason = f"passes through {name}, which mixes channels"
        if name not in _MIXING:
            reason = (
                f"passes through the function '{name}' in '{self.path}', which may mix channels; "
                "if it acts on each value by itself, say so with surgery.register_activation"
            )
        return self.mix(tensor, [axis], reason)

    def part(self, name: str) -> Call:
        """Returns a view of this call whose ties are named after a part of the layer."""
        path = f"{self.path}/{name}"
        return Call(self.record, self.layer, path, self.args, self.kwargs, self.outputs, self.node)

    def subcall(
        self,
        layer: tf.keras.layers.Layer,
        args: Sequence[Any],
        outputs: Sequence[TracedTensor],
        times: int = 1,
    ) -> list[TracedTensor]:
        """Traces a layer inside this one, as wrappers have it.

        Args:
          layer: The inner layer.
          args: Its arguments with traced tensors.
          outputs: Its outputs without channels.
          times: How often one call of this layer calls it (once for each time step).
        """
        return self.record.walk(layer, f"{self.path}/{layer.name}", args, outputs, times)


def _pad(tensor: TracedTensor, rank: int) -> TracedTensor:
    # Keras aligns operands of unequal rank behind the batch axis, NumPy in front: without known
    # channels on the batch axis both are a padding with ones.
    missing = rank - tensor.rank
    if missing <= 0:
        return tensor
    shape = (1,) * missing + tuple(tensor.shape)
    factors = tuple(f.reshape((1,) * missing + f.shape) for f in tensor.factors)
    return TracedTensor(shape, factors, tensor.dtype)


def _distinct(channels: Any, factors: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Returns the factors without repetitions, after all unifications."""
    result: list[np.ndarray] = []
    for factor in factors:
        factor = compress(channels, factor)
        if factor is None:
            continue
        if not any(f.shape == factor.shape and np.array_equal(f, factor) for f in result):
            result.append(factor)
    return result

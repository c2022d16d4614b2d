"""Calls a Keras model as a pure function of its weights.

    call(model, trainable, non_trainable, x) -> outputs, new non-trainable

TFF's own wrappers hide the forward pass in a nested `tf.function` or read and assign variables in
every step. Neither is needed: while the model is traced, each variable is replaced by a tensor, so
that the whole client loop becomes one graph over tensors, which the runtime can prune and optimize.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Optional

import tensorflow as tf

from tff_autoprune.errors import UserError
from tff_autoprune.models import graph

# Where Keras' random layers (dropout, noise, augmentation) keep their generator.
_GENERATOR = "_random_generator"


class TensorVariable:
    """Stands for a variable that a layer assigns while it is called (e.g. a moving average).

    Assignments replace the tensor it holds; nothing is written anywhere.
    """

    def __init__(self, value: tf.Tensor, read_dtype: Optional[tf.DType] = None):
        """Starts with `value`, which is read as `read_dtype` if that is given."""
        self.value = value
        self._read_dtype = read_dtype or value.dtype

    @property
    def dtype(self) -> tf.DType:
        """The data type in which the value is read."""
        return self._read_dtype

    @property
    def shape(self) -> tf.TensorShape:
        """The static shape of the value."""
        return self.value.shape

    def assign(self, value: Any, **unused: Any) -> tf.Tensor:
        """Replaces the value."""
        self.value = tf.cast(value, self.value.dtype)
        return self.value

    def assign_add(self, delta: Any, **unused: Any) -> tf.Tensor:
        """Adds to the value."""
        return self.assign(self.value + tf.cast(delta, self.value.dtype))

    def assign_sub(self, delta: Any, **unused: Any) -> tf.Tensor:
        """Subtracts from the value."""
        return self.assign(self.value - tf.cast(delta, self.value.dtype))

    def read_value(self) -> tf.Tensor:
        """Returns the value."""
        return tf.cast(self.value, self._read_dtype)

    def __tf_tensor__(self, dtype: Optional[tf.DType] = None, name: Optional[str] = None):
        """Lets every TensorFlow operation take this object for its value."""
        del name
        return tf.cast(self.value, dtype or self._read_dtype)


def _overload(name: str) -> None:
    def operator(self: TensorVariable, *arguments: Any) -> tf.Tensor:
        return getattr(self.read_value(), name)(*arguments)

    setattr(TensorVariable, name, operator)


# Everything that a tensor can do with an operator: + - * / @ [] < ...
for _name in tf.Tensor.OVERLOADABLE_OPERATORS:
    _overload(_name)


class SeededGenerator:
    """Stands for a layer's random generator: stateless, so that a round can be repeated.

    Keras' own generators keep a variable or depend on what ran before.
    """

    def __init__(self, seed: tf.Tensor, layer_number: int):
        self._seed = tf.random.experimental.stateless_fold_in(seed, layer_number)
        self._calls = 0

    def _maybe_init(self) -> None:
        pass

    def make_seed_for_stateless_op(self) -> tf.Tensor:
        self._calls += 1
        return tf.random.experimental.stateless_fold_in(self._seed, self._calls)

    def make_legacy_seed(self) -> None:
        return None

    def dropout(self, inputs: tf.Tensor, rate: float, noise_shape: Any = None) -> tf.Tensor:
        return tf.nn.experimental.stateless_dropout(
            inputs, rate, seed=self.make_seed_for_stateless_op(), noise_shape=noise_shape
        )

    def random_uniform(
        self, shape: Any, minval: float = 0.0, maxval: Any = None, dtype: Any = None, **unused: Any
    ) -> tf.Tensor:
        return tf.random.stateless_uniform(
            shape, self.make_seed_for_stateless_op(), minval, maxval, dtype or tf.float32
        )

    def random_normal(
        self, shape: Any, mean: float = 0.0, stddev: float = 1.0, dtype: Any = None, **unused: Any
    ) -> tf.Tensor:
        return tf.random.stateless_normal(
            shape, self.make_seed_for_stateless_op(), mean, stddev, dtype or tf.float32
        )

    def truncated_normal(
        self, shape: Any, mean: float = 0.0, stddev: float = 1.0, dtype: Any = None, **unused: Any
    ) -> tf.Tensor:
        return tf.random.stateless_truncated_normal(
            shape, self.make_seed_for_stateless_op(), mean, stddev, dtype or tf.float32
        )


@dataclasses.dataclass(frozen=True)
class _Slot:
    """Where a layer keeps one of its variables: `container[key]`."""

    layer: tf.keras.layers.Layer
    container: Any
    key: Any

    def put(self, value: Any) -> Any:
        old = self.container[self.key]
        self.container[self.key] = value
        return old


def _read_dtype(variable: tf.Variable, layer: tf.keras.layers.Layer) -> tf.DType:
    """Returns the type in which a layer reads a variable.

    Under a mixed precision policy weights are float32, computations are not, and most of Keras'
    variables cast themselves.
    """
    casts = hasattr(variable, "_should_cast")
    return tf.as_dtype(layer.compute_dtype) if casts else variable.dtype


def _find_slots(model: tf.keras.Model) -> dict[int, list[_Slot]]:
    """Finds every place that holds a weight, by the variable's id."""
    wanted = {id(v) for v in model.weights}
    slots: dict[int, list[_Slot]] = {}
    for layer in model._flatten_layers(include_self=True, recursive=True):
        # The bookkeeping lists of Keras are not read in a call.
        for name, value in vars(layer).items():
            if name in ("_trainable_weights", "_non_trainable_weights", "_self_tracked_trackables"):
                continue
            if id(value) in wanted:
                slots.setdefault(id(value), []).append(_Slot(layer, vars(layer), name))
            elif isinstance(value, (list, dict)):
                items = value.items() if isinstance(value, dict) else enumerate(value)
                for key, item in items:
                    if id(item) in wanted:
                        slots.setdefault(id(item), []).append(_Slot(layer, value, key))
    return slots


def _find_generators(model: tf.keras.Model) -> list[_Slot]:
    """Finds every place that holds a random generator."""
    return [
        _Slot(layer, vars(layer), _GENERATOR)
        for layer in model._flatten_layers(include_self=True, recursive=True)
        if _GENERATOR in vars(layer)
    ]


def _spec(variable: tf.Variable) -> tf.TensorSpec:
    return tf.TensorSpec(variable.shape, variable.dtype)


class StatelessModel:
    """A Keras model as a pure function of its weights.

    Attributes:
      model: The model; neither its variables nor its layers are changed by a call.
      trainable: Specs of its trainable weights, in the order of `model.trainable_weights`.
      non_trainable: Specs of the others, in the order of `model.non_trainable_weights`.
    """

    def __init__(
        self,
        model: tf.keras.Model,
        *,
        generator: Callable[[tf.Tensor, int], Any] = SeededGenerator,
    ):
        """Prepares a built model.

        Args:
          model: The model.
          generator: Makes, from a call's seed and a layer's number, what draws random numbers for
            that layer.

        Raises:
          UserError: If the model is not built, has no graph, or a layer keeps a weight where it
            cannot be replaced.
        """
        graph.check_graph(model)
        self.model = model
        self._slots = _find_slots(model)
        self._generators = _find_generators(model)
        self._generator = generator
        for variable in model.weights:
            if id(variable) not in self._slots:
                raise UserError(
                    f"model: the weight {variable.name} is not an attribute of its layer, so the"
                    " federated engine cannot train it; keep it as `self.NAME` or in a list or dict"
                    " of the layer."
                )
        self.trainable = tuple(map(_spec, model.trainable_weights))
        self.non_trainable = tuple(map(_spec, model.non_trainable_weights))

    @property
    def has_randomness(self) -> bool:
        """Whether a layer draws random numbers."""
        return bool(self._generators)

    @contextlib.contextmanager
    def _replaced(
        self,
        trainable: Sequence[tf.Tensor],
        assignable: Sequence[TensorVariable],
        seed: Optional[tf.Tensor],
    ) -> Iterator[None]:
        undo = []
        try:
            if seed is not None:
                for number, slot in enumerate(self._generators):
                    undo.append((slot, slot.put(self._generator(seed, number))))
            for variable, value in zip(list(self.model.trainable_weights), trainable):
                for slot in self._slots[id(variable)]:
                    read = tf.cast(value, _read_dtype(variable, slot.layer))
                    undo.append((slot, slot.put(read)))
            for variable, value in zip(list(self.model.non_trainable_weights), assignable):
                undo.extend((slot, slot.put(value)) for slot in self._slots[id(variable)])
            yield
        finally:
            for slot, old in reversed(undo):
                slot.put(old)

    def __call__(
        self,
        trainable: Sequence[tf.Tensor],
        non_trainable: Sequence[tf.Tensor],
        inputs: Any,
        *,
        training: bool,
        seed: Optional[tf.Tensor] = None,
    ) -> tuple[tf.Tensor, tuple[tf.Tensor, ...]]:
        """Calls the model with the given weights.

        Args:
          trainable: Aligned with `model.trainable_weights`.
          non_trainable: Aligned with `model.non_trainable_weights`.
          inputs: A batch; several inputs in the order of `model.inputs`.
          training: Whether layers behave as in training.
          seed: int32 [2] that all randomness (dropout, augmentation) derives from; needed if
            `has_randomness` and `training`.

        Returns:
          The outputs, and the non-trainable weights as the layers assigned them.
        """
        assignable = [
            TensorVariable(value, _read_dtype(variable, self._slots[id(variable)][0].layer))
            for variable, value in zip(self.model.non_trainable_weights, non_trainable)
        ]
        with self._replaced(trainable, assignable, seed):
            packed = tf.nest.pack_sequence_as(self.model.input, tf.nest.flatten(inputs))
            outputs = self.model(packed, training=training)
        return outputs, tuple(v.value for v in assignable)

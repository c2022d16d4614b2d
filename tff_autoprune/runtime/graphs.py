"""TensorFlow graphs of TFF computations as Python callables.

A graph without variables becomes one concrete function: TensorFlow inlines the functions nested in
it, prunes what is not needed and fuses the rest, which TFF's C++ runtime does not do. A graph with
variables or tables (stock TFF models) runs in sessions of its own, one for each concurrent call,
because two clients must never share a variable.
"""

from __future__ import annotations

import abc
import itertools
import queue
import weakref
from collections.abc import Iterator, Sequence
from typing import Any

import tensorflow as tf
import tensorflow_federated as tff
from tensorflow.python.eager import context
from tensorflow_federated.proto.v0 import computation_pb2
from tensorflow_federated.python.core.impl.types import type_conversions, type_serialization
from tensorflow_federated.python.core.impl.utils import tensorflow_utils
from tensorflow_federated.python.tensorflow_libs import serialization_utils

_Binding = computation_pb2.TensorFlow.Binding


def load(computation: computation_pb2.Computation) -> GraphFunction:
    """Makes a TensorFlow computation callable.

    Args:
      computation: Of kind "tensorflow".

    Returns:
      A function from argument to result in the representation of `values`; safe to call from
      several threads at once.
    """
    graph_def = serialization_utils.unpack_graph_def(computation.tensorflow.graph_def)
    stateful = computation.tensorflow.initialize_op or any(
        node.op == "VarHandleOp" for node in graph_def.node
    )
    return (_SessionFunction if stateful else _ConcreteFunction)(computation, graph_def)


def _flatten(value: Any, binding: _Binding) -> Iterator[Any]:
    kind = binding.WhichOneof("binding")
    if kind == "struct":
        for element, element_binding in zip(value, binding.struct.element):
            yield from _flatten(element, element_binding)
    else:
        yield value


def _pack(flat: Iterator[Any], binding: _Binding) -> Any:
    if binding.WhichOneof("binding") == "struct":
        return tuple(_pack(flat, element) for element in binding.struct.element)
    return next(flat)


def _sequence_specs(type_spec: tff.Type, binding: _Binding) -> Iterator[Any]:
    """Yields the element spec of each sequence in a result, None for a tensor."""
    kind = binding.WhichOneof("binding")
    if kind == "struct":
        for element_type, element in zip(type_spec, binding.struct.element):
            yield from _sequence_specs(element_type, element)
    elif kind == "sequence":
        yield type_conversions.type_to_tf_structure(type_spec.element)
    else:
        yield None


def _kinds(binding: _Binding) -> set[str]:
    kind = binding.WhichOneof("binding")
    if kind == "struct":
        return set().union(*map(_kinds, binding.struct.element))
    return {kind}


def _names(binding: _Binding) -> list[str]:
    if binding.WhichOneof("binding") is None:
        return []
    return tensorflow_utils.extract_tensor_names_from_binding(binding)


_serial = itertools.count()


def _with_unique_functions(graph_def: tf.compat.v1.GraphDef) -> tf.compat.v1.GraphDef:
    """Renames the functions of a graph: eagerly, all of a process share one name space."""
    prefix = f"tff_{next(_serial)}_"
    names = {f.signature.name: prefix + f.signature.name for f in graph_def.library.function}
    renamed = tf.compat.v1.GraphDef()
    renamed.CopyFrom(graph_def)
    for function in renamed.library.function:
        function.signature.name = names[function.signature.name]
    for gradient in renamed.library.gradient:
        gradient.function_name = names[gradient.function_name]
        gradient.gradient_func = names[gradient.gradient_func]
    for nodes in (renamed.node, *(f.node_def for f in renamed.library.function)):
        for node in nodes:
            node.op = names.get(node.op, node.op)
            for attr in node.attr.values():
                for function in (attr.func, *attr.list.func):
                    if function.name in names:
                        function.name = names[function.name]
    return renamed


def _register_functions(graph_def: tf.compat.v1.GraphDef) -> list[str]:
    for function in graph_def.library.function:
        context.context().add_function_def(function)
    return [function.signature.name for function in graph_def.library.function]


def _forget_functions(names: Sequence[str]) -> None:
    for name in names:
        context.context().remove_function(name)


class GraphFunction(abc.ABC):
    """A TensorFlow computation that can be called; see `load`.

    Attributes:
      computation: What it was loaded from.
      takes_sequences: Whether it reads data sets, as only the work of a client does.
    """

    def __init__(
        self, computation: computation_pb2.Computation, graph_def: tf.compat.v1.GraphDef
    ) -> None:
        tensorflow = computation.tensorflow
        function_type = type_serialization.deserialize_type(computation.type)
        self.computation = computation
        self.graph_def = graph_def
        self.has_parameter = tensorflow.HasField("parameter")
        self.parameter = tensorflow.parameter
        self.result = tensorflow.result
        self.input_names = _names(tensorflow.parameter) if self.has_parameter else []
        self.output_names = _names(tensorflow.result)
        self.takes_sequences = "sequence" in _kinds(self.parameter)
        self.output_specs = list(_sequence_specs(function_type.result, tensorflow.result))
        self.initialize_op = tensorflow.initialize_op

    @abc.abstractmethod
    def __call__(self, argument: Any) -> Any:
        """Runs the graph."""

    def flatten(self, argument: Any) -> list[Any]:
        """Returns the leaves of an argument, aligned with `input_names`."""
        return list(_flatten(argument, self.parameter)) if self.has_parameter else []

    def pack(self, outputs: Sequence[Any]) -> Any:
        """Returns the result whose leaves are `outputs`."""
        values = (
            output if spec is None else tf.data.experimental.from_variant(output, spec)
            for output, spec in zip(outputs, self.output_specs)
        )
        return _pack(values, self.result)


class _ConcreteFunction(GraphFunction):
    """A graph without state, as one concrete function."""

    def __init__(self, computation, graph_def):
        super().__init__(computation, _with_unique_functions(graph_def))
        # Importing a graph makes its functions known to the graph they are imported into, not to
        # the runtime, which needs them when it lowers conditionals and loops.
        weakref.finalize(self, _forget_functions, _register_functions(self.graph_def))
        nodes = {node.name: node for node in graph_def.node}
        specs = []
        for name in self.input_names:
            attr = nodes[name.split(":")[0]].attr
            dtype = tf.DType(attr["dtype"].type)
            specs.append(tf.TensorSpec(tf.TensorShape(attr["shape"].shape), dtype))

        @tf.function(input_signature=specs, autograph=False)
        def function(*inputs):
            return tf.graph_util.import_graph_def(
                self.graph_def,
                input_map=dict(zip(self.input_names, inputs)),
                return_elements=self.output_names,
                name="",
            )

        self._function = function.get_concrete_function()
        self._dtypes = [spec.dtype for spec in specs]
        del self.graph_def

    def __call__(self, argument: Any) -> Any:
        inputs = [
            tf.data.experimental.to_variant(value)
            if isinstance(value, tf.data.Dataset)
            else tf.convert_to_tensor(value, dtype)
            for value, dtype in zip(self.flatten(argument), self._dtypes)
        ]
        return self.pack(self._function(*inputs))


class _SessionFunction(GraphFunction):
    """A graph with state, in a pool of sessions whose state starts anew with every call."""

    def __init__(self, computation, graph_def):
        super().__init__(computation, graph_def)
        self._graph = tf.Graph()
        with self._graph.as_default():
            nodes = {node.name: node for node in graph_def.node}
            input_map = {}
            self._feeds = []
            for name in self.input_names:
                dtype = tf.DType(nodes[name.split(":")[0]].attr["dtype"].type)
                if dtype == tf.variant:
                    # A session takes a data set as the graph that makes it.
                    feed = tf.compat.v1.placeholder(tf.string, ())
                    input_map[name] = tf.raw_ops.DatasetFromGraph(graph_def=feed)
                else:
                    feed = input_map[name] = tf.compat.v1.placeholder(dtype)
                self._feeds.append(feed)
            outputs = tf.graph_util.import_graph_def(
                graph_def, input_map=input_map, return_elements=self.output_names, name=""
            )
            self._fetches = [
                output if spec is None else tf.raw_ops.DatasetToGraphV2(input_dataset=output)
                for output, spec in zip(outputs, self.output_specs)
            ]
        self._graph.finalize()
        self._sessions: queue.SimpleQueue = queue.SimpleQueue()

    def __call__(self, argument: Any) -> Any:
        feeds = {
            feed: tf.raw_ops.DatasetToGraphV2(
                input_dataset=tf.data.experimental.to_variant(value)
            ).numpy()
            if isinstance(value, tf.data.Dataset)
            else value.numpy()
            if isinstance(value, tf.Tensor)
            else value
            for feed, value in zip(self._feeds, self.flatten(argument))
        }
        try:
            session = self._sessions.get_nowait()
        except queue.Empty:
            session = tf.compat.v1.Session(graph=self._graph)
        try:
            if self.initialize_op:
                session.run(self.initialize_op, feeds)
            outputs = session.run(self._fetches, feeds)
        finally:
            self._sessions.put(session)
        return self.pack(
            [
                output if spec is None else tf.raw_ops.DatasetFromGraph(graph_def=output)
                for output, spec in zip(outputs, self.output_specs)
            ]
        )

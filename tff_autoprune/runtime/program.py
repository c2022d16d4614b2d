"""Compiles a TFF computation to nested Python closures.

    Computation proto ──compile──> Program: (cohort, names in scope) -> value

Compiling walks the computation once and loads its TensorFlow graphs; a run walks only closures.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tensorflow_federated.proto.v0 import computation_pb2
from tensorflow_federated.python.core.impl.compiler import array

from tff_autoprune.runtime import graphs
from tff_autoprune.runtime.intrinsics import INTRINSICS, Clients

Scope = Mapping[str, Any]
Program = Callable[[Clients, Scope], Any]


def compile_computation(computation: computation_pb2.Computation) -> Program:
    """Compiles a computation.

    Args:
      computation: Of any kind TFF has, apart from those named under Raises.

    Returns:
      A program to be called with the cohort and the values of free names ({} for none). Values are
      represented as in `values`.

    Raises:
      NotImplementedError: If the computation has an operator that is not supported here.
    """
    return _compile(computation, {})


def _compile(computation: computation_pb2.Computation, graph_cache: dict[bytes, Any]) -> Program:
    kind = computation.WhichOneof("computation")
    try:
        compiler = _COMPILERS[kind]
    except KeyError:
        raise NotImplementedError(f"Computations of kind {kind!r} cannot run here.") from None
    return compiler(computation, graph_cache)


def _compile_tensorflow(computation, graph_cache) -> Program:
    # The same graph often occurs several times, e.g. an addition in each of many sums.
    key = computation.SerializeToString(deterministic=True)
    if key not in graph_cache:
        graph_cache[key] = graphs.load(computation)
    function = graph_cache[key]
    return lambda cohort, scope: function


def _compile_intrinsic(computation, graph_cache) -> Program:
    uri = computation.intrinsic.uri
    if uri not in INTRINSICS:
        raise NotImplementedError(
            f"The TFF operator {uri!r} cannot run in this process; supported are"
            f" {', '.join(INTRINSICS)}. Use TFF's own runtime for it:"
            " tff.backends.native.set_sync_local_cpp_execution_context()."
        )
    intrinsic = INTRINSICS[uri]
    return lambda cohort, scope: lambda argument: intrinsic(cohort, argument)


def _compile_reference(computation, graph_cache) -> Program:
    name = computation.reference.name
    return lambda cohort, scope: scope[name]


def _compile_lambda(computation, graph_cache) -> Program:
    function = getattr(computation, "lambda")
    name = function.parameter_name
    result = _compile(function.result, graph_cache)
    if not name:
        return lambda cohort, scope: lambda argument: result(cohort, scope)
    return lambda cohort, scope: lambda argument: result(cohort, {**scope, name: argument})


def _compile_call(computation, graph_cache) -> Program:
    function = _compile(computation.call.function, graph_cache)
    if not computation.call.HasField("argument"):
        return lambda cohort, scope: function(cohort, scope)(None)
    argument = _compile(computation.call.argument, graph_cache)
    return lambda cohort, scope: function(cohort, scope)(argument(cohort, scope))


def _compile_block(computation, graph_cache) -> Program:
    block_locals = [
        (local.name, _compile(local.value, graph_cache)) for local in computation.block.local
    ]
    result = _compile(computation.block.result, graph_cache)

    def run(cohort: Clients, scope: Scope) -> Any:
        inner = dict(scope)
        for name, value in block_locals:
            inner[name] = value(cohort, inner)
        return result(cohort, inner)

    return run


def _compile_struct(computation, graph_cache) -> Program:
    elements = [_compile(element.value, graph_cache) for element in computation.struct.element]
    return lambda cohort, scope: tuple(element(cohort, scope) for element in elements)


def _compile_selection(computation, graph_cache) -> Program:
    source = _compile(computation.selection.source, graph_cache)
    index = computation.selection.index
    return lambda cohort, scope: source(cohort, scope)[index]


def _compile_literal(computation, graph_cache) -> Program:
    value = array.from_proto(computation.literal.value)
    return lambda cohort, scope: value


_COMPILERS: dict[str, Callable[..., Program]] = {
    "block": _compile_block,
    "call": _compile_call,
    "intrinsic": _compile_intrinsic,
    "lambda": _compile_lambda,
    "literal": _compile_literal,
    "reference": _compile_reference,
    "selection": _compile_selection,
    "struct": _compile_struct,
    "tensorflow": _compile_tensorflow,
}

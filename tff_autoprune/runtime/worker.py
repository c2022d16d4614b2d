"""Serves TFF's executor protocol on one address, with this package's own execution.

TFF's `worker_binary` cannot be told which interface to listen on and has no authentication; this
service binds to exactly the address it is given and can demand certificates. It runs any TensorFlow
graph that a permitted coordinator sends: whoever may connect may do all that this user may.
"""

from __future__ import annotations

import collections
import concurrent.futures
import ipaddress
import itertools
import threading
from collections.abc import Callable
from typing import Any, Optional

import grpc
import tensorflow_federated as tff
from tensorflow_federated.proto.v0 import executor_pb2, executor_pb2_grpc
from tensorflow_federated.python.core.impl.executors import value_serialization

from tff_autoprune.errors import UserError
from tff_autoprune.runtime import program, values
from tff_autoprune.runtime.intrinsics import Clients
from tff_autoprune.runtime.remote import CHANNEL_OPTIONS, Tls

# A coordinator that dies never frees its values; the oldest are dropped for new ones.
_MAX_EXECUTORS = 16
_MAX_CALLS = 64


class _Executor:
    """The values of one coordinator."""

    def __init__(self, cohort: Clients) -> None:
        self.cohort = cohort
        self.values: dict[str, tuple[Any, tff.Type]] = {}


class _Service(executor_pb2_grpc.ExecutorGroupServicer):
    """TFF's executor protocol."""

    def __init__(self, clients_at_once: int) -> None:
        self._pool = concurrent.futures.ThreadPoolExecutor(clients_at_once, "tff_client")
        self._slots = threading.BoundedSemaphore(clients_at_once)
        self._executors: collections.OrderedDict[str, _Executor] = collections.OrderedDict()
        self._ids = itertools.count()
        self._lock = threading.Lock()

    def _executor(self, request: Any, context: grpc.ServicerContext) -> _Executor:
        with self._lock:
            try:
                executor = self._executors[request.executor.id]
            except KeyError:
                context.abort(
                    grpc.StatusCode.FAILED_PRECONDITION,
                    f"There is no executor {request.executor.id!r} here.",
                )
            self._executors.move_to_end(request.executor.id)
            return executor

    def _answer(
        self, request: Any, context: grpc.ServicerContext, make: Callable[[_Executor], Any]
    ) -> executor_pb2.ValueRef:
        executor = self._executor(request, context)
        try:
            value = make(executor)
        except Exception as error:  # Whatever a graph raises belongs to whoever sent it.
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"{type(error).__name__}: {error}")
        reference = str(next(self._ids))
        executor.values[reference] = value
        return executor_pb2.ValueRef(id=reference)

    def GetExecutor(self, request, context):
        """Makes an executor for a cohort."""
        cardinalities = value_serialization.deserialize_cardinalities(request.cardinalities)
        key = f"executor_{next(self._ids)}"
        with self._lock:
            cohort = Clients(cardinalities.get(tff.CLIENTS, 0), self._pool)
            self._executors[key] = _Executor(cohort)
            while len(self._executors) > _MAX_EXECUTORS:
                self._executors.popitem(last=False)
        return executor_pb2.GetExecutorResponse(executor=executor_pb2.ExecutorId(id=key))

    def CreateValue(self, request, context):
        """Embeds a computation or an argument."""

        def make(executor):
            value, type_spec = value_serialization.deserialize_value(request.value)
            if request.value.WhichOneof("value") == "computation":
                run = program.compile_computation(request.value.computation)
                return run(executor.cohort, {}), type_spec
            return values.embed(value, type_spec, executor.cohort.num_clients), type_spec

        reference = self._answer(request, context, make)
        return executor_pb2.CreateValueResponse(value_ref=reference)

    def CreateCall(self, request, context):
        """Calls a function and waits for its result."""

        def make(executor):
            function, type_spec = executor.values[request.function_ref.id]
            argument = None
            if request.HasField("argument_ref"):
                argument, _ = executor.values[request.argument_ref.id]
            with self._slots:
                return function(argument), type_spec.result

        reference = self._answer(request, context, make)
        return executor_pb2.CreateCallResponse(value_ref=reference)

    def CreateStruct(self, request, context):
        """Makes a structure of embedded values."""

        def make(executor):
            parts = [(e.name, *executor.values[e.value_ref.id]) for e in request.element]
            types = [(name, t) if name else t for name, _, t in parts]
            return tuple(value for _, value, _ in parts), tff.StructType(types)

        reference = self._answer(request, context, make)
        return executor_pb2.CreateStructResponse(value_ref=reference)

    def CreateSelection(self, request, context):
        """Selects an element of a structure."""

        def make(executor):
            value, type_spec = executor.values[request.source_ref.id]
            return value[request.index], type_spec[request.index]

        reference = self._answer(request, context, make)
        return executor_pb2.CreateSelectionResponse(value_ref=reference)

    def Compute(self, request, context):
        """Returns a value."""
        executor = self._executor(request, context)
        try:
            value, type_spec = executor.values[request.value_ref.id]
            message, _ = value_serialization.serialize_value(
                values.extract(value, type_spec), type_spec
            )
        except Exception as error:  # As in `_answer`.
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"{type(error).__name__}: {error}")
        return executor_pb2.ComputeResponse(value=message)

    def Dispose(self, request, context):
        """Frees values."""
        executor = self._executor(request, context)
        for reference in request.value_ref:
            executor.values.pop(reference.id, None)
        return executor_pb2.DisposeResponse()

    def DisposeExecutor(self, request, context):
        """Frees an executor and all its values."""
        with self._lock:
            self._executors.pop(request.executor.id, None)
        return executor_pb2.DisposeExecutorResponse()


def is_loopback(address: str) -> bool:
    """Returns whether "HOST:PORT" can be reached from this machine only."""
    host = address.rpartition(":")[0].strip("[]")
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def serve(
    address: str, *, clients_at_once: int, tls: Optional[Tls] = None, allow_network: bool = False
) -> tuple[grpc.Server, int]:
    """Starts a worker.

    Args:
      address: "HOST:PORT" to listen on, and nowhere else.
      clients_at_once: Clients that compute at the same time.
      tls: Certificates; coordinators must then show one signed by the authority.
      allow_network: Whether an address that other machines can reach is meant.

    Returns:
      The running server and its port, which differs from the one asked for if that is 0.

    Raises:
      UserError: If the address is reachable from outside without `allow_network`, or cannot be had.
    """
    if not is_loopback(address) and not allow_network:
        raise UserError(
            f"--bind={address} can be reached from other machines, and whoever reaches a worker can"
            " run code on this one. Give --allow_network if that is meant, with the --tls_ flags or"
            " on a network that you trust."
        )
    server = grpc.server(
        # Calls that wait for their turn to compute must not keep out the ones that bring data.
        concurrent.futures.ThreadPoolExecutor(_MAX_CALLS, "grpc"),
        options=(*CHANNEL_OPTIONS, ("grpc.so_reuseport", 0)),
    )
    executor_pb2_grpc.add_ExecutorGroupServicer_to_server(_Service(clients_at_once), server)
    try:
        if tls is None:
            port = server.add_insecure_port(address)
        else:
            authority, certificate, key = tls.read()
            credentials = grpc.ssl_server_credentials(
                [(key, certificate)], authority, require_client_auth=True
            )
            port = server.add_secure_port(address, credentials)
    except RuntimeError:
        port = 0
    if not port:
        raise UserError(f"--bind: {address} is not an address of this machine or is in use.")
    server.start()
    return server, port

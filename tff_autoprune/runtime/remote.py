"""Runs clients on other machines, through TFF's executor protocol.

    Clients.map ──client──> a free worker: CreateValue, CreateCall, Compute ──update──> in order

Only what a client computes from its data travels; aggregation stays here, in the order of the
cohort, so that the result has the bits of a local run whichever worker computed what. A client
whose worker dies is computed by another one.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import queue
import threading
import weakref
from collections.abc import Callable, Sequence
from typing import Any, Optional

import grpc
from absl import logging
from tensorflow_federated.proto.v0 import executor_pb2, executor_pb2_grpc
from tensorflow_federated.python.core.impl.executors import value_serialization
from tensorflow_federated.python.core.impl.types import type_serialization

from tff_autoprune.errors import UserError
from tff_autoprune.runtime import graphs, values
from tff_autoprune.runtime.intrinsics import Clients

_CONNECT_SECONDS = 20
# A client's data may be large; gRPC's default of 4 MB is not meant for that.
CHANNEL_OPTIONS = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    # Notices within seconds that a machine is gone, not only a process.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),
)
_GONE = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED, grpc.StatusCode.ABORTED)


@dataclasses.dataclass(frozen=True)
class Tls:
    """Mutual authentication of workers and coordinator.

    Attributes:
      certificate_authority: PEM file of the authority that signed the other side's certificate.
      certificate: PEM file of one's own certificate.
      key: PEM file of its private key.
    """

    certificate_authority: str
    certificate: str
    key: str

    def read(self) -> tuple[bytes, bytes, bytes]:
        """Returns the contents of the three files.

        Raises:
          UserError: If one cannot be read.
        """
        contents = []
        for path in (self.certificate_authority, self.certificate, self.key):
            try:
                with open(path, "rb") as file:
                    contents.append(file.read())
            except OSError as error:
                raise UserError(f"TLS: {path} cannot be read: {error.strerror}.") from error
        return contents[0], contents[1], contents[2]


class _Worker:
    """A connection to one worker."""

    def __init__(self, address: str, tls: Optional[Tls]) -> None:
        self.address = address
        if tls is None:
            self._channel = grpc.insecure_channel(address, options=CHANNEL_OPTIONS)
        else:
            authority, certificate, key = tls.read()
            credentials = grpc.ssl_channel_credentials(authority, key, certificate)
            self._channel = grpc.secure_channel(address, credentials, options=CHANNEL_OPTIONS)
        self._stub = executor_pb2_grpc.ExecutorGroupStub(self._channel)
        try:
            grpc.channel_ready_future(self._channel).result(timeout=_CONNECT_SECONDS)
            response = self._stub.GetExecutor(executor_pb2.GetExecutorRequest())
        except (grpc.FutureTimeoutError, grpc.RpcError) as error:
            self._channel.close()
            raise UserError(
                f"workers: {address} does not answer within {_CONNECT_SECONDS} s; start"
                f" `tff-autoprune worker --bind={address}` there"
                f"{'' if tls is None else ' and check the TLS certificates'}."
            ) from error
        self._executor = response.executor
        self._functions: dict[int, executor_pb2.ValueRef] = {}
        self._lock = threading.Lock()
        self._closed = False

    def _create(self, value: executor_pb2.Value) -> executor_pb2.ValueRef:
        request = executor_pb2.CreateValueRequest(executor=self._executor, value=value)
        return self._stub.CreateValue(request).value_ref

    def _function(self, function: graphs.GraphFunction) -> executor_pb2.ValueRef:
        # A graph is sent once, and forgotten over there when it is forgotten here.
        with self._lock:
            key = id(function)
            if key not in self._functions:
                value = executor_pb2.Value(computation=function.computation)
                self._functions[key] = self._create(value)
                # At exit the whole executor is disposed of instead.
                weakref.finalize(function, self._forget, key).atexit = False
            return self._functions[key]

    def _forget(self, key: int) -> None:
        reference = self._functions.pop(key, None)
        if reference is not None and not self._closed:
            self._dispose([reference])

    def _dispose(self, references: Sequence[executor_pb2.ValueRef]) -> None:
        request = executor_pb2.DisposeRequest(executor=self._executor, value_ref=references)
        # Nobody waits for it, and a worker that is gone has nothing to dispose of.
        self._stub.Dispose.future(request)

    def call(self, function: graphs.GraphFunction, argument: Any) -> Any:
        """Computes one client.

        Raises:
          grpc.RpcError: If the worker is gone or the computation fails.
        """
        function_type = type_serialization.deserialize_type(function.computation.type)
        parameter = values.extract(argument, function_type.parameter)
        value, _ = value_serialization.serialize_value(parameter, function_type.parameter)
        function_reference = self._function(function)
        references = [self._create(value)]
        response = self._stub.CreateCall(
            executor_pb2.CreateCallRequest(
                executor=self._executor,
                function_ref=function_reference,
                argument_ref=references[0],
            )
        )
        references.append(response.value_ref)
        computed = self._stub.Compute(
            executor_pb2.ComputeRequest(executor=self._executor, value_ref=references[1])
        )
        self._dispose(references)
        result, _ = value_serialization.deserialize_value(computed.value, function_type.result)
        return values.embed(result, function_type.result, 0)

    def close(self) -> None:
        """Frees what the worker keeps for this connection."""
        self._closed = True
        request = executor_pb2.DisposeExecutorRequest(executor=self._executor)
        try:
            self._stub.DisposeExecutor(request, timeout=1)
        except grpc.RpcError:
            logging.debug("Worker %s was gone before it could be told to forget.", self.address)
        self._channel.close()


class WorkerPool:
    """Workers that clients are spread over.

    Attributes:
      addresses: Of the workers that are alive.
    """

    def __init__(self, addresses: Sequence[str], *, tls: Optional[Tls], at_once: int) -> None:
        """Connects.

        Args:
          addresses: "HOST:PORT" of each.
          tls: Certificates; None connects without encryption or authentication.
          at_once: Clients given to a worker at the same time.

        Raises:
          UserError: If a worker does not answer.
        """
        self._workers = [_Worker(address, tls) for address in addresses]
        self._alive = set(addresses)
        self._free: queue.Queue[Optional[_Worker]] = queue.Queue()
        for _ in range(at_once):
            for worker in self._workers:
                self._free.put(worker)
        self._lock = threading.Lock()
        self.threads = concurrent.futures.ThreadPoolExecutor(at_once * len(addresses), "tff_worker")

    @property
    def addresses(self) -> tuple[str, ...]:
        """Addresses of the workers that are alive."""
        return tuple(sorted(self._alive))

    def call(self, function: graphs.GraphFunction, argument: Any) -> Any:
        """Computes one client on a free worker, and on another one if that dies.

        Raises:
          UserError: If no worker is left.
        """
        while True:
            worker = self._take()
            try:
                result = worker.call(function, argument)
            except grpc.RpcError as error:
                if error.code() not in _GONE:
                    self._free.put(worker)
                    raise RuntimeError(
                        f"A client's computation failed on worker {worker.address}:"
                        f" {error.details()}"
                    ) from error
                self._bury(worker)
            except BaseException:
                # Of our own, for example while the argument is serialized: the worker is fine.
                self._free.put(worker)
                raise
            else:
                self._free.put(worker)
                return result

    def _take(self) -> _Worker:
        while True:
            worker = self._free.get()
            if worker is None:
                # For the other threads that wait.
                self._free.put(None)
                raise UserError("workers: none is left; start them again and use --resume.")
            if worker.address in self._alive:
                return worker

    def _bury(self, worker: _Worker) -> None:
        with self._lock:
            if worker.address not in self._alive:
                return
            self._alive.remove(worker.address)
            logging.warning(
                "Worker %s is gone; its clients are computed by the %d that remain.",
                worker.address,
                len(self._alive),
            )
            if not self._alive:
                self._free.put(None)

    def close(self) -> None:
        """Disconnects."""
        self.threads.shutdown(wait=False, cancel_futures=True)
        for worker in self._workers:
            worker.close()


class RemoteClients(Clients):
    """A cohort whose clients' work on data is done by workers."""

    def __init__(
        self,
        num_clients: int,
        pool: concurrent.futures.ThreadPoolExecutor,
        workers: WorkerPool,
    ) -> None:
        """Takes clients; what needs no data runs in `pool`, here."""
        super().__init__(num_clients, pool)
        self._workers = workers

    def map(self, function: Callable[[Any], Any], clients: tuple[Any, ...]) -> tuple[Any, ...]:
        """Applies a function to the value of each client; see `Clients.map`."""
        if not isinstance(function, graphs.GraphFunction) or not function.takes_sequences:
            return super().map(function, clients)
        return self._gather(
            [self._workers.threads.submit(self._workers.call, function, c) for c in clients]
        )

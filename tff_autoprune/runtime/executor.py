"""TFF's executor interface over `program`, so that TFF's own contexts can use it."""

from __future__ import annotations

import concurrent.futures
import weakref
from collections.abc import Mapping
from typing import Any, Optional

import tensorflow_federated as tff
from tensorflow_federated.proto.v0 import computation_pb2
from tensorflow_federated.python.common_libs import structure
from tensorflow_federated.python.core.environments.tensorflow_frontend import (
    tensorflow_computation,
)
from tensorflow_federated.python.core.impl.executors import executor_base, executor_value_base
from tensorflow_federated.python.core.impl.types import type_serialization

from tff_autoprune.runtime import program, remote, values
from tff_autoprune.runtime.intrinsics import Clients


class LocalValue(executor_value_base.ExecutorValue):
    """A value embedded in a `LocalExecutor`."""

    def __init__(self, value: Any, type_spec: tff.Type) -> None:
        """Takes a value in the representation of `values`."""
        self._value = value
        self._type = type_spec

    @property
    def type_signature(self) -> tff.Type:
        """The value's type."""
        return self._type

    @property
    def reference(self) -> Any:
        """The value in the representation of `values`."""
        return self._value

    async def compute(self) -> Any:
        """Returns the value as TFF's contexts return it."""
        return values.extract(self._value, self._type)


class ProgramCache:
    """Programs of the computations that are still in use."""

    def __init__(self) -> None:
        """Starts empty."""
        self._programs: dict[int, program.Program] = {}

    def get(self, computation: tff.framework.ConcreteComputation) -> program.Program:
        """Returns the program of a computation, compiling it the first time."""
        # Not a WeakKeyDictionary: hashing a computation serializes it.
        key = id(computation)
        if key not in self._programs:
            proto = tff.framework.ConcreteComputation.get_proto(computation)
            self._programs[key] = program.compile_computation(proto)
            weakref.finalize(computation, self._programs.pop, key, None)
        return self._programs[key]


class LocalExecutor(executor_base.Executor):
    """Runs computations of one cohort in this process."""

    def __init__(
        self,
        cohort: Clients,
        programs: ProgramCache,
    ) -> None:
        """Makes an executor.

        Args:
          cohort: The clients.
          programs: Shared by the executors of all cohorts.
        """
        self._cohort = cohort
        self._programs = programs

    def close(self) -> None:
        """Does nothing: the pool belongs to the factory."""

    async def create_value(self, value: Any, type_spec: Optional[tff.Type] = None) -> LocalValue:
        """Embeds a computation or an argument."""
        if isinstance(value, tff.framework.ConcreteComputation):
            run = self._programs.get(value)
            return LocalValue(run(self._cohort, {}), value.type_signature)
        if isinstance(value, computation_pb2.Computation):
            run = program.compile_computation(value)
            type_spec = type_spec or type_serialization.deserialize_type(value.type)
            return LocalValue(run(self._cohort, {}), type_spec)
        return LocalValue(values.embed(value, type_spec, self._cohort.num_clients), type_spec)

    async def create_call(self, comp: LocalValue, arg: Optional[LocalValue] = None) -> LocalValue:
        """Calls a function and waits for its result."""
        result = comp.reference(None if arg is None else arg.reference)
        return LocalValue(result, comp.type_signature.result)

    async def create_struct(self, elements: Any) -> LocalValue:
        """Makes a structure of embedded values."""
        pairs = structure.to_elements(structure.from_container(elements))
        type_spec = tff.StructType(
            [(name, v.type_signature) if name else v.type_signature for name, v in pairs]
        )
        return LocalValue(tuple(value.reference for _, value in pairs), type_spec)

    async def create_selection(self, source: LocalValue, index: int) -> LocalValue:
        """Selects an element of a structure."""
        return LocalValue(source.reference[index], source.type_signature[index])


class LocalExecutorFactory(tff.framework.ExecutorFactory):
    """Makes an executor for each cohort; they share threads, workers and compiled programs."""

    def __init__(self, clients_at_once: int, workers: Optional[remote.WorkerPool] = None) -> None:
        """Makes a factory.

        Args:
          clients_at_once: Clients that compute at the same time in this process.
          workers: Other machines that compute what clients do with their data.
        """
        self._pool = concurrent.futures.ThreadPoolExecutor(clients_at_once, "tff_client")
        self._workers = workers
        self._programs = ProgramCache()

    def create_executor(
        self, cardinalities: Mapping[tff.framework.PlacementLiteral, int]
    ) -> LocalExecutor:
        """Returns an executor for a cohort."""
        num_clients = cardinalities.get(tff.CLIENTS, 0)
        if self._workers is None:
            cohort = Clients(num_clients, self._pool)
        else:
            cohort = remote.RemoteClients(num_clients, self._pool, self._workers)
        return LocalExecutor(cohort, self._programs)

    def clean_up_executor(self, cardinalities: Mapping[Any, int]) -> None:
        """Does nothing: an executor keeps no state between calls."""

    def close(self) -> None:
        """Drops clients that wait and lets the running ones end."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        if self._workers is not None:
            self._workers.close()


def create_local_context(factory: LocalExecutorFactory) -> tff.framework.SyncExecutionContext:
    """Returns an execution context that runs everything in this process."""
    return tff.framework.SyncExecutionContext(
        executor_fn=factory,
        transform_args=tensorflow_computation.transform_args,
        transform_result=tensorflow_computation.transform_result,
    )

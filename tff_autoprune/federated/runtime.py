"""Where TFF computations run: in this process, or on workers that the user names."""

from __future__ import annotations

import atexit
import contextlib
import os
from collections.abc import Sequence
from typing import Optional

import tensorflow as tf
import tensorflow_federated as tff

from tff_autoprune.federated.execution import executor

_factory: Optional[executor.LocalExecutorFactory] = None


def start(*, num_clients_at_once: int = 0, workers: Sequence[str] = ()) -> None:
    """Sets TFF's execution context. Opens no port and starts no process.

    Call it before TensorFlow has run anything: then each client computes in one thread, which is
    faster and gives the same bits whatever the number of cores.

    Args:
      num_clients_at_once: Clients that compute at the same time; 0 takes the number of cores.
      workers: "HOST:PORT" of other machines' workers; none runs everything here.
    """
    global _factory
    del workers
    stop()
    if not tf.config.threading.get_intra_op_parallelism_threads():
        # If TensorFlow runs already, the results are right, only slower.
        with contextlib.suppress(RuntimeError):
            tf.config.threading.set_intra_op_parallelism_threads(1)
    _factory = executor.LocalExecutorFactory(num_clients_at_once or os.cpu_count() or 1)
    tff.framework.set_default_context(executor.create_local_context(_factory))


def stop() -> None:
    """Ends what `start` started; TFF computations can then no longer be called."""
    global _factory
    if _factory is not None:
        _factory.close()
        _factory = None


atexit.register(stop)

"""Where TFF computations run: in this process, or on workers that the user names."""

from __future__ import annotations

import atexit
import contextlib
from collections.abc import Sequence
from typing import Optional

import tensorflow as tf
import tensorflow_federated as tff

from tff_autoprune.cores import usable_cores
from tff_autoprune.runtime import executor, remote

# How many clients a worker is given at the same time. It computes as many as it has cores; more
# only wait there, but then start without a pause.
_PER_WORKER = 8

_factory: Optional[executor.LocalExecutorFactory] = None


def start(
    *,
    num_clients_at_once: int = 0,
    workers: Sequence[str] = (),
    tls: Optional[remote.Tls] = None,
) -> None:
    """Sets TFF's execution context. Opens no port and starts no process.

    Call it before TensorFlow has run anything: then each client computes in one thread, which is
    faster and gives the same bits whatever the number of cores.

    Args:
      num_clients_at_once: Clients that compute at the same time; 0: one on each core.
      workers: "HOST:PORT" of other machines' workers; none runs everything here.
      tls: Certificates to show to workers; None connects without encryption or authentication.

    Raises:
      UserError: If a worker does not answer.
    """
    global _factory
    stop()
    if not tf.config.threading.get_intra_op_parallelism_threads():
        # If TensorFlow runs already, the results are right, only slower.
        with contextlib.suppress(RuntimeError):
            tf.config.threading.set_intra_op_parallelism_threads(1)
    clients_at_once = num_clients_at_once or usable_cores()
    pool = None
    if workers:
        pool = remote.WorkerPool(workers, tls=tls, at_once=num_clients_at_once or _PER_WORKER)
    _factory = executor.LocalExecutorFactory(clients_at_once, pool)
    tff.framework.set_default_context(executor.create_local_context(_factory))


def stop() -> None:
    """Ends what `start` started; TFF computations can then no longer be called."""
    global _factory
    if _factory is not None:
        _factory.close()
        _factory = None


atexit.register(stop)

"""Where TFF computations run."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow_federated as tff


def start(*, num_clients_at_once: int = 0, workers: Sequence[str] = ()) -> None:
    """Sets TFF's execution context.

    Args:
      num_clients_at_once: Clients that compute at the same time; 0 chooses by the machine.
      workers: "HOST:PORT" of other machines' workers; none runs everything here.
    """
    del workers
    tff.backends.native.set_sync_local_cpp_execution_context(
        max_concurrent_computation_calls=num_clients_at_once or -1
    )


def stop() -> None:
    """Ends everything that `start` started."""

"""Runs TFF computations inside this process.

TFF's own local runtime starts a child, `worker_binary`, that listens on every network interface
without authentication, runs whatever graph it is sent, and outlives a parent that dies. Here the
same computations are interpreted in the process that asks, with TensorFlow as it is already loaded:
no port, no child, no serialization of clients' data.

    tff.Computation ──program──> closures ──> intrinsics (thread pool over clients) ──> results
                                    └──> TensorFlow graphs, optimized once, cached
"""

from tff_autoprune.runtime.context import start, stop
from tff_autoprune.runtime.executor import LocalExecutor, create_local_context

__all__ = ["LocalExecutor", "create_local_context", "start", "stop"]

"""Computes clients for a coordinator on another machine.

Start one on each machine, then `tff-autoprune train --workers=HOST:PORT,HOST:PORT ...`. See
docs/several_machines.md for certificates.
"""

from __future__ import annotations

from collections.abc import Sequence

from absl import flags

from tff_autoprune import cli
from tff_autoprune.cores import usable_cores
from tff_autoprune.errors import UserError

FLAGS = cli.new_flags()
_BIND = flags.DEFINE_string(
    "bind", "127.0.0.1:8000", "HOST:PORT to listen on, and nowhere else.", flag_values=FLAGS
)
_CLIENTS_AT_ONCE = flags.DEFINE_integer(
    "clients_at_once",
    0,
    "Clients that compute at the same time; 0 takes the number of cores.",
    flag_values=FLAGS,
)
_ALLOW_NETWORK = flags.DEFINE_bool(
    "allow_network",
    False,
    "Whether other machines may connect: they can run code on this one.",
    flag_values=FLAGS,
)
_TLS_CA = flags.DEFINE_string(
    "tls_ca", None, "PEM file: who signs the coordinators' certificates.", flag_values=FLAGS
)
_TLS_CERTIFICATE = flags.DEFINE_string(
    "tls_certificate", None, "PEM file: this worker's.", flag_values=FLAGS
)
_TLS_KEY = flags.DEFINE_string("tls_key", None, "PEM file: its private key.", flag_values=FLAGS)


def main(argv: Sequence[str]) -> None:
    """Serves until it is interrupted."""
    cli.no_arguments(argv)
    if _CLIENTS_AT_ONCE.value < 0:
        raise UserError(f"--clients_at_once: expected 0 or more, found {_CLIENTS_AT_ONCE.value}.")
    tls_files = (_TLS_CA.value, _TLS_CERTIFICATE.value, _TLS_KEY.value)
    if any(tls_files) and not all(tls_files):
        raise UserError("--tls_ca, --tls_certificate and --tls_key must be given together.")
    if ":" not in _BIND.value or not _BIND.value.rpartition(":")[2].isdigit():
        raise UserError(f"--bind: expected HOST:PORT, found {_BIND.value!r}.")

    import tensorflow as tf

    from tff_autoprune.runtime import remote, worker

    # One thread a client: the bits of a result do not depend on the machine's number of cores.
    tf.config.threading.set_intra_op_parallelism_threads(1)
    server, port = worker.serve(
        _BIND.value,
        clients_at_once=_CLIENTS_AT_ONCE.value or usable_cores(),
        tls=remote.Tls(*tls_files) if all(tls_files) else None,
        allow_network=_ALLOW_NETWORK.value,
    )
    print(f"worker listening on {_BIND.value.rpartition(':')[0]}:{port}", flush=True)
    try:
        server.wait_for_termination()
    finally:
        server.stop(grace=None)

r"""Trains a model by federated averaging, prunes it on the way, writes a run directory.

  tff-autoprune train --config=configs/demo.py --run_dir=runs/demo
  tff-autoprune train --config=configs/demo.py --config.federated.rounds=20 \
      --config.pruning.method=none --run_dir=runs/dense

`--dry_run` shows the data, the model and what a round will cost, without training. `--resume` goes
on with a run that was stopped. docs/configuration.md lists the fields.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence

from absl import flags
from ml_collections import config_flags

from tff_autoprune import cli
from tff_autoprune import config as config_lib
from tff_autoprune.errors import UserError

FLAGS = cli.new_flags()
cli.define_import(FLAGS)
_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "A file of configs/; --config.FIELD=VALUE overrides a field.", flag_values=FLAGS
)
_RUN_DIR = flags.DEFINE_string(
    "run_dir", None, "Folder for everything the run makes.", flag_values=FLAGS
)
_RESUME = flags.DEFINE_bool(
    "resume", False, "Go on from the newest checkpoint in --run_dir.", flag_values=FLAGS
)
_OVERWRITE = flags.DEFINE_bool(
    "overwrite", False, "Replace an earlier run in --run_dir.", flag_values=FLAGS
)
_QUIET = flags.DEFINE_bool("quiet", False, "Show no progress.", flag_values=FLAGS)
_DRY_RUN = flags.DEFINE_bool(
    "dry_run", False, "Describe the run instead of starting it.", flag_values=FLAGS
)
_WORKERS = flags.DEFINE_list(
    "workers",
    [],
    "HOST:PORT of running `tff-autoprune worker`, to spread the clients over.",
    flag_values=FLAGS,
)
_TLS_CA = flags.DEFINE_string(
    "tls_ca", None, "PEM file: who signs the workers' certificates.", flag_values=FLAGS
)
_TLS_CERTIFICATE = flags.DEFINE_string(
    "tls_certificate", None, "PEM file: this machine's.", flag_values=FLAGS
)
_TLS_KEY = flags.DEFINE_string("tls_key", None, "PEM file: its private key.", flag_values=FLAGS)


def main(argv: Sequence[str]) -> None:
    """Trains, or describes what would be trained."""
    cli.no_arguments(argv)
    config = config_lib.read_flag(_CONFIG)
    if not _DRY_RUN.value:
        cli.require(_RUN_DIR, "name a folder for the run, e.g. --run_dir=runs/demo.")
    tls_files = (_TLS_CA.value, _TLS_CERTIFICATE.value, _TLS_KEY.value)
    if any(tls_files) and not all(tls_files):
        raise UserError("--tls_ca, --tls_certificate and --tls_key must be given together.")
    if any(tls_files) and not _WORKERS.value:
        raise UserError("--tls_ca, --tls_certificate, --tls_key: expected --workers with them.")
    if _RESUME.value and _OVERWRITE.value:
        raise UserError("--resume and --overwrite: expected one of them, found both.")
    from tff_autoprune import program, runtime
    from tff_autoprune.runtime import remote

    tls = remote.Tls(*tls_files) if all(tls_files) else None
    runtime.start(workers=_WORKERS.value, tls=tls)
    try:
        if _DRY_RUN.value:
            print(program.describe(config))
            return
        training = program.Training(
            config,
            _RUN_DIR.value,
            resume=_RESUME.value,
            overwrite=_OVERWRITE.value,
            quiet=_QUIET.value,
        )
        training.run()
        if training.interrupted:
            sys.exit(128 + signal.SIGINT)
    finally:
        runtime.stop()

"""Measures the memory of a run over a population as large as FEMNIST's.

    python benchmarks/population.py --clients=3400

writes a database in the format of TFF's FEMNIST (noise, 198 images a client), trains on it with
scripts/train.py until about every client has taken part once, and prints one JSON object: the peak
memory so far after each round.
"""

from __future__ import annotations

import json
import pathlib
import random
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence

from absl import flags

from tff_autoprune import cli

_CLIENTS = flags.DEFINE_integer("clients", 3400, "Clients.", lower_bound=20)
_EXAMPLES = flags.DEFINE_integer("examples", 198, "Images of a client.", lower_bound=1)
_PER_ROUND = flags.DEFINE_integer("clients_per_round", 200, "Clients in a round.", lower_bound=1)

_ROOT = pathlib.Path(__file__).parents[1]
# Different examples in the file; each client has a random choice of them.
_DISTINCT = 2000


def _serialized_examples() -> list[bytes]:
    import numpy as np
    import tensorflow as tf

    generator = np.random.default_rng(0)

    def example() -> bytes:
        pixels = tf.train.FloatList(value=(generator.integers(0, 256, 784) / 255).tolist())
        label = tf.train.Int64List(value=[int(generator.integers(62))])
        features = tf.train.Features(
            feature={
                "pixels": tf.train.Feature(float_list=pixels),
                "label": tf.train.Feature(int64_list=label),
            }
        )
        return tf.train.Example(features=features).SerializeToString()

    return [example() for _ in range(_DISTINCT)]


def _write_database(path: pathlib.Path) -> None:
    blobs, generator = _serialized_examples(), random.Random(0)
    with sqlite3.connect(path) as connection:
        connection.executescript(
            "CREATE TABLE examples (split_name TEXT NOT NULL, client_id TEXT NOT NULL,"
            " serialized_example_proto BLOB NOT NULL);"
            "CREATE TABLE client_metadata (client_id TEXT NOT NULL, split_name TEXT NOT NULL,"
            " num_examples INTEGER NOT NULL);"
        )
        for client in range(_CLIENTS.value):
            name = f"f{client:04}"
            for split, count in (("all_train", _EXAMPLES.value), ("all_test", 20)):
                rows = ((split, name, blob) for blob in generator.choices(blobs, k=count))
                connection.executemany("INSERT INTO examples VALUES (?, ?, ?)", rows)
                connection.execute(
                    "INSERT INTO client_metadata VALUES (?, ?, ?)", (name, split, count)
                )
        connection.execute("CREATE INDEX by_client ON examples (client_id, split_name)")


def _peak_memory_mb(process: int) -> float:
    status = pathlib.Path(f"/proc/{process}/status").read_text(encoding="utf-8")
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def main(argv: Sequence[str]) -> None:
    """Writes the data, trains, and prints the JSON."""
    del argv
    rounds = -(-_CLIENTS.value // _PER_ROUND.value)
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        _write_database(folder / "emnist_all.sqlite")
        run_dir = folder / "run"
        command = [
            sys.executable,
            str(_ROOT / "scripts" / "train.py"),
            f"--config={_ROOT / 'configs' / 'femnist_cnn.py'}",
            f"--run_dir={run_dir}",
            f"--config.data.path={folder}",
            "--config.pruning.method=none",
            "--config.federated.local_epochs=1",
            f"--config.federated.rounds={rounds}",
            f"--config.federated.clients_per_round={_PER_ROUND.value}",
        ]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        seen = {}
        while process.poll() is None:
            time.sleep(0.2)
            try:
                lines = (run_dir / "metrics.csv").read_text(encoding="utf-8").count("\n")
                seen[lines - 1] = _peak_memory_mb(process.pid)
            except (OSError, IndexError):
                continue  # Before the first round, or just ended.
        if process.returncode:
            raise SystemExit(process.returncode)
    measured = {
        "clients": _CLIENTS.value,
        "rounds": rounds,
        "peak_memory_mb_by_round": {str(count): round(mb) for count, mb in sorted(seen.items())},
    }
    print(json.dumps(measured, indent=1))


if __name__ == "__main__":
    cli.run(main)

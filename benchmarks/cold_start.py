"""Measures the seconds from starting a process to its first finished round.

    python benchmarks/cold_start.py

starts `scripts/train.py` on the embedded digits a few times, the first time to warm the file cache,
and prints one JSON object: the median, and each start.
"""

from __future__ import annotations

import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence

from absl import flags

from tff_autoprune import cli

_STARTS = flags.DEFINE_integer("starts", 5, "Processes that are measured.", lower_bound=1)

_ROOT = pathlib.Path(__file__).parents[1]


def _seconds_to_first_round(run_dir: str) -> float:
    """Returns the seconds until training says that round 1 is finished."""
    command = [sys.executable, "scripts/train.py", "--config=configs/digits.py"]
    began = time.perf_counter()
    with subprocess.Popen(
        [*command, "--config.federated.rounds=2", f"--run_dir={run_dir}"],
        cwd=_ROOT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as process:
        for line in process.stdout:
            if line.startswith("round 1/"):
                seconds = time.perf_counter() - began
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}.")
    return seconds


def main(argv: Sequence[str]) -> None:
    """Measures and prints the JSON."""
    del argv
    with tempfile.TemporaryDirectory() as directory:
        starts = [
            _seconds_to_first_round(f"{directory}/{start}") for start in range(_STARTS.value + 1)
        ]
    print(json.dumps({"seconds": statistics.median(starts[1:]), "starts": starts[1:]}, indent=1))


if __name__ == "__main__":
    cli.run(main)

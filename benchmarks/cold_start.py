"""Measures the seconds from the start of a process to its first finished round.

    python benchmarks/cold_start.py --starts=3

prints one JSON object. The file cache is warm after the first start, which is not counted.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence

from absl import flags

from tff_autoprune import cli

_STARTS = flags.DEFINE_integer("starts", 3, "Processes that are measured.", lower_bound=1)

_PROGRAM = """
import numpy as np, tensorflow as tf
from tff_autoprune import federated, models
federated.runtime.start()
engine = federated.Engine(models.build("cnn", input_shape=(28, 28, 1), num_classes=62))
pair = (np.zeros((40, 28, 28, 1), np.float32), np.zeros(40, np.int32))
data = [tf.data.Dataset.from_tensor_slices(pair).batch(20) for _ in range(10)]
assert not engine.next(engine.initialize(), data).failed
"""


def main(argv: Sequence[str]) -> None:
    """Measures and prints the JSON."""
    del argv
    seconds = []
    for _ in range(_STARTS.value + 1):
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", _PROGRAM], check=True, stderr=subprocess.DEVNULL)
        seconds.append(time.perf_counter() - began)
    measured = seconds[1:]
    print(json.dumps({"seconds": statistics.median(measured), "starts": measured}, indent=1))


if __name__ == "__main__":
    cli.run(main)

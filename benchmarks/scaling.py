"""Measures time and memory of a round against the number of clients in it.

    python benchmarks/scaling.py --clients=10,50,200

prints one JSON object: seconds of a round, milliseconds a client, and the peak memory so far.
"""

from __future__ import annotations

import json
import resource
import statistics
import time
from collections.abc import Sequence

from absl import flags

from tff_autoprune import cli, runtime

_CLIENTS = flags.DEFINE_list("clients", ["10", "50", "200"], "Clients in a round.")
_ROUNDS = flags.DEFINE_integer("rounds", 3, "Rounds that are measured for each.", lower_bound=1)
_EXAMPLES = flags.DEFINE_integer("examples", 40, "Images of a client.", lower_bound=1)

_SHAPE, _CLASSES = (28, 28, 1), 62


def main(argv: Sequence[str]) -> None:
    """Measures all sizes and prints the JSON."""
    del argv
    import numpy as np
    import tensorflow as tf

    from tff_autoprune import federated, models

    runtime.start()
    engine = federated.Engine(models.build("cnn", input_shape=_SHAPE, num_classes=_CLASSES))
    state = engine.initialize()

    def dataset(client: int) -> tf.data.Dataset:
        generator = np.random.default_rng(client)
        images = generator.random((_EXAMPLES.value, *_SHAPE), np.float32)
        labels = generator.integers(0, _CLASSES, _EXAMPLES.value).astype(np.int32)
        return tf.data.Dataset.from_tensor_slices((images, labels)).batch(20)

    engine.next(state, [dataset(0), dataset(1)])
    results = {}
    for count in map(int, _CLIENTS.value):
        seconds = []
        for _ in range(_ROUNDS.value):
            began = time.perf_counter()
            state = engine.next(state, [dataset(client) for client in range(count)]).state
            seconds.append(time.perf_counter() - began)
        median = statistics.median(seconds)
        results[count] = {
            "round_seconds": median,
            "milliseconds_per_client": 1000 * median / count,
            "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        }
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    cli.run(main)

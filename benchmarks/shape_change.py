"""Measures what a change of architecture costs beyond a normal round.

    python benchmarks/shape_change.py --models=cnn,resnet,inception --changes=5

prints one JSON object: for each network the seconds of a normal round, of a change together with
the round after it, the difference, and the growth of memory over all changes.

oneDNN keeps kernels for every shape it has met, up to 1,024 a thread: memory grows a little until
that many are met. With TF_ENABLE_ONEDNN_OPTS=0 it does not.
"""

from __future__ import annotations

import json
import resource
import statistics
import time
from collections.abc import Sequence

from absl import flags

from tff_autoprune import cli, runtime

_MODELS = flags.DEFINE_list("models", ["cnn", "resnet", "inception"], "Networks.")
_AGGREGATOR = flags.DEFINE_string("aggregator", "mean", "Aggregator.")
_CHANGES = flags.DEFINE_integer("changes", 5, "Changes that are measured.", lower_bound=2)

_SHAPE, _CLASSES = (28, 28, 1), 62


def _measure(name: str) -> dict[str, object]:
    import numpy as np
    import tensorflow as tf

    from tff_autoprune import federated, models, surgery

    model = models.build(name, input_shape=_SHAPE, num_classes=_CLASSES)
    settings = federated.Settings(
        server_optimizer="momentum",
        aggregator=federated.AggregatorSettings(name=_AGGREGATOR.value, clients_per_round=10),
    )
    engine = federated.Engine(model, settings)
    state = engine.initialize()
    generator = np.random.default_rng(0)
    datasets = []
    for _ in range(10):
        images = generator.random((40, *_SHAPE), np.float32)
        labels = generator.integers(0, _CLASSES, 40).astype(np.int32)
        datasets.append(tf.data.Dataset.from_tensor_slices((images, labels)).batch(20))

    def timed_round() -> float:
        nonlocal state
        began = time.perf_counter()
        state = engine.next(state, datasets).state
        return time.perf_counter() - began

    timed_round()
    normal, changed, memory = [], [], []
    for number in range(_CHANGES.value):
        normal.append(timed_round())
        model = engine.keras_model(state)
        groups = [g for g in surgery.find_filter_groups(model) if g.prunable]
        removal = surgery.plan_removal(model, {groups[number % len(groups)].name: [0]})
        smaller = removal.apply()
        began = time.perf_counter()
        engine = engine.with_model(smaller)
        state = engine.carry_state(state, removal)
        changed.append(time.perf_counter() - began + timed_round())
        memory.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    normal_round, changed_round = statistics.median(normal), statistics.median(changed)
    return {
        "normal_round_seconds": normal_round,
        "change_and_round_seconds": changed_round,
        "extra_seconds": changed_round - normal_round,
        "peak_memory_mb": memory,
    }


def main(argv: Sequence[str]) -> None:
    """Measures all networks and prints the JSON."""
    del argv

    runtime.start()
    print(json.dumps({name: _measure(name) for name in _MODELS.value}, indent=1))


if __name__ == "__main__":
    cli.run(main)

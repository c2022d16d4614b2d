"""Times a training step of client files, dense against pruned, next to TensorFlow's own.

Contenders take turns in one process, on one thread, so that whatever else the host does hits all of
them alike. "pruned" is the reference's network with the widths that a search left (about a quarter
of the parameters).

    python benchmarks/client_step.py --models=cnn,resnet --rounds=11

prints one JSON object: for each network and size the parameters, the bytes of the file, the median
step in milliseconds in TFLite and in TensorFlow, and the ratios dense/pruned and TFLite/TensorFlow.
Each is given by the clock and by the time on a core, which a busy host changes far less.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from absl import flags

from tff_autoprune import cli

_MODELS = flags.DEFINE_list("models", ["cnn", "resnet"], "Networks: cnn, resnet, inception.")
_ROUNDS = flags.DEFINE_integer("rounds", 11, "Interleaved rounds.", lower_bound=1)
_STEPS = flags.DEFINE_integer("steps", 5, "Steps of each contender in a round.", lower_bound=1)

_BATCH = 20
_KINDS = ("step_ms", "step_cpu_ms")
# Input, classes, and the widths of the dense and the pruned network.
_NETWORKS = {
    "cnn": ((28, 28, 1), 62, {"dense": (32, 64), "pruned": (12, 28)}),
    "resnet": ((84, 84, 3), 2, {"dense": (16, 32, 64), "pruned": (8, 12, 20)}),
    "inception": (
        (28, 28, 1),
        62,
        {
            "dense": (32, 16, 16, 16, 32, 32, 32, 96, 96),
            "pruned": (16, 8, 8, 8, 16, 16, 16, 48, 48),
        },
    ),
}


def main(argv: Sequence[str]) -> None:
    """Measures; see the module."""
    del argv
    import tensorflow as tf

    from tff_autoprune import export, federated, models
    from tff_autoprune.export import client_timing, host

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    settings = federated.Settings(client_optimizer="sgd")
    found: dict[str, object] = {}
    for network in _MODELS.value:
        shape, classes, sizes = _NETWORKS[network]
        entry: dict[str, dict] = {}
        contenders = {}
        for size, filters in sizes.items():
            model = models.build(network, input_shape=shape, num_classes=classes, filters=filters)
            content = export.convert_client(model, settings, batch_size=_BATCH)
            entry[size] = {"parameters": model.count_params(), "bytes": len(content)}
            contenders[size, "tflite"] = client_timing.tflite_step(content, classes)
            contenders[size, "tensorflow"] = client_timing.tensorflow_step(model, _BATCH)
        times = client_timing.measure(contenders, _ROUNDS.value, _STEPS.value)
        for (size, runtime), figures in times.items():
            entry[size][f"{runtime}_step_ms"] = figures["step_ms"]
            entry[size][f"{runtime}_step_ms_min"] = figures["step_ms_min"]
            entry[size][f"{runtime}_step_cpu_ms"] = figures["step_cpu_ms"]
        for size in sizes:
            entry[size]["tflite_over_tensorflow"] = {
                kind: times[size, "tflite"][kind] / times[size, "tensorflow"][kind]
                for kind in _KINDS
            }
        found[network] = {
            **entry,
            "dense_over_pruned": {
                runtime: {
                    kind: times["dense", runtime][kind] / times["pruned", runtime][kind]
                    for kind in _KINDS
                }
                for runtime in ("tflite", "tensorflow")
            },
        }
    print(json.dumps({"batch_size": _BATCH, "host": host.describe(), "networks": found}, indent=2))


if __name__ == "__main__":
    cli.run(main)

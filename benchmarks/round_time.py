"""Measures a federated round against stock TFF and a loop of `keras.fit`.

Each contender is a process of its own; rounds are interleaved, so that whatever else the machine
does hits all of them alike. One round: 10 clients of 200 images, 5 epochs, batches of 32, SGD.

    python benchmarks/round_time.py --models=big,small --rounds=5

A federated evaluation of 77,000 images on 385 clients against `model.evaluate` on all of them:

    python benchmarks/round_time.py --contenders=engine_evaluate,keras_evaluate

prints one JSON object: medians in seconds, and the ratio of each to the engine.
"""

from __future__ import annotations

import functools
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

from absl import flags

from tff_autoprune import cli, runtime

_MODELS = flags.DEFINE_list(
    "models", ["big", "small", "resnet", "inception"], "Networks: big, small, resnet, inception."
)
_CONTENDERS = flags.DEFINE_list(
    "contenders",
    ["engine", "tff_default", "tff_functional", "keras_fit"],
    "Which of engine, engine_bfloat16, engine_on_tff (the same client work on TFF's own runtime),"
    " tff_default, tff_functional, keras_fit, engine_evaluate and keras_evaluate to run; the others"
    " are compared with the first.",
)
_ROUNDS = flags.DEFINE_integer("rounds", 5, "Interleaved rounds that are measured.", lower_bound=1)
_SERVE = flags.DEFINE_string("serve", None, "For this script's own use: CONTENDER,MODEL.")

_CLIENTS, _IMAGES, _EPOCHS, _BATCH = 10, 200, 5, 32
_EVALUATION_CLIENTS = 385  # of 200 images: the size of FEMNIST's test set
_SHAPE, _CLASSES, _LEARNING_RATE = (28, 28, 1), 62, 0.05
_NETWORKS = {
    "big": ("cnn", {}),
    "small": ("cnn", {"filters": (12, 20)}),
    "resnet": ("resnet", {"normalization": "group"}),
    "inception": ("inception", {}),
}


def _build(name: str):
    from tff_autoprune import models

    network, options = _NETWORKS[name]
    return models.build(network, input_shape=_SHAPE, num_classes=_CLASSES, **options)


def _arrays(clients: int = _CLIENTS, epochs: int = _EPOCHS):
    import numpy as np

    generator = np.random.default_rng(0)
    for _ in range(clients):
        images = generator.random((_IMAGES, *_SHAPE), np.float32)
        labels = generator.integers(0, _CLASSES, _IMAGES).astype(np.int32)
        order = np.concatenate([generator.permutation(_IMAGES) for _ in range(epochs)])
        yield images[order], labels[order]


def _datasets(clients: int = _CLIENTS, epochs: int = _EPOCHS):
    import tensorflow as tf

    pairs = _arrays(clients, epochs)
    return [tf.data.Dataset.from_tensor_slices(pair).batch(_BATCH) for pair in pairs]


def _loss():
    import tensorflow as tf

    return tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def _metrics():
    import tensorflow as tf

    return [tf.keras.metrics.SparseCategoricalAccuracy()]


def _engine(
    name: str, precision: str = "float32", start: Callable[[], None] = runtime.start
) -> Callable[[], None]:
    from tff_autoprune import federated

    start()
    settings = federated.Settings(
        client_optimizer="sgd", client_learning_rate=_LEARNING_RATE, client_precision=precision
    )
    engine = federated.Engine(_build(name), settings)
    state, datasets = engine.initialize(), _datasets()
    return lambda: engine.next(state, datasets)


def _start_tff() -> None:
    import tensorflow_federated as tff

    tff.backends.native.set_sync_local_cpp_execution_context()


def _stock(model_fn) -> Callable[[], None]:
    import tensorflow_federated as tff

    process = tff.learning.algorithms.build_weighted_fed_avg(
        model_fn, client_optimizer_fn=tff.learning.optimizers.build_sgdm(_LEARNING_RATE)
    )
    state, datasets = process.initialize(), _datasets()
    return lambda: process.next(state, datasets)


def _tff_default(name: str) -> Callable[[], None]:
    import tensorflow_federated as tff

    spec = _datasets()[0].element_spec
    return _stock(
        lambda: tff.learning.models.from_keras_model(
            _build(name), loss=_loss(), input_spec=spec, metrics=_metrics()
        )
    )


def _tff_functional(name: str) -> Callable[[], None]:
    import collections

    import tensorflow as tf
    import tensorflow_federated as tff

    return _stock(
        tff.learning.models.functional_model_from_keras(
            _build(name),
            loss_fn=_loss(),
            input_spec=_datasets()[0].element_spec,
            metrics_constructor=lambda: collections.OrderedDict(
                accuracy=tf.keras.metrics.SparseCategoricalAccuracy()
            ),
        )
    )


def _keras_fit(name: str) -> Callable[[], None]:
    import numpy as np
    import tensorflow as tf

    model = _build(name)
    model.compile(tf.keras.optimizers.SGD(_LEARNING_RATE), _loss(), _metrics())
    start, clients = model.get_weights(), list(_arrays())

    def run_round() -> None:
        results = []
        for images, labels in clients:
            model.set_weights(start)
            model.fit(images, labels, batch_size=_BATCH, verbose=0, shuffle=False)
            results.append(model.get_weights())
        for parts in zip(*results):
            np.mean(parts, axis=0)

    return run_round


def _engine_evaluate(name: str) -> Callable[[], None]:
    from tff_autoprune import federated

    runtime.start()
    model, datasets = _build(name), _datasets(_EVALUATION_CLIENTS, epochs=1)
    return lambda: federated.evaluate_model(model, datasets)


def _keras_evaluate(name: str) -> Callable[[], None]:
    import numpy as np

    model = _build(name)
    model.compile(loss=_loss(), metrics=_metrics())
    images, labels = map(np.concatenate, zip(*_arrays(_EVALUATION_CLIENTS, epochs=1)))
    return lambda: model.evaluate(images, labels, batch_size=_BATCH, verbose=0)


_BUILDERS = {
    "engine": _engine,
    "engine_bfloat16": functools.partial(_engine, precision="bfloat16"),
    "engine_on_tff": functools.partial(_engine, start=_start_tff),
    "tff_default": _tff_default,
    "tff_functional": _tff_functional,
    "keras_fit": _keras_fit,
    "engine_evaluate": _engine_evaluate,
    "keras_evaluate": _keras_evaluate,
}


def _serve(contender: str, model: str) -> None:
    """Runs a round for each line of standard input and prints its seconds."""
    run_round = _BUILDERS[contender](model)
    for _ in range(2):
        run_round()
    print("ready", flush=True)
    for _ in sys.stdin:
        began = time.perf_counter()
        run_round()
        print(time.perf_counter() - began, flush=True)


def _measure(model: str) -> dict[str, object]:
    processes = {}
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    try:
        for contender in _CONTENDERS.value:
            command = [sys.executable, __file__, f"--serve={contender},{model}"]
            processes[contender] = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                env=environment,
                # TFF's worker_binary outlives its parent; a session can be ended whole.
                start_new_session=True,
            )
            while (line := processes[contender].stdout.readline()) != "ready\n":
                if not line:
                    raise RuntimeError(f"{contender} could not start for {model}.")
        seconds: dict[str, list[float]] = {contender: [] for contender in processes}
        for _ in range(_ROUNDS.value):
            for contender, process in processes.items():
                process.stdin.write("round\n")
                process.stdin.flush()
                seconds[contender].append(float(process.stdout.readline()))
    finally:
        for process in processes.values():
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    medians = {contender: statistics.median(times) for contender, times in seconds.items()}
    first = _CONTENDERS.value[0]
    return {
        "seconds": medians,
        "rounds": seconds,
        f"times_the_{first}": {
            contender: median / medians[first] for contender, median in medians.items()
        },
    }


def main(argv: Sequence[str]) -> None:
    """Measures all models and prints the JSON."""
    del argv
    if _SERVE.value:
        _serve(*_SERVE.value.split(","))
        return
    print(json.dumps({model: _measure(model) for model in _MODELS.value}, indent=1))


if __name__ == "__main__":
    cli.run(main)

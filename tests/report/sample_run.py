"""A small finished run: a real Keras model, really trained by federated averaging, really cut.

Writes the files that the train command writes, in their formats, in a few seconds. The training
program has its own tests; the commands that read a run directory are tested on this one.
"""

from __future__ import annotations

import functools
import json
import pathlib
import shutil
import time

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from tff_autoprune import config as config_lib
from tff_autoprune import data, export, files
from tff_autoprune.export import benchmark as export_benchmark
from tff_autoprune.run_directory import RunDirectory

ROUNDS = 16
START_WIDTHS = (12, 48)
# What training does to the source's 8x8 images, so that an export has to do it too.
PIXELS = {"invert": True, "crop": (1, 7), "resize": 12}
IMAGE_SHAPE = (12, 12, 1)
# After which round to cut to which widths, and whether that is refused.
_CUTS = {2: ((9, 30), False), 5: ((6, 18), False), 8: ((2, 6), True), 12: ((5, 14), False)}
_CLIENTS_PER_ROUND = 3
_DOWN, _UP = "download_bytes", "upload_bytes"


@functools.cache
def _data() -> data.FederatedData:
    return data.load("digits", seed=1, **PIXELS)


@functools.cache
def _arrays(split: str) -> list[tuple[np.ndarray, np.ndarray]]:
    """Returns images and labels of every client of a split."""
    clients = getattr(_data(), split)
    return [data.client_arrays(clients, name) for name in clients.client_ids]


def _build(widths: tuple[int, ...]) -> tf.keras.Model:
    tf.keras.utils.set_random_seed(1)
    image = x = tf.keras.Input(IMAGE_SHAPE, name="image")
    for index, width in enumerate(widths, start=1):
        x = tf.keras.layers.Conv2D(
            width, 3, padding="same", activation="relu", name=f"conv_{index}"
        )(x)
        x = tf.keras.layers.MaxPooling2D(2, name=f"pool_{index}")(x)
    x = tf.keras.layers.Flatten(name="flatten")(x)
    model = tf.keras.Model(image, tf.keras.layers.Dense(10, name="logits")(x), name="cnn")
    model.compile(
        tf.keras.optimizers.Adam(5e-3),
        tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        ["accuracy"],
    )
    return model


def _cut(model: tf.keras.Model, widths: tuple[int, int]) -> tf.keras.Model:
    """Keeps the filters with the largest L1 norm, and the input channels that belong to them."""
    weights = model.get_weights()
    for layer, width in enumerate(widths):
        kernel = weights[2 * layer]
        keep = np.sort(np.argsort(-np.abs(kernel).sum((0, 1, 2)))[:width])
        weights[2 * layer], weights[2 * layer + 1] = (
            kernel[..., keep],
            weights[2 * layer + 1][keep],
        )
        follower = weights[2 * layer + 2]
        axis = follower.ndim - 2
        spread = follower.shape[axis] // kernel.shape[-1]
        rows = (np.arange(spread)[:, None] * kernel.shape[-1] + keep).ravel()
        weights[2 * layer + 2] = np.take(follower, rows, axis)
    smaller = _build(widths)
    smaller.set_weights(weights)
    return smaller


def _flops(widths: tuple[int, int]) -> int:
    return 2 * (144 * 9 * widths[0] + 36 * 9 * widths[0] * widths[1] + 90 * widths[1])


def _train_round(model: tf.keras.Model, clients: list[int]) -> tuple[float, float]:
    """One round of federated averaging with local Adam; returns loss and accuracy."""
    start, sums, results = model.get_weights(), None, []
    for client in clients:
        images, labels = _arrays("train")[client]
        model.set_weights(start)
        history = model.fit(images, labels, 32, epochs=2, verbose=0)
        results.append((history.history["loss"][0], history.history["accuracy"][0]))
        weights = model.get_weights()
        sums = weights if sums is None else [a + b for a, b in zip(sums, weights)]
    model.set_weights([value / len(clients) for value in sums])
    return tuple(np.mean(results, axis=0))


def _evaluate(model: tf.keras.Model, split: str) -> tuple[float, float]:
    images, labels = (np.concatenate(parts) for parts in zip(*_arrays(split)))
    scores = model(images, training=False).numpy()
    losses = tf.keras.losses.sparse_categorical_crossentropy(labels, scores, from_logits=True)
    return float(np.mean(losses)), float(np.mean(scores.argmax(-1) == labels))


def make(path: pathlib.Path, method: str = "auto", seed: int = 1) -> RunDirectory:
    """Trains and writes a run directory as the train command leaves it.

    Args:
      path: The folder to write.
      method: "auto" cuts as `_CUTS` says, "none" does not.
      seed: Of the client sampling.
    """
    run = RunDirectory(path)
    config = config_lib.default()
    config.seed = seed
    config.data.name = "digits"
    config.data.update(PIXELS)
    config.model.filters = START_WIDTHS
    config.federated.rounds = ROUNDS
    config.federated.clients_per_round = _CLIENTS_PER_ROUND
    config.pruning.method = method
    config.benchmark.rounds, config.benchmark.runs = 5, 20
    labels = [str(digit) for digit in range(10)]
    files.write_json(
        run.config,
        {
            "config": config_lib.to_json(config),
            "versions": {"python": "3.11.7", "tensorflow": tf.__version__, "numpy": np.__version__},
            "data_spec": {
                "name": "digits",
                "image_shape": list(IMAGE_SHAPE),
                "num_classes": 10,
                "label_names": labels,
            },
        },
    )
    model, widths = _build(START_WIDTHS), START_WIDTHS
    dense_parameters = model.count_params()
    run.models.mkdir(parents=True)
    model.save(run.dense_model)
    rng = np.random.default_rng(seed)
    rows, decisions, started = [], [], time.monotonic()

    def decide(round_num: int, action: str, old: tuple, new: tuple, reason: str) -> None:
        removed = {name: old[i] - new[i] for i, name in enumerate(("conv_1", "conv_2"))}
        decisions.append(
            {
                "round": round_num,
                "action": action,
                "removed": json.dumps(removed),
                "filters_removed": sum(removed.values()),
                "factorized": "{}",
                "parameters": model.count_params(),
                "flops": _flops(widths),
                "measured_points": -0.2 if action == "move" else -4.0,
                "measured_error": 0.4,
                "reason": reason,
            }
        )

    for round_num in range(1, ROUNDS + 1):
        round_started = time.monotonic()
        clients = rng.choice(len(_arrays("train")), _CLIENTS_PER_ROUND, replace=False).tolist()
        train_loss, train_accuracy = _train_round(model, clients)
        evaluated = round_num % 2 == 0
        loss, accuracy = _evaluate(model, "validation") if evaluated else (None, None)
        size, dense_size = 4 * model.count_params(), 4 * dense_parameters
        rows.append(
            {
                "round": round_num,
                "seconds": time.monotonic() - round_started,
                "clients": _CLIENTS_PER_ROUND,
                "failed_clients": 0,
                "retried_cohorts": 0,
                "examples": 2 * sum(len(_arrays("train")[client][1]) for client in clients),
                "train_loss": train_loss,
                "train_accuracy": train_accuracy,
                "validation_loss": loss,
                "validation_accuracy": accuracy,
                "parameters": model.count_params(),
                "flops": _flops(widths),
                "model_bytes": size,
                _DOWN: size * _CLIENTS_PER_ROUND,
                _UP: size * _CLIENTS_PER_ROUND,
                "race_bytes": 0,
                "race_flops": 0,
                "feedback_bytes": 0,
                f"dense_{_DOWN}": dense_size * _CLIENTS_PER_ROUND,
                f"dense_{_UP}": dense_size * _CLIENTS_PER_ROUND,
                "rebuild_seconds": 0.0,
                "penalty": 0.0,
                "filters/conv_1": widths[0],
                "filters/conv_2": widths[1],
            }
        )
        if method == "none":
            continue
        if round_num in _CUTS:
            smaller, refused = _CUTS[round_num]
            if refused:
                decide(round_num, "refuse", widths, smaller, "more than may be lost")
            else:
                old, widths = widths, smaller
                model = _cut(model, widths)
                decide(round_num, "move", old, widths, "little enough is lost")
    model.save(run.pruned_model)
    columns = pd.DataFrame(rows)
    files.write_text(run.metrics, columns.to_csv(index=False))
    decision_columns = (
        "round,action,removed,filters_removed,factorized,parameters,flops,"
        "measured_points,measured_error,reason"
    )
    files.write_text(
        run.pruning,
        pd.DataFrame(decisions, columns=decision_columns.split(",")).to_csv(index=False),
    )
    run.update_summary(
        seed=seed,
        method=method,
        rounds_completed=ROUNDS,
        data={"name": "digits", "train_clients": len(_arrays("train")), "classes": 10},
        dense=_sizes(dense_parameters, START_WIDTHS),
        pruned=_sizes(model.count_params(), widths),
        accuracy={
            "validation": _evaluate(model, "validation")[1],
            "test": _evaluate(model, "test")[1],
        },
        communication={
            _DOWN: int(columns[_DOWN].sum()),
            _UP: int(columns[_UP].sum()),
            "race_bytes": 0,
            "feedback_bytes": 0,
            "total_bytes": int(columns[_DOWN].sum() + columns[_UP].sum()),
            "dense_equivalent_bytes": int(columns[f"dense_{_DOWN}"].sum() * 2),
        },
        faults={"failed_clients": 0, "retried_cohorts": 0},
        time={
            "total_seconds": time.monotonic() - started,
            "seconds_per_round_median": float(columns.seconds.median()),
            "rebuild_seconds_total": 0.0,
        },
    )
    return run


def _sizes(parameters: int, widths: tuple[int, int]) -> dict[str, object]:
    return {
        "parameters": parameters,
        "flops": _flops(widths),
        "bytes": 4 * parameters,
        "filters": {"conv_1": widths[0], "conv_2": widths[1], "logits": 10},
    }


_MADE: dict[str, pathlib.Path] = {}


def trained(factory: pytest.TempPathFactory) -> pathlib.Path:
    """Returns a run that was trained only; made once for all tests, which copy it."""
    if "trained" not in _MADE:
        _MADE["trained"] = make(factory.mktemp("trained") / "run").path
    return _MADE["trained"]


def exported(factory: pytest.TempPathFactory) -> pathlib.Path:
    """Returns the same run after export and benchmark."""
    if "exported" not in _MADE:
        path = factory.mktemp("exported") / "run"
        shutil.copytree(trained(factory), path)
        export.export_run(RunDirectory(path), config_lib.load_data)
        export_benchmark.benchmark_run(RunDirectory(path))
        _MADE["exported"] = path
    return _MADE["exported"]

"""A run against the dense model: accuracy client by client, and bytes to get there."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Optional

import numpy as np
from scipy import stats

from tff_autoprune.errors import UserError
from tff_autoprune.report.run_data import RunData

if TYPE_CHECKING:
    import tensorflow as tf
    import tensorflow_federated as tff

#: How far below the dense model's last validation accuracy a model has arrived.
ARRIVAL_MARGIN = 0.01
_BATCH = 256
_RESAMPLES = 2000
# Of avatars whom no run has seen; no run has this seed.
_OTHER_SEED = 2**31 - 1


def compare(run: RunData, dense: RunData, people: Optional[int] = None) -> dict[str, Any]:
    """Compares the result of a run with that of a dense one, on the same clients.

    Args:
      run: The run.
      dense: A run of the same data and seed, with pruning.method=none.
      people: Of rendered data, to test on that many unseen clients instead of the data's own test
        clients.

    Returns:
      The section "against_dense" of summary.json: "run" (the dense one's name), "models"
      (digests of both), "clients", "examples", "accuracy", "dense_accuracy", "points" (the
      difference in points), its "standard_error" over clients, "bytes_to_arrive" (sent
      until the validation accuracy first was within a point of the dense run's last one; None if
      it never was), "dense_bytes_to_arrive".

    Raises:
      UserError: If the runs do not compare, or a model is missing.
    """
    from tff_autoprune import config, models

    check_pair(run, dense)
    clients = unseen_clients(run.config, people) if people else config.load_data(run.config).test
    counts, right = counts_by_client(
        clients, [models.load_trained(one.directory, "pruned") for one in (run, dense)]
    )
    points, error = difference(right[0] - right[1], counts)
    accuracy, dense_accuracy = (float(one.sum() / counts.sum()) for one in right)
    threshold = dense_threshold(dense)
    return {
        "run": dense.name,
        "models": _digests(run, dense),
        "clients": len(counts),
        "examples": int(counts.sum()),
        "accuracy": accuracy,
        "dense_accuracy": dense_accuracy,
        "points": points,
        "standard_error": error,
        "bytes_to_arrive": bytes_to_arrive(run, threshold),
        "dense_bytes_to_arrive": bytes_to_arrive(dense, threshold),
    }


def is_current(run: RunData, dense: RunData) -> bool:
    """Returns whether summary.json has a comparison with that run, made after both."""
    found = run.summary.get("against_dense")
    return bool(found) and found["models"] == _digests(run, dense)


def _digests(*runs: RunData) -> list[str]:
    return [
        hashlib.sha256(run.directory.pruned_model.read_bytes()).hexdigest()[:16] for run in runs
    ]


def check_pair(run: RunData, dense: RunData) -> None:
    """Checks that a run can be compared with a dense one.

    Raises:
      UserError: If the second is not dense, or has other data or another seed.
    """
    if dense.method != "none":
        raise UserError(
            f"--dense: {dense.directory.path} was pruned (pruning.method={dense.method}); expected"
            " a run with pruning.method=none."
        )
    for name in ("data", "seed"):
        if run.config[name] != dense.config[name]:
            raise UserError(
                f"--dense: {dense.directory.path} has {name} {dense.config[name]}, but"
                f" {run.directory.path} has {run.config[name]}; their accuracies do not compare."
            )


def unseen_clients(config: Mapping[str, Any], people: int) -> tff.simulation.datasets.ClientData:
    """Renders clients that the run of a configuration has not trained with.

    For fontwriters more test writers of the run's seed, whose font families no training writer
    has; for avatars the people of a seed that no run uses.

    Args:
      config: Of the run.
      people: How many.

    Raises:
      UserError: If the data set is not a rendered one.
    """
    from tff_autoprune import config as config_lib

    data = config["data"]
    if data["name"] == "fontwriters":
        # A tenth of the writers test.
        return config_lib.load_data({**config, "data": {**data, "writers": 10 * people}}).test
    if data["name"] == "avatars":
        held_out = {"test_fraction": 0.9, "validation_fraction": 0.0}
        more = {**data, "identities": -(-people * 10 // 9), **held_out}
        return config_lib.load_data({"seed": _OTHER_SEED, "data": more}).test
    raise UserError(
        f"--people: expected a run on fontwriters or avatars, found {data['name']}; others have the"
        " clients that they have."
    )


def counts_by_client(
    clients: tff.simulation.datasets.ClientData, trained: list[tf.keras.Model]
) -> tuple[np.ndarray, np.ndarray]:
    """Evaluates models on every client.

    Args:
      clients: The clients.
      trained: Classifiers.

    Returns:
      Examples of each client, int64 [clients], and how many of them each model gets right,
      int64 [models, clients].
    """
    counts, right = [], []
    for client in clients.client_ids:
        dataset = clients.create_tf_dataset_for_client(client).batch(_BATCH)
        batches = [
            (len(labels), [_right(model, images, labels) for model in trained])
            for images, labels in dataset
        ]
        counts.append(sum(size for size, _ in batches))
        right.append(np.sum([found for _, found in batches], axis=0))
    return np.array(counts), np.transpose(right)


def _right(model: tf.keras.Model, images: tf.Tensor, labels: tf.Tensor) -> int:
    return int(np.sum(np.argmax(model(images, training=False), axis=-1) == labels.numpy()))


def difference(gained: np.ndarray, counts: np.ndarray) -> tuple[float, float]:
    """Returns a difference of accuracy in points, and its standard error over clients.

    Args:
      gained: How many examples more one model gets right than the other, int [clients].
      counts: Examples of each client, int [clients].
    """
    points = float(100 * gained.sum() / counts.sum())
    if len(counts) < 2:
        return points, float("nan")
    drawn = stats.bootstrap(
        (gained, counts),
        lambda more, all_, axis: 100 * more.sum(axis) / all_.sum(axis),
        paired=True,
        vectorized=True,
        n_resamples=_RESAMPLES,
        method="percentile",
        random_state=np.random.default_rng(0),
    )
    return points, float(drawn.standard_error)


def dense_threshold(dense: RunData) -> float:
    """Returns the validation accuracy at which a model has arrived; NaN if it is not known."""
    found = dense.accuracy() if dense.metrics is not None else ()
    return float(found["accuracy"].iloc[-1]) - ARRIVAL_MARGIN if len(found) else float("nan")


def arrival(run: RunData, threshold: float) -> Optional[int]:
    """Returns the row of metrics.csv in which a run first reached a validation accuracy."""
    if run.metrics is None:
        return None
    reached = np.flatnonzero(run.metrics["validation_accuracy"].to_numpy(float) >= threshold)
    return int(reached[0]) if len(reached) else None


def bytes_to_arrive(run: RunData, threshold: float) -> Optional[int]:
    """Returns the bytes sent in both directions until then; None if it never was."""
    row = arrival(run, threshold)
    return None if row is None else int(run.traffic()[row])

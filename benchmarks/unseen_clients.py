"""Compares trained runs on many more people than their own test sets have.

    python benchmarks/unseen_clients.py --runs=OUT/none/seed_0,OUT/auto/seed_0 --people=150

Thirty test writers tell two networks apart to about a point of accuracy, twenty faces to three.
The embedded data sets are rendered, so there can be as many people as one likes: for fontwriters
more test writers of the run's seed, whose font families no training writer has; for avatars the
people of a seed that no run uses. Each prints one JSON line with the accuracy, its difference from
the first run's in points, and the standard error of that difference (bootstrap over people).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from absl import flags

from tff_autoprune import cli, config
from tff_autoprune.errors import UserError
from tff_autoprune.run_directory import RunDirectory

if TYPE_CHECKING:
    import numpy as np
    import tensorflow_federated as tff

_RUNS = flags.DEFINE_list("runs", None, "Folders of runs on one data set with one seed.")
_PEOPLE = flags.DEFINE_integer("people", 150, "People to test on.", lower_bound=10)

_OTHER_SEED = 2**31 - 1
_BATCH = 256
_RESAMPLES = 1000


def _unseen_people(settings: dict[str, Any], people: int) -> tff.simulation.datasets.ClientData:
    """Returns people that the run of a configuration has not trained with."""
    data = settings["data"]
    if data["name"] == "fontwriters":
        # A tenth of the writers test.
        more = {**settings, "data": {**data, "writers": 10 * people}}
    elif data["name"] == "avatars":
        more = {
            "identities": -(-people * 10 // 9),
            "test_fraction": 0.9,
            "validation_fraction": 0.0,
        }
        more = {"seed": _OTHER_SEED, "data": {**data, **more}}
    else:
        raise UserError(f"--runs: expected fontwriters or avatars, found {data['name']}.")
    return config.load_data(more).test


def _correct(run: RunDirectory, images: np.ndarray, labels: np.ndarray) -> np.ndarray:
    import numpy as np
    import tensorflow as tf

    model = tf.keras.models.load_model(run.pruned_model, compile=False)
    outputs = model.predict(images, batch_size=_BATCH, verbose=0)
    return np.argmax(outputs, axis=-1) == labels


def main(argv: Sequence[str]) -> None:
    """Prints a line for each run."""
    del argv
    cli.require(_RUNS, "name runs, e.g. --runs=OUT/none/seed_0,OUT/auto/seed_0.")
    import numpy as np

    runs = [RunDirectory(path).require("config", "pruned_model") for path in _RUNS.value]
    settings = runs[0].read_config()["config"]
    for run in runs:
        other = run.read_config()["config"]
        if any(other[key] != settings[key] for key in ("data", "seed")):
            raise UserError(f"--runs: {run.path} has another data set or seed than {runs[0].path}.")
    people = _unseen_people(settings, _PEOPLE.value)
    parts = []
    for client in people.client_ids:
        dataset = people.create_tf_dataset_for_client(client).batch(_BATCH)
        parts += [(client, images.numpy(), labels.numpy()) for images, labels in dataset]
    client_of = np.concatenate([[client] * len(labels) for client, _, labels in parts])
    images, labels = (np.concatenate([part[i] for part in parts]) for i in (1, 2))
    _, person = np.unique(client_of, return_inverse=True)
    counts = np.bincount(person)
    draws = np.random.default_rng(0).integers(0, len(counts), (_RESAMPLES, len(counts)))
    first = None
    for run in runs:
        correct = np.bincount(person, _correct(run, images, labels))
        first = correct if first is None else first
        gained = correct - first
        resampled = gained[draws].sum(axis=1) / counts[draws].sum(axis=1)
        print(
            json.dumps(
                {
                    "run": str(run.path),
                    "people": len(counts),
                    "examples": int(counts.sum()),
                    "accuracy": round(float(correct.sum() / counts.sum()), 4),
                    "points": round(float(100 * gained.sum() / counts.sum()), 2),
                    "standard_error": round(float(100 * resampled.std()), 2),
                }
            ),
            flush=True,
        )


if __name__ == "__main__":
    cli.run(main)

"""Compares trained runs on many more people than their own test sets have.

    python benchmarks/unseen_clients.py --runs=OUT/none/seed_0,OUT/auto/seed_0 --people=150

Thirty test writers tell two networks apart to about a point of accuracy, twenty faces to three.
The embedded data sets are rendered, so there can be as many people as one likes. Each run prints
one JSON line with the accuracy, its difference from the first run's in points, and the standard
error of that difference over people. `tff-autoprune report RUN --dense=RUN --people=150` says the
same of one run.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from absl import flags

from tff_autoprune import cli
from tff_autoprune.errors import UserError
from tff_autoprune.run_directory import RunDirectory

_RUNS = flags.DEFINE_list("runs", None, "Folders of runs on one data set with one seed.")
_PEOPLE = flags.DEFINE_integer("people", 150, "People to test on.", lower_bound=10)


def main(argv: Sequence[str]) -> None:
    """Prints a line for each run."""
    del argv
    cli.require(_RUNS, "name runs, e.g. --runs=OUT/none/seed_0,OUT/auto/seed_0.")
    from tff_autoprune import models
    from tff_autoprune.report import dense

    runs = [RunDirectory(path).require("config", "pruned_model") for path in _RUNS.value]
    settings = runs[0].read_config()["config"]
    for run in runs:
        other = run.read_config()["config"]
        if any(other[key] != settings[key] for key in ("data", "seed")):
            raise UserError(f"--runs: {run.path} has another data set or seed than {runs[0].path}.")
    people = dense.unseen_clients(settings, _PEOPLE.value)
    counts, right = dense.counts_by_client(
        people, [models.load_trained(run, "pruned") for run in runs]
    )
    for run, found in zip(runs, right):
        points, error = dense.difference(found - right[0], counts)
        print(
            json.dumps(
                {
                    "run": str(run.path),
                    "people": len(counts),
                    "examples": int(counts.sum()),
                    "accuracy": round(float(found.sum() / counts.sum()), 4),
                    "points": round(points, 2),
                    "standard_error": round(error, 2),
                }
            ),
            flush=True,
        )


if __name__ == "__main__":
    cli.run(main)

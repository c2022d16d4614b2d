"""What a run leaves: its configuration as it was used, and summary.json."""

from __future__ import annotations

import importlib.metadata
import platform
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, Optional

import ml_collections
import numpy as np

from tff_autoprune import config as config_lib
from tff_autoprune import data as data_lib
from tff_autoprune import files, surgery
from tff_autoprune.program import cohort as cohort_lib
from tff_autoprune.program import privacy
from tff_autoprune.program.learner import Learner
from tff_autoprune.program.records import Records
from tff_autoprune.run_directory import RunDirectory

_PACKAGES = (
    "tensorflow",
    "tensorflow-federated",
    "tensorflow-model-optimization",
    "tflite-runtime",
    "numpy",
    "pandas",
)
#: Columns of metrics.csv that are bytes which were sent.
TRAFFIC = ("download_bytes", "upload_bytes", "race_bytes", "feedback_bytes")


def write_config(
    directory: RunDirectory, config: ml_collections.ConfigDict, data: data_lib.FederatedData
) -> None:
    """Writes the full configuration, the versions of what runs it, and what the data is."""
    versions = {name: importlib.metadata.version(name) for name in _PACKAGES}
    versions["python"] = platform.python_version()
    files.write_json(
        directory.config,
        {
            "config": config_lib.to_json(config),
            "versions": versions,
            "data_spec": data.spec.to_json(),
        },
    )


def write(
    directory: RunDirectory,
    *,
    config: ml_collections.ConfigDict,
    data: data_lib.FederatedData,
    learner: Learner,
    dense: surgery.Network,
    records: Records,
    evaluation_clients: Sequence[str],
    validations: int,
    seconds: float,
) -> dict[str, Any]:
    """Evaluates the finished model and writes the summary.

    Args:
      directory: The run directory.
      config: The run's configuration.
      data: Its data.
      learner: The network at the end.
      dense: The network at the beginning.
      records: Rows of metrics.csv and pruning.csv.
      evaluation_clients: Validation clients that accuracy is reported on.
      validations: How often validation clients have evaluated the model.
      seconds: What the run took, all of its parts together.

    Returns:
      The summary. The accuracy on validation clients is that of clients which no decision asked.
    """
    total = records.total
    retried = int(total("retried_cohorts"))
    engine, state = learner.engine, learner.state
    datasets = cohort_lib.evaluation_datasets(data.validation, evaluation_clients)
    accuracy = {"validation": engine.evaluate(state, datasets, question=1)["metric"]}
    # The yardstick of the simulation, which nobody would have in a deployment.
    datasets = cohort_lib.evaluation_datasets(data.test, data.test.client_ids)
    tested = engine.evaluate(state, datasets, public=True)
    accuracy.update(test=tested["metric"], test_examples=tested["num_examples"])
    accuracy["chance"] = engine.task.chance
    network = learner.present()
    return directory.update_summary(
        seed=config.seed,
        method=config.pruning.method,
        rounds_completed=len(records.metrics),
        data={
            "name": data.spec.name,
            "train_clients": len(data.train.client_ids),
            "classes": data.spec.num_classes,
        },
        dense=_sizes(dense),
        pruned=_sizes(network),
        # The columns and keys named "accuracy" hold this metric.
        metric=engine.task.metric._asdict(),
        accuracy=accuracy,
        communication={
            "download_bytes": int(total("download_bytes")),
            "upload_bytes": int(total("upload_bytes")),
            "race_bytes": int(total("race_bytes")),
            "feedback_bytes": int(total("feedback_bytes")),
            "total_bytes": int(sum(total(column) for column in TRAFFIC)),
            "dense_equivalent_bytes": int(
                total("dense_download_bytes") + total("dense_upload_bytes")
            ),
        },
        faults={
            "failed_clients": int(total("failed_clients")),
            "retried_cohorts": retried,
        },
        privacy=guarantee(
            learner, data, rounds=len(records.metrics) + retried, questions=validations + 1
        ),
        time={
            "total_seconds": seconds,
            "seconds_per_round_median": statistics.median(
                row["seconds"] for row in records.metrics
            ),
            "rebuild_seconds_total": total("rebuild_seconds"),
        },
    )


def guarantee(
    learner: Learner, data: data_lib.FederatedData, *, rounds: int, questions: int
) -> Optional[dict[str, Any]]:
    """Tells what differential privacy clients have; None without it.

    Args:
      learner: A learner of the run.
      data: The run's data.
      rounds: Cohorts that were aggregated, also those that were tried again.
      questions: Evaluations that validation clients took part in.
    """
    return privacy.describe(
        learner.engine.settings.aggregator,
        rounds=rounds,
        num_clients=len(data.train.client_ids),
        questions=questions,
    )


def _sizes(network: surgery.Network) -> dict[str, Any]:
    cost, model = network.cost, network.model
    widths = {
        layer.name: int(getattr(layer, "filters", None) or getattr(layer, "units", 0))
        for layer in model.layers
    }
    return {
        "parameters": cost.parameters,
        "flops": cost.flops,
        "bytes": cost.bytes,
        "nonzero_parameters": int(sum(np.count_nonzero(w) for w in model.get_weights())),
        "filters": {name: width for name, width in widths.items() if width},
    }


def at_chance(summary: Mapping[str, Any]) -> Optional[str]:
    """Returns a line for a model that has learned next to nothing; None for one that has."""
    accuracy = summary["accuracy"]
    chance, reached = accuracy.get("chance"), accuracy["test"]
    if chance is None or not data_lib.is_guessing(
        reached, guessing=chance, examples=accuracy["test_examples"]
    ):
        return None
    return (
        f"the model has learned next to nothing: accuracy {reached:.3f}, guessing has {chance:.3f};"
        " look at the scale of the inputs (the model is fed numbers from 0 to 1) and at"
        " federated.client_learning_rate"
    )


def headline(summary: dict[str, Any]) -> str:
    """Returns the last line of a run."""
    dense, pruned = summary["dense"], summary["pruned"]
    traffic = summary["communication"]
    share = traffic["total_bytes"] / max(1, traffic["dense_equivalent_bytes"])
    found = summary["privacy"]
    epsilon = f", epsilon {found['epsilon']:.2f}" if found and found["epsilon"] else ""
    return (
        f"done: {dense['parameters']:,} -> {pruned['parameters']:,} parameters,"
        f" {dense['flops'] / 1e6:.2f} -> {pruned['flops'] / 1e6:.2f} MFLOP,"
        f" test accuracy {summary['accuracy']['test']:.3f},"
        f" traffic {traffic['total_bytes'] / 1e6:.1f} MB ({share:.0%} of the dense model's)"
        + epsilon
    )

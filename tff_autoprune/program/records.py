"""What a run writes down: metrics.csv, pruning.csv and TensorBoard events.

The rows are kept in memory and in the checkpoint, and the files are rewritten whole: a resumed run
shows every round once, and a reader never sees half a line.
"""

from __future__ import annotations

import asyncio
import json
import pathlib
from typing import Any, Optional

import pandas as pd
import tensorflow_federated as tff

from tff_autoprune import files
from tff_autoprune.search.base import Decision

METRICS_COLUMNS = (
    "round",
    "seconds",
    "clients",
    "failed_clients",
    "retried_cohorts",
    "examples",
    "train_loss",
    "train_accuracy",
    "validation_loss",
    "validation_accuracy",
    "parameters",
    "flops",
    "model_bytes",
    "download_bytes",
    "upload_bytes",
    "race_bytes",
    "race_flops",
    "feedback_bytes",
    "dense_download_bytes",
    "dense_upload_bytes",
    "rebuild_seconds",
    "penalty",
)
PRUNING_COLUMNS = (
    "round",
    "action",
    "removed",
    "filters_removed",
    "factorized",
    "parameters",
    "flops",
    "measured_points",
    "measured_error",
    "reason",
)
Row = dict[str, Any]


class Records:
    """The rows of metrics.csv and pruning.csv."""

    def __init__(
        self,
        metrics_path: pathlib.Path,
        pruning_path: pathlib.Path,
        release_manager: Optional[tff.program.ReleaseManager] = None,
    ) -> None:
        """Starts without rows; writes nothing yet.

        Args:
          metrics_path: Of metrics.csv.
          pruning_path: Of pruning.csv.
          release_manager: Is given each new row of metrics.csv and its round.
        """
        self._metrics_path = metrics_path
        self._pruning_path = pruning_path
        self._release_manager = release_manager
        self.metrics: list[Row] = []
        self.pruning: list[Row] = []

    def restore(self, metrics: list[Row], pruning: list[Row]) -> None:
        """Replaces all rows by those of a checkpoint and rewrites the files."""
        self.metrics, self.pruning = list(metrics), list(pruning)
        self.write()

    def add_round(self, row: Row) -> None:
        """Adds the row of one round, with `filters/GROUP` columns beside METRICS_COLUMNS."""
        self.metrics.append(row)
        self.write()
        if self._release_manager is not None:
            asyncio.run(self._release_manager.release(row, row["round"]))

    def add_decision(
        self, round_num: int, decision: Decision, *, parameters: int, flops: int
    ) -> None:
        """Adds the row of one decision; sizes are those after it was carried out."""
        removed = {name: len(ids) for name, ids in decision.structure.removed.items()}
        factorized = {
            name: f"{how.kind}, rank {how.rank}"
            for name, how in decision.structure.factorized.items()
        }
        measured = decision.measured
        self.pruning.append(
            {
                "round": round_num,
                "action": decision.action.value,
                "removed": json.dumps(removed),
                "filters_removed": sum(removed.values()),
                "factorized": json.dumps(factorized),
                "parameters": parameters,
                "flops": flops,
                "measured_points": measured.points if measured else None,
                "measured_error": measured.error if measured else None,
                "reason": decision.reason,
            }
        )
        self.write()

    def total(self, column: str) -> float:
        """Returns the sum of a column of metrics.csv over all rounds."""
        return sum(row[column] for row in self.metrics)

    def write(self) -> None:
        """Writes both files."""
        names = (name for row in self.metrics for name in row if name.startswith("filters/"))
        filters = dict.fromkeys(names)  # Each once, in the order of the network.
        _write_csv(self._metrics_path, self.metrics, [*METRICS_COLUMNS, *filters])
        _write_csv(self._pruning_path, self.pruning, list(PRUNING_COLUMNS))


def _write_csv(path: pathlib.Path, rows: list[Row], columns: list[str]) -> None:
    files.write_text(path, pd.DataFrame(rows, columns=columns).to_csv(index=False))

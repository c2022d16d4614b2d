"""The run directory: where one training run keeps everything that it made.

RUN/
  config.json     what was really used, with package versions
  metrics.csv     a line a round
  pruning.csv     a line a pruning decision
  summary.json    the figures; every command adds its own section
  tensorboard/    events
  models/         dense.keras, pruned.keras
  tflite/         NAME.FORMAT.tflite
  plots/          NAME.png
  checkpoints/    what --resume starts from
  report.html     the page a person reads
"""

from __future__ import annotations

import json
import os
import pathlib
from typing import Any, Union

from tff_autoprune import files
from tff_autoprune.errors import UserError

SUMMARY_SCHEMA_VERSION = 1


class RunDirectory:
    """Names and reads the files of a run; writes its summary atomically."""

    def __init__(self, path: Union[str, os.PathLike[str]]) -> None:
        """Names the files below `path`; touches nothing."""
        self.path = pathlib.Path(path)
        self.config = self.path / "config.json"
        self.metrics = self.path / "metrics.csv"
        self.pruning = self.path / "pruning.csv"
        self.summary = self.path / "summary.json"
        self.report = self.path / "report.html"
        self.tensorboard = self.path / "tensorboard"
        self.models = self.path / "models"
        self.dense_model = self.models / "dense.keras"
        self.pruned_model = self.models / "pruned.keras"
        self.tflite = self.path / "tflite"
        self.plots = self.path / "plots"
        self.checkpoints = self.path / "checkpoints"

    def require(self, *names: str) -> RunDirectory:
        """Returns self if the named files (attributes of this class) exist.

        Raises:
          UserError: If the folder or one of the files is missing.
        """
        if not self.path.is_dir():
            raise UserError(f"--run_dir: {self.path} is not a folder; train writes one.")
        for name in names:
            file = getattr(self, name)
            if not file.exists():
                raise UserError(
                    f"--run_dir: {file} is missing; has `scripts/train.py --run_dir={self.path}`"
                    " finished?"
                )
        return self

    def read_config(self) -> dict[str, Any]:
        """Returns config.json: {"config": ..., "versions": ...}.

        Raises:
          UserError: If the file is missing or is not JSON.
        """
        return self._read_json(self.require("config").config)

    def read_summary(self) -> dict[str, Any]:
        """Returns summary.json, or {} before the first write.

        Raises:
          UserError: If the file is not JSON.
        """
        return self._read_json(self.summary) if self.summary.exists() else {}

    def update_summary(self, **sections: Any) -> dict[str, Any]:
        """Replaces the named top-level sections of summary.json, keeps the others.

        Args:
          **sections: JSON values by section name, e.g. `export={...}`.

        Returns:
          The whole summary as it now stands on disk.
        """
        summary = {"schema_version": SUMMARY_SCHEMA_VERSION, **self.read_summary(), **sections}
        files.write_json(self.summary, summary)
        return summary

    @staticmethod
    def _read_json(path: pathlib.Path) -> dict[str, Any]:
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UserError(f"{path}: expected JSON, found {error}.") from error

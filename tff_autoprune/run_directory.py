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
  log.txt         what the commands said, in a run of a comparison
"""

from __future__ import annotations

import json
import os
import pathlib
from collections.abc import Sequence
from typing import Any, Union

from tff_autoprune import files
from tff_autoprune.errors import UserError

SUMMARY_SCHEMA_VERSION = 1
_LOCK = ".summary.lock"
# What there may be before config.json is written: a run that was stopped at once leaves it.
_EARLY = ("log.txt", "tensorboard/events.out.tfevents.*")
# What the commands write, config.json last: while it is there, the folder is a run.
_WRITTEN = (
    *_EARLY,
    _LOCK,
    "metrics.csv",
    "pruning.csv",
    "summary.json",
    "report.html",
    "models/*.keras",
    "tflite/*.tflite",
    "plots/*.png",
    "checkpoints/round_*.checkpoint",
    "config.json",
)
_PHONES = "android"


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
                    f"--run_dir: {file} is missing; has `tff-autoprune train --run_dir={self.path}`"
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

    def is_run(self) -> bool:
        """Returns whether the folder holds a run."""
        if not self.config.exists():
            return False
        try:
            return {"config", "versions"} <= set(self._read_json(self.config))
        except (UserError, TypeError):
            return False

    def check_writable(self, *, overwrite: bool) -> None:
        """Makes the folder, and checks that a run may write there without harm to other files.

        Args:
          overwrite: Whether an earlier run may be deleted.

        Raises:
          UserError: If the folder cannot be made or written to, holds files that a run would
            replace and that are not those of a run, or holds a run that may not be deleted.
        """
        if self.path.exists() and not self.path.is_dir():
            raise UserError(f"--run_dir: {self.path} is a file, not a folder.")
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"--run_dir: {self.path} cannot be made: {error.strerror}.") from error
        if not os.access(self.path, os.W_OK):
            raise UserError(f"--run_dir: {self.path} cannot be written to.")
        if not self.is_run():
            others = sorted(set(self._written()) - set(self._written(_EARLY)))
            if others:
                raise UserError(
                    f"--run_dir: {self.path} is not a run, but holds {others[0].name}, which a run"
                    " would replace; name another folder."
                )
        elif not overwrite:
            raise UserError(
                f"--run_dir: {self.path} holds a run already; add --resume to go on with it,"
                " --overwrite to replace it, or name another folder."
            )
        elif (self.path / _PHONES).exists():
            raise UserError(
                f"--overwrite: {self.path / _PHONES} holds measurements of the earlier run on"
                " phones; move or delete that folder first."
            )

    def clear(self) -> None:
        """Deletes what a run wrote into the folder, and nothing else.

        Raises:
          UserError: As `check_writable`.
        """
        self.check_writable(overwrite=True)
        for file in self._written():
            file.unlink()
            if file.parent != self.path and not any(file.parent.iterdir()):
                file.parent.rmdir()

    def _written(self, patterns: Sequence[str] = _WRITTEN) -> list[pathlib.Path]:
        return [file for pattern in patterns for file in self.path.glob(pattern)]

    def update_summary(self, **sections: Any) -> dict[str, Any]:
        """Replaces the named top-level sections of summary.json, keeps the others.

        Args:
          **sections: JSON values by section name, e.g. `export={...}`.

        Returns:
          The whole summary as it now stands on disk.
        """
        # Two commands may work on one run: neither may lose what the other has just added.
        with files.locked(self.path / _LOCK):
            summary = {"schema_version": SUMMARY_SCHEMA_VERSION, **self.read_summary(), **sections}
            files.write_json(self.summary, summary)
        return summary

    def forget(self, *sections: str) -> None:
        """Removes top-level sections of summary.json, if it has them."""
        with files.locked(self.path / _LOCK):
            summary = self.read_summary()
            kept = {name: value for name, value in summary.items() if name not in sections}
            if kept != summary:
                files.write_json(self.summary, kept)

    @staticmethod
    def _read_json(path: pathlib.Path) -> dict[str, Any]:
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UserError(f"{path}: expected JSON, found {error}.") from error

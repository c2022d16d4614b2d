"""Reads a run directory; whatever a run does not have yet is None."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Mapping
from typing import Any, Optional

import numpy as np
import pandas as pd

from tff_autoprune.errors import UserError
from tff_autoprune.run_directory import RunDirectory

FILTERS_PREFIX = "filters/"


# What became of a change of the network, by what pruning.csv calls the decision.
_OUTCOMES = {"move": "kept", "refuse": "refused"}


@dataclasses.dataclass(frozen=True)
class Points:
    """Points of accuracy, and their standard error where it is known."""

    value: float
    error: Optional[float] = None


@dataclasses.dataclass(frozen=True)
class Cut:
    """One change of the network and what became of it.

    Attributes:
      round_num: After which round it was made.
      removed: Number of channels removed, by group.
      factorized: How layers were factorized, in words, by layer.
      parameters: Number of parameters after it.
      measured: Points of accuracy gained in a race on held-out clients; None without a race.
      outcome: "kept" or "refused".
      reason: The method's own words.
    """

    round_num: int
    removed: dict[str, int]
    factorized: dict[str, str]
    parameters: int
    measured: Optional[Points]
    outcome: str
    reason: str

    @property
    def filters_removed(self) -> int:
        """Number of channels removed over all groups."""
        return sum(self.removed.values())


@dataclasses.dataclass(frozen=True)
class RunData:
    """What a run directory holds.

    Attributes:
      directory: Where it is.
      name: The folder's name.
      config: The configuration that was really used.
      versions: Package versions by name.
      summary: summary.json.
      metrics: metrics.csv, a row a round; None if there is none.
      cuts: The moves made and refused, in order; empty if there are none.
    """

    directory: RunDirectory
    name: str
    config: dict[str, Any]
    versions: dict[str, str]
    summary: dict[str, Any]
    metrics: Optional[pd.DataFrame]
    cuts: list[Cut]

    @property
    def method(self) -> str:
        """The pruning method."""
        return self.config["pruning"]["method"]

    @property
    def groups(self) -> list[str]:
        """Names of the groups of filters whose widths metrics.csv has, in network order."""
        if self.metrics is None:
            return []
        names = [name for name in self.metrics.columns if name.startswith(FILTERS_PREFIX)]
        return [name[len(FILTERS_PREFIX) :] for name in names]

    def widths(self, group: str) -> np.ndarray:
        """Returns the channels of a group in each round, float64 [rounds]; NaN where it is not."""
        return self.metrics[FILTERS_PREFIX + group].to_numpy(float)

    def final_widths(self) -> dict[str, int]:
        """Returns the number of channels of every group at the end.

        metrics.csv has the widths that each round trained with, so what was cut after the last
        round is still to be counted.
        """
        widths = {}
        for group in self.groups:
            known = self.widths(group)
            widths[group] = int(known[np.isfinite(known)][-1])
        last = int(self.metrics["round"].iloc[-1])
        for cut in self.cuts:
            if cut.round_num == last and cut.outcome == "kept":
                for group in widths.keys() & cut.removed.keys():
                    widths[group] -= cut.removed[group]
        return widths

    def traffic(self, dense: bool = False) -> np.ndarray:
        """Returns the bytes sent in both directions up to each round, float64 [rounds].

        Args:
          dense: What the model of the start would have cost instead.
        """
        if dense:
            columns = ["dense_download_bytes", "dense_upload_bytes"]
        else:
            columns = ["download_bytes", "upload_bytes", "race_bytes", "feedback_bytes"]
        # A method that never races has no such column in runs of other versions.
        columns = [name for name in columns if name in self.metrics]
        return self.metrics[columns].fillna(0).sum(axis=1).cumsum().to_numpy(float)

    def accuracy(self) -> pd.DataFrame:
        """Returns columns `round` and `accuracy` of the rounds that were validated."""
        found = self.metrics[["round", "validation_accuracy"]].dropna()
        return found.rename(columns={"validation_accuracy": "accuracy"})


def load(path: pathlib.Path) -> RunData:
    """Reads a run directory.

    Args:
      path: Of a training that has begun.

    Returns:
      What is there.

    Raises:
      UserError: If there is no configuration, or a file is damaged.
    """
    directory = RunDirectory(path)
    stored = directory.read_config()
    summary = directory.read_summary()
    if not summary:
        raise UserError(
            f"--run_dir: {directory.summary} is missing; has"
            f" `tff-autoprune train --run_dir={path}` finished?"
        )
    return RunData(
        directory=directory,
        name=directory.path.resolve().name,
        config=stored["config"],
        versions=stored.get("versions", {}),
        summary=summary,
        metrics=_read_csv(directory.metrics, ("round", "validation_accuracy", "parameters")),
        cuts=_cuts(_read_csv(directory.pruning, ("round", "action"))),
    )


def _read_csv(path: pathlib.Path, needed: tuple[str, ...]) -> Optional[pd.DataFrame]:
    """Returns the table, or None if the file is missing or has no rows."""
    if not path.exists():
        return None
    try:
        table = pd.read_csv(path)
    except ValueError as error:
        raise UserError(f"{path}: expected a CSV table, found {error}.") from error
    missing = [name for name in needed if name not in table.columns]
    if missing:
        raise UserError(f"{path}: expected a column {missing[0]!r}, found {list(table.columns)}.")
    return table if len(table) else None


def _cuts(table: Optional[pd.DataFrame]) -> list[Cut]:
    """Returns the moves made and refused."""
    if table is None:
        return []
    rows = table.astype(object).where(table.notna(), None).to_dict("records")
    return [
        Cut(
            round_num=int(row["round"]),
            removed={k: int(v) for k, v in json.loads(row.get("removed") or "{}").items() if v},
            factorized=json.loads(row.get("factorized") or "{}"),
            parameters=int(row["parameters"]),
            measured=_points(row, "measured"),
            outcome=_OUTCOMES[row["action"]],
            reason=str(row.get("reason") or ""),
        )
        for row in rows
        if row["action"] in _OUTCOMES
    ]


def _points(row: Mapping[str, Any], name: str) -> Optional[Points]:
    value = row.get(f"{name}_points")
    return None if value is None else Points(value, row.get(f"{name}_error"))

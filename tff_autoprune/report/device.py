"""Latency on phones, if `android_bench` was told to write into the run directory."""

from __future__ import annotations

import dataclasses
from typing import Optional

import pandas as pd

from tff_autoprune.errors import UserError
from tff_autoprune.run_directory import RunDirectory

FOLDER = "android"
_SPEEDUP_COLUMNS = ("device_title", "configuration", "baseline", "model", "speedup", "verdict")
_MEASUREMENT_COLUMNS = ("device_title", "configuration", "model", "valid", "latency_us")


@dataclasses.dataclass(frozen=True)
class DeviceSpeedup:
    """Two models on one device in one configuration.

    Attributes:
      device: The device, and its backend if it is not a real one.
      configuration: Delegate, threads and cores.
      baseline: The slower model's name, e.g. "dense.float32".
      model: The faster model's.
      baseline_ms: Median of its valid rounds; None if there is none.
      model_ms: Likewise.
      speedup: Ratio of the medians; None if too few rounds were valid.
      low: Lower end of the 95 % interval of the speed-up.
      high: Its upper end.
      verdict: In words.
    """

    device: str
    configuration: str
    baseline: str
    model: str
    baseline_ms: Optional[float]
    model_ms: Optional[float]
    speedup: Optional[float]
    low: Optional[float]
    high: Optional[float]
    verdict: str


def load(run: RunDirectory) -> list[DeviceSpeedup]:
    """Reads RUN/android/{speedups,measurements}.csv.

    Args:
      run: The run directory.

    Returns:
      A comparison per device, configuration and pair of models; empty if there are none.

    Raises:
      UserError: If a file is not a table of `android_bench`.
    """
    folder = run.path / FOLDER
    if not (folder / "speedups.csv").exists():
        return []
    speedups = _read(folder / "speedups.csv", _SPEEDUP_COLUMNS)
    measured = _read(folder / "measurements.csv", _MEASUREMENT_COLUMNS)
    valid = measured[measured["valid"].astype(bool)]
    medians = valid.groupby(["device_title", "configuration", "model"])["latency_us"].median()

    def milliseconds(row: dict, model: str) -> Optional[float]:
        found = medians.get((row["device_title"], row["configuration"], row[model]))
        return None if found is None else float(found) / 1000

    return [
        DeviceSpeedup(
            device=row["device_title"],
            configuration=row["configuration"],
            baseline=row["baseline"],
            model=row["model"],
            baseline_ms=milliseconds(row, "baseline"),
            model_ms=milliseconds(row, "model"),
            speedup=row["speedup"],
            low=row["low"],
            high=row["high"],
            verdict=row["verdict"],
        )
        for row in speedups.astype(object).where(speedups.notna(), None).to_dict("records")
    ]


def _read(path: object, columns: tuple[str, ...]) -> pd.DataFrame:
    try:
        table = pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: expected a table of android_bench, found {error}.") from error
    missing = [name for name in columns if name not in table.columns]
    if missing:
        raise UserError(f"{path}: expected a column {missing[0]!r}, found {list(table.columns)}.")
    return table

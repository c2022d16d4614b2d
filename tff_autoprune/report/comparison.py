"""Several runs side by side: runs that differ in their seed only are one contender."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Optional

import numpy as np
import pandas as pd

from tff_autoprune.errors import UserError
from tff_autoprune.report import bill, dense, text
from tff_autoprune.report.run_data import RunData

# A method that is told a size is given that of `auto` with the same seed.
_TOLD_A_SIZE = ("uniform", "unstructured")


@dataclasses.dataclass(frozen=True)
class Contender:
    """Runs of one configuration with different seeds.

    Attributes:
      label: The method, or what tells it from the others.
      runs: Its runs.
    """

    label: str
    runs: tuple[RunData, ...]

    @property
    def method(self) -> str:
        """The pruning method."""
        return self.runs[0].method

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds of its runs."""
        return tuple(run.config["seed"] for run in self.runs)


@dataclasses.dataclass(frozen=True)
class Measure:
    """A figure of a contender: its column in comparison.csv and its row on the page.

    Attributes:
      column: Name of the column.
      label: Name of the row.
      value: From a run to its value; None if the run does not have it.
      shown: The value as people read it.
      better: `max` or `min`; None if neither is better.
    """

    column: str
    label: str
    value: Callable[[RunData], Optional[float]]
    shown: Callable[[Optional[float]], str]
    better: Optional[Callable[..., float]] = None


def _at(path: str) -> Callable[[RunData], Optional[float]]:
    def value(run: RunData) -> Optional[float]:
        found: Any = run.summary
        for step in path.split("/"):
            found = found.get(step) if isinstance(found, Mapping) else None
        return found

    return value


def _bytes(value: Optional[float]) -> str:
    return text.si(value, "B")


def _flops(value: Optional[float]) -> str:
    return text.si(value, "")


def _total_bytes(run: RunData) -> Optional[float]:
    sent = run.summary.get("communication")
    return sent["total_bytes"] if sent else None


MEASURES = (
    Measure("accuracy", "Test accuracy", _at("accuracy/test"), text.percent, max),
    Measure("points", "Points against dense", _at("against_dense/points"), text.points, max),
    Measure("parameters", "Parameters", _at("pruned/parameters"), text.integer, min),
    Measure(
        "nonzero_parameters",
        "Parameters that are not zero",
        _at("pruned/nonzero_parameters"),
        text.integer,
        min,
    ),
    Measure("flops", "FLOPs per image", _at("pruned/flops"), _flops, min),
    Measure(
        "tflite_bytes", "TFLite file, float32", _at("export/pruned.float32/bytes"), _bytes, min
    ),
    Measure(
        "tflite_compressed_bytes",
        "The same, zipped",
        _at("export/pruned.float32/compressed_bytes"),
        _bytes,
        min,
    ),
    Measure(
        "tflite_int8_bytes",
        "TFLite file, full int8",
        _at("export/pruned.full_int8/bytes"),
        _bytes,
        min,
    ),
    Measure("total_bytes", "Traffic, both directions", _total_bytes, _bytes, min),
    Measure(
        "bytes_to_arrive",
        "Traffic to dense minus one point",
        _at("against_dense/bytes_to_arrive"),
        _bytes,
        min,
    ),
    Measure("training_flops", "Client training, FLOPs", _at("clients/training_flops"), _flops, min),
    Measure(
        "modelled_seconds", "Time on a fleet, modelled", _at("fleet/seconds"), text.seconds, min
    ),
    Measure(
        "modelled_seconds_to_arrive",
        "Time to dense minus one point, modelled",
        _at("fleet/seconds_to_arrive"),
        text.seconds,
        min,
    ),
    Measure("rounds", "Rounds", _at("rounds_completed"), text.integer),
    Measure("training_seconds", "Training time here", _at("time/total_seconds"), text.seconds),
)
_TO_ARRIVE = "bytes_to_arrive"


def contenders(runs: Sequence[RunData]) -> list[Contender]:
    """Groups runs.

    Args:
      runs: The runs, of one data set.

    Returns:
      Contenders in the order of their first runs.

    Raises:
      UserError: If the runs are on different data.
    """
    first = runs[0]
    for run in runs[1:]:
        if run.config["data"] != first.config["data"]:
            raise UserError(
                f"comparison: {first.directory.path} is on {_data(first)}, {run.directory.path} on"
                f" {_data(run)}; figures on different data do not compare."
            )
    groups: dict[str, list[RunData]] = {}
    for run in runs:
        groups.setdefault(_key(run), []).append(run)
    apart: list[list[RunData]] = []
    for group in groups.values():
        seeds = [run.config["seed"] for run in group]
        apart += [group] if len(set(seeds)) == len(seeds) else [[run] for run in group]
    methods = [group[0].method for group in apart]
    found = []
    for group, method in zip(apart, methods):
        if methods.count(method) == 1:
            label = method
        else:
            label = group[0].name if len(group) == 1 else str(group[0].directory.path.parent.name)
        found.append(Contender(label, tuple(group)))
    labels = [one.label for one in found]
    return [
        one
        if labels.count(one.label) == 1
        else dataclasses.replace(one, label=str(one.runs[0].directory.path))
        for one in found
    ]


def _data(run: RunData) -> str:
    return ", ".join(f"{k}={v}" for k, v in run.config["data"].items() if v is not None)


def _key(run: RunData) -> str:
    config = {name: value for name, value in run.config.items() if name != "seed"}
    if run.method in _TOLD_A_SIZE:
        config["pruning"] = {**config["pruning"], "target_parameters": None}
    return json.dumps(config, sort_keys=True)


def dense_run(runs: Sequence[RunData], run: RunData) -> Optional[RunData]:
    """Returns the dense run that a run compares with; None if there is none."""
    for other in runs:
        same = all(other.config[name] == run.config[name] for name in ("data", "seed"))
        if other.method == "none" and same:
            return other
    return None


def same_seeds(found: Sequence[Contender]) -> bool:
    """Returns whether all contenders met the same clients and the same draws."""
    return len({tuple(sorted(one.seeds)) for one in found}) == 1


def table(found: Sequence[Contender], latencies: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """Returns comparison.csv: a row a contender, means over its runs.

    Args:
      found: The contenders.
      latencies: By label, what `latency_statistics.figures` says of its first run's float32 model;
        all measured in one session. Empty if they were not measured.
    """
    rows = []
    for one in found:
        row: dict[str, Any] = {"method": one.label, "runs": len(one.runs)}
        for measure in MEASURES:
            values = known(one, measure)
            row[measure.column] = float(np.mean(values)) if values else None
            if measure.column == "accuracy":
                row["accuracy_deviation"] = float(np.std(values)) if values else None
            if measure.column == "points":
                row["points_error"] = points_error(one)
            if measure.column == _TO_ARRIVE:
                row["runs_arrived"] = len(values)
        row["latency_ms"] = latencies.get(one.label, {}).get("latency_ms_median")
        rows.append(row)
    return pd.DataFrame(rows).set_index("method")


def known(one: Contender, measure: Measure) -> list[float]:
    """Returns the values of a measure that the runs of a contender have."""
    values = (measure.value(run) for run in one.runs)
    return [value for value in values if value is not None]


def points_error(one: Contender) -> Optional[float]:
    """Returns the standard error over clients of the mean difference from the dense runs."""
    sections = [run.summary.get("against_dense") for run in one.runs]
    errors = [section["standard_error"] for section in sections if section]
    return float(np.sqrt(np.sum(np.square(errors))) / len(errors)) if errors else None


def rows(
    found: Sequence[Contender], latencies: Mapping[str, Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Returns a row per measure that at least one contender has.

    Returns:
      [{"label", "cells": [{"value", "shown", "best"}, ...]}, ...]; the best of several different
      values is marked, if all contenders have the same seeds.
    """
    result = []
    for measure in MEASURES:
        cells = [_cell(one, measure) for one in found]
        if any(cell["value"] is not None for cell in cells):
            result.append(
                _marked(measure.label, cells, measure.better if same_seeds(found) else None)
            )
    if latencies:
        cells = [
            {
                "value": latencies[one.label]["latency_ms_median"],
                "shown": text.milliseconds(latencies[one.label]["latency_ms_median"]),
                "more": "{} to {}".format(
                    *map(text.milliseconds, latencies[one.label]["latency_ms_interval95"])
                ),
            }
            for one in found
        ]
        result.append(_marked("Latency, host", cells, min))
    return result


def _cell(one: Contender, measure: Measure) -> dict[str, Any]:
    values = known(one, measure)
    value = float(np.mean(values)) if values else None
    shown, more = measure.shown(value), ""
    if measure.column == "points":
        error = points_error(one)
        # The dense run itself differs from itself by nothing.
        shown = text.MISSING if one.method == "none" else text.points(value, error)
        value = None if one.method == "none" else value
    elif measure.column == "accuracy" and len(values) > 1:
        more = f"± {100 * np.std(values):.1f}"
    elif values and len(values) < len(one.runs):
        more = f"{len(values)} of {text.count(len(one.runs), 'run')}"
    return {"value": value, "shown": shown, "more": more}


def _marked(
    label: str, cells: list[dict[str, Any]], better: Optional[Callable[..., float]]
) -> dict[str, Any]:
    values = [cell["value"] for cell in cells if cell["value"] is not None]
    best = better(values) if better and len(set(values)) > 1 else None
    for cell in cells:
        cell["best"] = cell["value"] is not None and cell["value"] == best
    return {"label": label, "cells": cells}


def markdown(found: Sequence[Contender], latencies: Mapping[str, Mapping[str, Any]]) -> str:
    """Returns the page's table in Markdown."""
    lines = [
        "| | " + " | ".join(one.label for one in found) + " |",
        "|---|" + "---|" * len(found),
    ]
    for row in rows(found, latencies):
        cells = [" ".join(filter(None, (c["shown"], c["more"]))) for c in row["cells"]]
        lines.append(f"| {row['label']} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def differences(found: Sequence[Contender]) -> list[tuple[str, list[str]]]:
    """Returns the fields of the configuration that the contenders do not share, with values."""
    flat = [[dict(_flatten(run.config)) for run in one.runs] for one in found]
    names = dict.fromkeys(name for configs in flat for config in configs for name in config)
    result = []
    for name in names:
        values = [
            ", ".join(dict.fromkeys(str(config.get(name, text.MISSING)) for config in configs))
            for configs in flat
        ]
        if len(set(values)) > 1:
            result.append((name, values))
    return result


def _flatten(config: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    pairs = []
    for name, value in config.items():
        if isinstance(value, Mapping):
            pairs += _flatten(value, f"{prefix}{name}.")
        else:
            pairs.append((prefix + name, value))
    return pairs


def headline(found: Sequence[Contender]) -> str:
    """Says what pruning cost and saved, if one contender is dense; else what there is."""
    others = [one for one in found if one.method != "none"]
    best = others[0] if len(others) == 1 else None
    best = next((one for one in others if one.method == "auto"), best)
    dense_ones = [one for one in found if one.method == "none"]
    names = ", ".join(one.label for one in found)
    if len(dense_ones) != 1 or best is None or not same_seeds(found):
        return names
    parameters, points, arrive = (
        next(m for m in MEASURES if m.column == column)
        for column in ("parameters", "points", _TO_ARRIVE)
    )
    sizes = [np.mean(known(one, parameters) or [np.nan]) for one in (dense_ones[0], best)]
    if not known(best, points) or not np.isfinite(sizes).all():
        return names
    words = (
        f"{best.label}: {100 * (1 - sizes[1] / sizes[0]):.0f} % fewer parameters,"
        f" {text.points(float(np.mean(known(best, points))), points_error(best))} points"
    )
    sent = [known(one, arrive) for one in (dense_ones[0], best)]
    if all(sent):
        share = np.mean(sent[1]) / np.mean(sent[0])
        words += f", {text.percent(float(share), 0)} of the bytes to dense minus one point"
    return words


def thresholds(runs: Sequence[RunData]) -> dict[str, float]:
    """Returns the validation accuracy at which each run has arrived, by its path."""
    found = {}
    for run in runs:
        other = dense_run(runs, run)
        if other is not None:
            found[str(run.directory.path)] = dense.dense_threshold(other)
    return found


def client_flops(run: RunData) -> Optional[np.ndarray]:
    """Returns the training operations of all clients up to each round; None if not counted."""
    if run.metrics is None or "examples" not in run.metrics:
        return None
    return np.cumsum(bill.training_flops(run))

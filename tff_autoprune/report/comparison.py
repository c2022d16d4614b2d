"""Several runs side by side: figures, accuracy for time and traffic, what was set differently."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Optional

from tff_autoprune.report import text
from tff_autoprune.report.run_data import RunData
from tff_autoprune.report.summary_figures import SummaryFigures


@dataclasses.dataclass(frozen=True)
class _Measure:
    """A row of the comparison: what to look up, how to show it, and which direction is better."""

    label: str
    path: str
    formatter: Callable[[Optional[float]], str]
    best: Optional[Callable[..., float]] = None


def _bytes(value: Optional[float]) -> str:
    return text.si(value, "B")


_MEASURES = (
    _Measure("Test accuracy", "accuracy/test", text.percent, max),
    _Measure("Validation accuracy", "accuracy/validation", text.percent, max),
    _Measure("Parameters", "pruned/parameters", text.integer, min),
    _Measure("FLOPs per image", "pruned/flops", lambda value: text.si(value, ""), min),
    _Measure("TFLite file, float32", "export/pruned.float32/bytes", _bytes, min),
    _Measure("TFLite file, full int8", "export/pruned.full_int8/bytes", _bytes, min),
    _Measure("Latency, host", "benchmark/pruned/latency_ms_median", text.milliseconds, min),
    _Measure("Download", "communication/download_bytes", _bytes, min),
    _Measure("Upload", "communication/upload_bytes", _bytes, min),
    _Measure("Rounds", "rounds_completed", text.integer),
    _Measure("Training time", "time/total_seconds", text.seconds),
)


def rows(runs: Sequence[RunData]) -> list[dict[str, Any]]:
    """Returns a row per measure that at least one run has.

    Returns:
      [{"label", "cells": [{"shown", "best"}, ...]}, ...]; the best of several different values is
      marked.
    """
    found = []
    for measure in _MEASURES:
        figures = [SummaryFigures(run.summary, run.name) for run in runs]
        values = [figure.at(measure.path) for figure in figures]
        known = [value for value in values if value is not None]
        if not known:
            continue
        best = measure.best(known) if measure.best and len(set(known)) > 1 else None
        found.append(
            {
                "label": measure.label,
                "cells": [
                    {
                        "shown": figure.show(measure.path, measure.formatter),
                        "best": value is not None and value == best,
                    }
                    for figure, value in zip(figures, values)
                ],
            }
        )
    return found


def differences(runs: Sequence[RunData]) -> list[tuple[str, list[str]]]:
    """Returns the fields of the configuration that the runs do not share, with their values."""
    flat = [dict(_flatten(run.config)) for run in runs]
    names = dict.fromkeys(name for config in flat for name in config)
    found = []
    for name in names:
        values = [str(config.get(name, text.MISSING)) for config in flat]
        if len(set(values)) > 1:
            found.append((name, values))
    return found


def _flatten(config: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    pairs = []
    for name, value in config.items():
        if isinstance(value, Mapping):
            pairs += _flatten(value, f"{prefix}{name}.")
        else:
            pairs.append((prefix + name, value))
    return pairs


def headline(runs: Sequence[RunData]) -> str:
    """Says what pruning cost and saved, if one run is dense; else what the runs span."""
    dense = [run for run in runs if run.method == "none"]
    others = [run for run in runs if run.method != "none"]
    if len(dense) == 1 and len(others) == 1:
        base, pruned = dense[0].summary, others[0].summary
        accuracy = [s.get("accuracy", {}).get("test") for s in (base, pruned)]
        if None not in accuracy:
            saved = 1 - pruned["pruned"]["parameters"] / base["pruned"]["parameters"]
            points = text.signed(100 * (accuracy[1] - accuracy[0]), 1)
            return f"{100 * saved:.0f} % fewer parameters, accuracy {points} points"
    return ", ".join(run.name for run in runs)

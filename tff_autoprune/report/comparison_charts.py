"""The charts of several runs: accuracy for what it cost, and for size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Optional

import numpy as np

from tff_autoprune.report import comparison, fleet, text, vega
from tff_autoprune.report.comparison import Contender
from tff_autoprune.report.run_data import RunData
from tff_autoprune.report.vega import Chart, Spec


def of(found: Sequence[Contender], device_fleet: Optional[fleet.Fleet]) -> dict[str, Chart]:
    """Returns the charts of a comparison, by name.

    Args:
      found: The contenders.
      device_fleet: For the modelled time; None leaves it out.
    """
    drawn = [accuracy(found, device_fleet), size(found)]
    return {chart.name: chart for chart in drawn if chart is not None}


def accuracy(found: Sequence[Contender], device_fleet: Optional[fleet.Fleet]) -> Optional[Chart]:
    """Validation accuracy of all runs over what it cost."""
    data = [
        {"method": one.label, **row}
        for one in found
        for run in one.runs
        for row in _points(run, device_fleet)
    ]
    if not data:
        return None
    costs = {"round": "round", "megabytes": "MB sent, both directions"}
    if all("flops" in row for row in data):
        costs["flops"] = "training of all clients, FLOPs"
    if all("hours" in row for row in data):
        costs["hours"] = "modelled time on the fleet, hours"
    panels = [
        _panel(index, field, title, found, data)
        for index, (field, title) in enumerate(costs.items())
    ]
    # The legend is that of the first plot.
    apart = {"scale": {"color": "independent", "strokeDash": "independent"}}
    return vega.chart("accuracy_cost", _words(found), *panels, resolve=apart)


def _points(run: RunData, device_fleet: Optional[fleet.Fleet]) -> list[Spec]:
    if run.metrics is None:
        return []
    columns: dict[str, Any] = {
        "round": vega.plain(run.metrics["round"]),
        "accuracy": vega.plain(run.metrics["validation_accuracy"]),
        "megabytes": vega.plain(run.traffic() / 1e6),
    }
    spent = comparison.client_flops(run)
    if spent is not None:
        columns["flops"] = vega.plain(spent)
        if device_fleet is not None:
            columns["hours"] = vega.plain(np.cumsum(fleet.per_round(run, device_fleet)[0]) / 3600)
    rows = [{"run": str(run.directory.path), **row} for row in vega.rows(**columns)]
    return [row for row in rows if row["accuracy"] is not None]


def _panel(
    index: int, field: str, title: str, found: Sequence[Contender], data: list[Spec]
) -> Spec:
    # All plots are of the same points; the first carries the legend.
    return {
        "height": 210,
        "data": {"values": data},
        "mark": {"type": "line", "point": {"size": 30}},
        "encoding": {
            "x": vega.quantity(field, title, scale={"zero": True}, format="~s"),
            "y": vega.quantity("accuracy", "validation accuracy", format=".0%"),
            "detail": {"field": "run", "type": "nominal"},
            **_by_contender(found, legend=index == 0, dashes=True),
            "tooltip": [
                vega.shown("method", "method"),
                vega.shown("round", "round", "d"),
                vega.shown("accuracy", "accuracy", ".1%"),
                vega.shown("megabytes", "MB", ",.1f"),
            ],
        },
    }


def _by_contender(found: Sequence[Contender], *, legend: bool, dashes: bool = False) -> Spec:
    labels = [one.label for one in found]
    colours = [vega.SERIES[i % len(vega.SERIES)] for i in range(len(labels))]
    channels = {"color": colours}
    if dashes and len(labels) > len(vega.SERIES):
        channels["strokeDash"] = [
            vega.DASHES[i // len(vega.SERIES) % len(vega.DASHES)] for i in range(len(labels))
        ]
    return {
        channel: {
            "field": "method",
            "type": "nominal",
            "scale": {"domain": labels, "range": values},
            **({} if legend else {"legend": None}),
        }
        for channel, values in channels.items()
    }


def size(found: Sequence[Contender]) -> Optional[Chart]:
    """Test accuracy of all runs over their parameters that are not zero."""
    data = []
    for one in found:
        for run in one.runs:
            pruned = run.summary.get("pruned", {})
            parameters = pruned.get("nonzero_parameters", pruned.get("parameters"))
            reached = run.summary.get("accuracy", {}).get("test")
            if parameters and reached is not None:
                data.append(
                    {
                        "method": one.label,
                        "seed": run.config["seed"],
                        "parameters": parameters,
                        "accuracy": reached,
                    }
                )
    if not data:
        return None
    panel = {
        "height": 230,
        "data": {"values": data},
        "mark": {"type": "point", "filled": True, "size": 110, "opacity": 0.85},
        "encoding": {
            "x": vega.quantity(
                "parameters", "parameters that are not zero", scale={"type": "log"}, format="~s"
            ),
            "y": vega.quantity("accuracy", "test accuracy", format=".1%"),
            **_by_contender(found, legend=True),
            "tooltip": [
                vega.shown("method", "method"),
                vega.shown("seed", "seed", "d"),
                vega.shown("parameters", "parameters", ",d"),
                vega.shown("accuracy", "accuracy", ".1%"),
            ],
        },
    }
    return vega.chart("accuracy_parameters", _words(found), panel)


def _words(found: Sequence[Contender]) -> str:
    parts = []
    for one in found:
        reached = [run.summary.get("accuracy", {}).get("test") for run in one.runs]
        known = [value for value in reached if value is not None]
        parts.append(f"{one.label} {text.percent(float(np.mean(known)) if known else None)}")
    return f"Test accuracy: {'; '.join(parts)}."

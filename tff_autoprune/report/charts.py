"""The charts of one run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tff_autoprune.report import text, vega
from tff_autoprune.report.run_data import Cut, RunData
from tff_autoprune.report.vega import DENSE, PRUNED, TAKEN_BACK, Chart, Spec

_HEAT_STEPS = 5
_OUTCOMES = ("kept", "refused")
_SHAPES = ("triangle-down", "cross")


def of(run: RunData) -> dict[str, Chart]:
    """Returns the charts for which a run has figures, by name."""
    found = []
    if run.metrics is not None:
        found.append(training(run))
    if run.groups:
        found.append(filters(run))
    if "benchmark" in run.summary:
        found.append(latency(run.summary["benchmark"]["formats"]))
    return {chart.name: chart for chart in found}


def training(run: RunData) -> Chart:
    """Accuracy, size and traffic over the rounds, one above the other, with every cut marked."""
    metrics = run.metrics
    rounds = [int(number) for number in metrics["round"]]
    cut_after = {cut.round_num: _cut_text(cut) for cut in run.cuts}
    used, full = run.traffic() / 1e6, run.traffic(dense=True) / 1e6
    datasets = {
        "rounds": vega.rows(
            round=rounds,
            train=vega.plain(metrics["train_accuracy"]),
            validation=vega.plain(metrics["validation_accuracy"]),
            parameters=vega.plain(metrics["parameters"]),
            used=vega.plain(used),
            full=vega.plain(full),
            cut=[cut_after.get(number, "none") for number in rounds],
        ),
        "cuts": [
            {"round": c.round_num + 0.5, "parameters": c.parameters, "outcome": c.outcome}
            for c in run.cuts
        ],
    }
    panels = [
        _panel("Accuracy", 250, rounds, _accuracy_layers()),
        _panel("Parameters", 110, rounds, _size_layers(run.summary["dense"]["parameters"])),
        _panel("Traffic so far, both directions, MB", 110, rounds, _traffic_layers()),
    ]
    panels[-1]["encoding"]["x"]["axis"].update(labels=True)
    panels[-1]["encoding"]["x"]["title"] = "round"
    kept = sum(cut.outcome == "kept" for cut in run.cuts)
    returned = sum(cut.outcome == "refused" for cut in run.cuts)
    description = (
        f"Over {len(rounds)} rounds validation accuracy reached"
        f" {text.percent(run.summary.get('accuracy', {}).get('validation'))}. The model went from"
        f" {text.integer(run.summary['dense']['parameters'])} to"
        f" {text.integer(run.summary['pruned']['parameters'])} parameters"
        f" in {text.count(kept, 'move')} that {'was' if kept == 1 else 'were'} kept; {returned}"
        f" {'was' if returned == 1 else 'were'} refused. Traffic was {used[-1]:,.1f} MB;"
        f" the dense model would have needed {full[-1]:,.1f} MB."
    )
    return vega.chart("training", description, *panels, datasets=datasets)


def _panel(title: str, height: int, rounds: list[int], layers: list[Spec]) -> Spec:
    scale = {"domain": [rounds[0] - 0.5, rounds[-1] + 0.5], "nice": False}
    x = vega.quantity("round", scale=scale, labels=False, tickMinStep=1, tickCount=8)
    tooltip = [
        vega.shown("round", "round", "d"),
        vega.shown("validation", "validation clients", ".1%"),
        vega.shown("train", "training clients", ".1%"),
        vega.shown("parameters", "parameters", ",d"),
        vega.shown("used", "traffic, MB", ",.1f"),
        vega.shown("full", "dense traffic, MB", ",.1f"),
        vega.shown("cut", "removed after it"),
    ]
    rows = {"name": "rounds"}
    return {
        "title": title,
        "height": height,
        "data": rows,
        "encoding": {"x": x},
        "layer": [
            _cut_lines(),
            *layers,
            vega.follow(f"at_{title.split()[0].lower()}", x, tooltip, rows),
        ],
    }


def _cut_lines() -> Spec:
    returned = "datum.outcome == 'refused'"
    return {
        "data": {"name": "cuts"},
        "mark": {"type": "rule", "strokeWidth": 1},
        "encoding": {
            "color": {"condition": {"test": returned, "value": TAKEN_BACK}, "value": "var(--cut)"},
            "strokeDash": {"condition": {"test": returned, "value": [5, 4]}, "value": [1, 0]},
        },
    }


def _accuracy_layers() -> list[Spec]:
    known = [{"filter": "isValid(datum.validation)"}]
    last = [*known, {"window": [{"op": "rank", "as": "order"}], "sort": [_newest_first()]}]
    y = vega.quantity("validation", format=".0%")
    return [
        {
            "mark": {"type": "line", "color": DENSE, "strokeWidth": 1.25},
            "encoding": {"y": vega.quantity("train", format=".0%")},
        },
        {
            "transform": known,
            "mark": {"type": "line", "color": PRUNED, "point": {"size": 24, "color": PRUNED}},
            "encoding": {"y": y},
        },
        {
            "transform": [*last, {"filter": "datum.order == 1"}],
            "mark": {
                "type": "text",
                "align": "right",
                "dy": -14,
                "fontSize": 13,
                "fontWeight": "bold",
                "color": PRUNED,
            },
            "encoding": {"y": y, "text": {"field": "validation", "format": ".1%"}},
        },
    ]


def _newest_first() -> Spec:
    return {"field": "round", "order": "descending"}


def _size_layers(dense: int) -> list[Spec]:
    y = vega.quantity("parameters", scale={"zero": True}, format="~s", tickCount=3)
    return [
        {
            "mark": {"type": "rule", "color": DENSE, "strokeWidth": 1.5, "strokeDash": [2, 3]},
            "encoding": {"x": None, "y": {"datum": dense}},
        },
        {"mark": {"type": "area", "interpolate": "step"}, "encoding": {"y": y}},
        {
            "mark": {"type": "line", "color": PRUNED, "interpolate": "step"},
            "encoding": {"y": y},
        },
        {
            "data": {"name": "cuts"},
            "mark": {"type": "point", "size": 70, "opacity": 1},
            "encoding": {
                "y": y,
                "shape": _by_outcome(_SHAPES),
                "color": _by_outcome((PRUNED, TAKEN_BACK)),
                "fill": _by_outcome((PRUNED, TAKEN_BACK)),
            },
        },
    ]


def _by_outcome(values: tuple[str, ...]) -> Spec:
    scale = {"domain": list(_OUTCOMES), "range": list(values)}
    return {"field": "outcome", "type": "nominal", "scale": scale, "legend": None}


def _traffic_layers() -> list[Spec]:
    y = vega.quantity("used", scale={"zero": True}, tickCount=3)
    return [
        {
            "mark": {"type": "line", "color": DENSE, "strokeWidth": 1.5, "strokeDash": [2, 3]},
            "encoding": {"y": {**y, "field": "full"}},
        },
        {"mark": {"type": "area"}, "encoding": {"y": y}},
        {"mark": {"type": "line", "color": PRUNED}, "encoding": {"y": y}},
    ]


def _cut_text(cut: Cut) -> str:
    parts = [f"{name} −{count}" for name, count in list(cut.removed.items())[:4]]
    if len(cut.removed) > 4:
        parts.append(f"{len(cut.removed) - 4} more")
    parts += [f"{name} factorized" for name in cut.factorized]
    return f"{', '.join(parts)} ({cut.outcome})"


def filters(run: RunData) -> Chart:
    """Share of the channels of every group that is left in each round."""
    finals = run.final_widths()
    rounds = run.metrics["round"].to_numpy(int)
    labels, data = {}, []
    for group in run.groups:
        widths = run.widths(group)
        first = widths[np.isfinite(widths)][0]
        last = finals[group]
        labels[group] = f"{first:.0f} → {last}" if first != last else f"{last}"
        data += _runs_of_equal_width(group, f"{group}: {labels[group]}", rounds, widths, first)
    domain = [rounds[0] - 0.5, rounds[-1] + 0.5]
    heat = {
        "domain": [index / (_HEAT_STEPS - 1) for index in range(_HEAT_STEPS)],
        "range": [f"var(--heat-{index})" for index in range(_HEAT_STEPS)],
    }
    panel = {
        "height": max(28, min(44, 200 // len(run.groups))) * len(run.groups),
        "data": {"values": data},
        "mark": {"type": "rect"},
        "encoding": {
            "x": vega.quantity(
                "start", "round", scale={"domain": domain, "nice": False}, grid=False, tickMinStep=1
            ),
            "x2": {"field": "end"},
            "y": {
                "field": "label",
                "type": "nominal",
                "sort": None,
                "title": None,
                "scale": {"paddingInner": 0.1},
            },
            "color": {"field": "share", "type": "quantitative", "scale": heat, "legend": None},
            "tooltip": [
                vega.shown("group", "channels of"),
                vega.shown("rounds", "rounds"),
                vega.shown("width", "left", "d"),
                vega.shown("share", "share", ".0%"),
            ],
        },
    }
    description = "Channels at the start and at the end: " + "; ".join(
        f"{name} {label}" for name, label in labels.items()
    )
    return vega.chart("filters", description + ".", panel)


def _runs_of_equal_width(
    group: str, label: str, rounds: np.ndarray, widths: np.ndarray, first: float
) -> list[Spec]:
    """Returns a row per stretch of rounds; none where the group does not exist."""
    filled = np.nan_to_num(widths, nan=-1)
    starts = np.flatnonzero(np.diff(filled, prepend=-2))
    ends = np.append(starts[1:], len(filled)) - 1
    return [
        {
            "group": group,
            "label": label,
            "start": float(rounds[start] - 0.5),
            "end": float(rounds[end] + 0.5),
            "rounds": f"{rounds[start]} to {rounds[end]}",
            "width": int(filled[start]),
            "share": round(float(filled[start] / first), 4),
        }
        for start, end in zip(starts, ends)
        if filled[start] >= 0
    ]


def latency(formats: Mapping[str, Mapping[str, Any]]) -> Chart:
    """Median latency of both models in every format, with 95 % intervals."""
    data = []
    for name, figures in formats.items():
        for model in ("dense", "pruned"):
            low, high = figures[model]["latency_ms_interval95"]
            row = {"format": name, "model": model, "ms": figures[model]["latency_ms_median"]}
            data.append({**row, "low": low, "high": high})
    y = {"field": "format", "type": "nominal", "sort": None, "title": None}
    x = vega.quantity("ms", "milliseconds per image", scale={"zero": True})
    colour = {
        "field": "model",
        "type": "nominal",
        "scale": {"domain": ["dense", "pruned"], "range": [DENSE, PRUNED]},
    }
    panel = {
        "height": 44 * len(formats),
        "data": {"values": data},
        "encoding": {"y": y},
        "layer": [
            {
                "transform": [{"pivot": "model", "value": "ms", "groupby": ["format"]}],
                "mark": {"type": "rule", "color": "var(--accent-soft)", "strokeWidth": 8},
                "encoding": {"x": {**x, "field": "dense"}, "x2": {"field": "pruned"}},
            },
            {
                "mark": {"type": "rule", "strokeWidth": 1.5},
                "encoding": {
                    "x": {**x, "field": "low"},
                    "x2": {"field": "high"},
                    "color": {**colour, "legend": None},
                },
            },
            {
                "mark": {"type": "point", "size": 110, "filled": True, "opacity": 1},
                "encoding": {
                    "x": x,
                    "color": colour,
                    "tooltip": [
                        vega.shown("format", "format"),
                        vega.shown("model", "model"),
                        vega.shown("ms", "median, ms", ".4~g"),
                        vega.shown("low", "95 % from", ".4~g"),
                        vega.shown("high", "to", ".4~g"),
                    ],
                },
            },
        ],
    }
    description = "Median latency: " + "; ".join(
        f"{name} {text.milliseconds(figures['dense']['latency_ms_median'])} dense,"
        f" {text.milliseconds(figures['pruned']['latency_ms_median'])} pruned"
        for name, figures in formats.items()
    )
    return vega.chart("latency", description + ".", panel)

"""The interactive charts, as Plotly figures in plain JSON.

A colour is the name of a CSS variable of the page, "var(--accent)"; the page's script puts in the
value that the current theme gives it. Dense is gray and pruned is the accent in every chart.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tff_autoprune.report import text
from tff_autoprune.report.run_data import Cut, RunData

DENSE = "var(--dense)"
PRUNED = "var(--accent)"
TAKEN_BACK = "var(--warn)"
_SERIES = [f"var(--series-{index})" for index in range(6)]
_DASHES = ["solid", "dash", "dot", "dashdot", "longdash", "longdashdot"]
_HEAT_STEPS = 5


@dataclasses.dataclass(frozen=True)
class Chart:
    """A figure and what it says to those who cannot see it.

    Attributes:
      name: Its id on the page.
      figure: {"data", "layout"} for Plotly.
      description: Its message in words.
      height: In pixels.
    """

    name: str
    figure: dict[str, Any]
    description: str
    height: int


def _axis(**overrides: Any) -> dict[str, Any]:
    return {
        "gridcolor": "var(--grid)",
        "linecolor": "var(--line)",
        "zeroline": False,
        "ticks": "",
        "automargin": True,
        **overrides,
    }


def _title(words: str) -> dict[str, Any]:
    return {"text": words, "standoff": 8, "font": {"size": 13}}


def _layout(**overrides: Any) -> dict[str, Any]:
    return {
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"family": "var(--font)", "size": 13, "color": "var(--muted)"},
        "margin": {"l": 8, "r": 8, "t": 28, "b": 8},
        "hoverlabel": {
            "bgcolor": "var(--card)",
            "bordercolor": "var(--line)",
            "font": {"color": "var(--text)", "family": "var(--font)", "size": 13},
        },
        "showlegend": False,
        "modebar": {"bgcolor": "rgba(0,0,0,0)", "color": "var(--dense)"},
        **overrides,
    }


def training(run: RunData) -> Chart:
    """Accuracy, size and traffic over the rounds, one above the other, with every cut marked."""
    rounds = run.metrics["round"].tolist()
    accuracy = run.accuracy()
    dense, pruned = run.summary["dense"], run.summary["pruned"]
    megabytes, dense_megabytes = run.traffic() / 1e6, run.traffic(dense=True) / 1e6
    data: list[dict[str, Any]] = [
        {
            "x": rounds,
            "y": _plain(run.metrics["train_accuracy"]),
            "name": "training clients",
            "mode": "lines",
            "line": {"color": DENSE, "width": 1.25},
            "hovertemplate": "%{y:.1%}",
        },
        {
            "x": accuracy["round"].tolist(),
            "y": _plain(accuracy["accuracy"]),
            "name": "validation clients",
            "mode": "lines+markers",
            "line": {"color": PRUNED, "width": 2.5},
            "marker": {"size": 5},
            "hovertemplate": "%{y:.1%}",
        },
        {
            "x": [rounds[0], rounds[-1]],
            "y": [dense["parameters"]] * 2,
            "yaxis": "y2",
            "name": "dense",
            "mode": "lines",
            "line": {"color": DENSE, "width": 1.5, "dash": "dot"},
            "hovertemplate": "%{y:,}",
        },
        {
            "x": rounds,
            "y": run.metrics["parameters"].tolist(),
            "yaxis": "y2",
            "name": "parameters",
            "mode": "lines",
            "line": {"color": PRUNED, "width": 2.5, "shape": "hvh"},
            "fill": "tozeroy",
            "fillcolor": "var(--accent-soft)",
            "hovertemplate": "%{y:,}",
        },
        {
            "x": rounds,
            "y": _plain(dense_megabytes),
            "yaxis": "y3",
            "name": "dense model's traffic",
            "mode": "lines",
            "line": {"color": DENSE, "width": 1.5, "dash": "dot"},
            "hovertemplate": "%{y:,.1f} MB",
        },
        {
            "x": rounds,
            "y": _plain(megabytes),
            "yaxis": "y3",
            "name": "traffic",
            "mode": "lines",
            "line": {"color": PRUNED, "width": 2.5},
            "fill": "tozeroy",
            "fillcolor": "var(--accent-soft)",
            "hovertemplate": "%{y:,.1f} MB",
        },
        *_cut_markers(run),
    ]
    layout = _layout(
        hovermode="x unified",
        xaxis=_axis(title=_title("round"), anchor="y3", range=[rounds[0] - 0.5, rounds[-1] + 0.5]),
        yaxis=_axis(domain=[0.54, 1], tickformat=".0%"),
        yaxis2=_axis(domain=[0.27, 0.46], rangemode="tozero", nticks=4, tickformat="~s"),
        yaxis3=_axis(domain=[0, 0.19], rangemode="tozero", nticks=4, ticksuffix=" MB"),
        annotations=[
            _panel_title("Accuracy", 1.0),
            _panel_title("Parameters", 0.46),
            _panel_title("Traffic so far, both directions", 0.19),
            _end_label(accuracy["round"].iloc[-1], accuracy["accuracy"].iloc[-1], "y"),
        ]
        if len(accuracy)
        else [],
        shapes=[_cut_line(cut) for cut in run.cuts],
    )
    used, full = megabytes[-1], dense_megabytes[-1]
    kept = sum(cut.outcome == "kept" for cut in run.cuts)
    returned = sum(cut.outcome == "taken back" for cut in run.cuts)
    description = (
        f"Over {len(rounds)} rounds validation accuracy reached"
        f" {text.percent(run.summary.get('accuracy', {}).get('validation'))}. The model went from"
        f" {text.integer(dense['parameters'])} to {text.integer(pruned['parameters'])} parameters"
        f" in {kept} cuts that were kept; {returned} were taken back. Traffic was {used:,.1f} MB;"
        f" the dense model would have needed {full:,.1f} MB."
    )
    return Chart("training", {"data": data, "layout": layout}, description, 620)


def _panel_title(title: str, top: float) -> dict[str, Any]:
    return {
        "text": f"<b>{title}</b>",
        "x": 0,
        "y": top,
        "xref": "paper",
        "yref": "paper",
        "xanchor": "left",
        "yanchor": "bottom",
        "yshift": 4,
        "showarrow": False,
        "font": {"color": "var(--text)", "size": 13},
    }


def _end_label(x: float, y: float, axis: str) -> dict[str, Any]:
    return {
        "text": f"<b>{text.percent(float(y))}</b>",
        "x": float(x),
        "y": float(y),
        "yref": axis,
        "xanchor": "right",
        "yanchor": "bottom",
        "yshift": 6,
        "bgcolor": "var(--card)",
        "opacity": 0.9,
        "showarrow": False,
        "font": {"color": PRUNED, "size": 13},
    }


def _cut_line(cut: Cut) -> dict[str, Any]:
    returned = cut.outcome == "taken back"
    return {
        "type": "line",
        "xref": "x",
        "yref": "paper",
        "x0": cut.round_num + 0.5,
        "x1": cut.round_num + 0.5,
        "y0": 0,
        "y1": 1,
        "layer": "below",
        "line": {
            "color": TAKEN_BACK if returned else "var(--cut)",
            "width": 1,
            "dash": "dash" if returned else "solid",
        },
    }


def _cut_markers(run: RunData) -> list[dict[str, Any]]:
    """Returns a mark per cut on the parameter curve, told apart by shape as well as colour."""
    styles = {
        "kept": ("triangle-down", PRUNED),
        "pending": ("triangle-down-open", PRUNED),
        "taken back": ("x", TAKEN_BACK),
    }
    traces = []
    for outcome, (symbol, color) in styles.items():
        cuts = [cut for cut in run.cuts if cut.outcome == outcome]
        if cuts:
            traces.append(
                {
                    "x": [cut.round_num + 0.5 for cut in cuts],
                    "y": [cut.parameters for cut in cuts],
                    "yaxis": "y2",
                    "name": f"cut, {outcome}",
                    "mode": "markers",
                    "marker": {"symbol": symbol, "size": 10, "color": color},
                    "text": [_cut_text(cut) for cut in cuts],
                    "hovertemplate": "%{text}",
                }
            )
    return traces


def _cut_text(cut: Cut) -> str:
    removed = ", ".join(f"{name} −{count}" for name, count in list(cut.removed.items())[:4])
    more = len(cut.removed) - 4
    return (
        f"{cut.filters_removed} filters ({removed}{f', and {more} more' if more > 0 else ''})"
        f"<br>{text.integer(cut.parameters)} parameters left"
    )


def filters(run: RunData) -> Chart:
    """Share of the filters of every group that is left in each round."""
    widths = np.array([run.widths(group) for group in run.groups])
    first, last = widths[:, 0], run.final_widths().values()
    share = widths / first[:, np.newaxis]
    count = [
        f"{before} → {after}" if before != after else f"{before}"
        for before, after in zip(first, last)
    ]
    height = 64 + max(28, min(44, 200 // len(widths))) * len(widths)
    steps = [index / (_HEAT_STEPS - 1) for index in range(_HEAT_STEPS)]
    figure = {
        "data": [
            {
                "type": "heatmap",
                "x": run.metrics["round"].tolist(),
                "y": run.groups,
                "z": np.round(share, 4).tolist(),
                "customdata": widths.tolist(),
                "zmin": 0,
                "zmax": 1,
                "xgap": 0,
                "ygap": 3,
                "colorscale": [[step, f"var(--heat-{i})"] for i, step in enumerate(steps)],
                "hovertemplate": "%{y}, round %{x}<br>%{customdata} filters, %{z:.0%}"
                "<extra></extra>",
                "showscale": False,
            }
        ],
        "layout": _layout(
            margin={"l": 8, "r": 8, "t": 8, "b": 8},
            xaxis=_axis(title=_title("round"), showgrid=False),
            yaxis=_axis(
                autorange="reversed",
                showgrid=False,
                tickmode="array",
                tickvals=run.groups,
                ticktext=[f"{name}  <b>{label}</b>" for name, label in zip(run.groups, count)],
            ),
        ),
    }
    description = "Filters at the start and at the end: " + "; ".join(
        f"{name} {label}" for name, label in zip(run.groups, count)
    )
    return Chart("filters", figure, description + ".", height)


def latency(formats: Mapping[str, Mapping[str, Any]]) -> Chart:
    """Median latency of both models in every format, with 95 % intervals."""
    names = list(formats)
    data = []
    for model, color, symbol in (("dense", DENSE, "circle-open"), ("pruned", PRUNED, "circle")):
        medians = [formats[name][model]["latency_ms_median"] for name in names]
        intervals = [formats[name][model]["latency_ms_interval95"] for name in names]
        data.append(
            {
                "x": medians,
                "y": names,
                "name": model,
                "mode": "markers",
                "marker": {"color": color, "size": 11, "symbol": symbol, "line": {"width": 2}},
                "error_x": {
                    "type": "data",
                    "symmetric": False,
                    "array": [high - m for m, (_, high) in zip(medians, intervals)],
                    "arrayminus": [m - low for m, (low, _) in zip(medians, intervals)],
                    "color": color,
                    "thickness": 1.5,
                    "width": 5,
                },
                "hovertemplate": model + " %{y}: %{x:.4g} ms<extra></extra>",
            }
        )
    figure = {
        "data": data,
        "layout": _layout(
            showlegend=True,
            legend={"orientation": "h", "x": 0, "y": 1.0, "yanchor": "bottom"},
            xaxis=_axis(title=_title("milliseconds per image"), rangemode="tozero"),
            yaxis=_axis(autorange="reversed"),
            shapes=[
                {
                    "type": "line",
                    "x0": formats[name]["dense"]["latency_ms_median"],
                    "x1": formats[name]["pruned"]["latency_ms_median"],
                    "y0": name,
                    "y1": name,
                    "layer": "below",
                    "line": {"color": "var(--accent-soft)", "width": 8},
                }
                for name in names
            ],
        ),
    }
    description = "Median latency: " + "; ".join(
        f"{name} {text.milliseconds(formats[name]['dense']['latency_ms_median'])} dense,"
        f" {text.milliseconds(formats[name]['pruned']['latency_ms_median'])} pruned"
        for name in names
    )
    return Chart("latency", figure, description + ".", 120 + 44 * len(names))


def accuracy_of_runs(runs: Sequence[RunData]) -> Chart:
    """Validation accuracy of several runs over the rounds and over the bytes they sent."""
    data = []
    for index, run in enumerate(runs):
        if run.metrics is None:
            continue
        accuracy = run.accuracy()
        sent = dict(zip(run.metrics["round"], run.traffic() / 1e6))
        style = {
            "name": run.name,
            "legendgroup": run.name,
            "mode": "lines+markers",
            "marker": {"size": 5},
            "line": {
                "color": _SERIES[index % len(_SERIES)],
                "dash": _DASHES[index // len(_SERIES) % len(_DASHES)],
                "width": 2.5,
            },
        }
        values = _plain(accuracy["accuracy"])
        data.append({**style, "x": accuracy["round"].tolist(), "y": values})
        data[-1]["hovertemplate"] = "%{y:.1%}"
        data.append(
            {
                **style,
                "x": [sent[round_num] for round_num in accuracy["round"]],
                "y": values,
                "xaxis": "x2",
                "yaxis": "y2",
                "showlegend": False,
                "hovertemplate": "%{y:.1%} after %{x:,.1f} MB",
            }
        )
    layout = _layout(
        showlegend=True,
        legend={"orientation": "h", "x": 0, "y": 1.04, "yanchor": "bottom"},
        grid={"rows": 2, "columns": 1, "pattern": "independent", "ygap": 0.3},
        xaxis=_axis(title=_title("round")),
        xaxis2=_axis(title=_title("MB sent, both directions"), rangemode="tozero"),
        yaxis=_axis(tickformat=".0%", title=_title("validation accuracy")),
        yaxis2=_axis(tickformat=".0%", title=_title("validation accuracy"), matches="y"),
    )
    description = "Test accuracy: " + "; ".join(
        f"{run.name} {text.percent(run.summary.get('accuracy', {}).get('test'))}" for run in runs
    )
    return Chart("accuracy-of-runs", {"data": data, "layout": layout}, description + ".", 640)


def _plain(values: Any) -> list[Any]:
    """Returns JSON numbers, with None for what is missing, at a precision that a plot can show."""
    array = np.asarray(values, float)
    return [float(f"{value:.6g}") if np.isfinite(value) else None for value in array]

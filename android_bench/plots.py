"""Pictures of results, as PNG. Anything that is not a phone is written across them."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable

import matplotlib

matplotlib.use("Agg")

import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from android_bench.device import BACKEND_PHONE
from android_bench.terminal import shorten

# Okabe and Ito's palette, which colour-blind readers can tell apart.
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_GREY = "#8a8a8a"
_STYLE = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "figure.dpi": 120,
}
_WIDTH = 8.0
_OPERATOR_TYPES = 5


def draw_all(
    measurements: pd.DataFrame,
    speedups: pd.DataFrame,
    operators: pd.DataFrame,
    sustained: pd.DataFrame,
) -> dict[str, bytes]:
    """Returns the pictures that the data allow: name -> PNG.

    Args:
      measurements: As `report.Frames` has it, like the others.
      speedups: May be empty, as with a single model.
      operators: May be empty, as without profiling.
      sustained: May be empty, too.
    """
    measurements, operators, sustained = (
        table.assign(model=table["model"].map(shorten)) if "model" in table else table
        for table in (measurements, operators, sustained)
    )
    pictures: dict[str, Callable[[], Figure]] = {}
    if not speedups.dropna(subset=["speedup"]).empty:
        pictures["speedup"] = lambda: _speedup(speedups.dropna(subset=["speedup"]))
    if not measurements.dropna(subset=["latency_us"]).empty:
        pictures["latency"] = lambda: _latency(measurements)
        pictures["rounds"] = lambda: _rounds(measurements)
    if not operators.empty:
        pictures["operators"] = lambda: _operators(operators)
    if not sustained.empty:
        pictures["sustained"] = lambda: _sustained(sustained)
    backends = sorted(set(measurements["backend"]) - {BACKEND_PHONE})
    with plt.rc_context(_STYLE), warnings.catch_warnings():
        # Fonts lack some scripts, and long names leave little room: neither is the user's fault.
        warnings.simplefilter("ignore")
        return {name: _png(draw(), backends) for name, draw in pictures.items()}


def _speedup(rows: pd.DataFrame) -> Figure:
    rows = rows.iloc[::-1]
    figure, axes = plt.subplots(figsize=(_WIDTH, 1.1 + 0.42 * len(rows)))
    for y, row in enumerate(rows.itertuples()):
        known = pd.notna(row.low)
        if known:
            axes.plot([row.low, row.high], [y, y], color=_COLORS[0], linewidth=2.5)
        axes.plot(row.speedup, y, "o", color=_COLORS[0], markersize=7)
        label = f"{row.speedup:.2f}x" + (f"  [{row.low:.2f}, {row.high:.2f}]" if known else "")
        axes.annotate(
            label,
            (row.high if known else row.speedup, y),
            xytext=(8, 0),
            textcoords="offset points",
            va="center",
        )
    axes.axvline(1, color=_GREY, linewidth=1, linestyle="--")
    axes.set_yticks(range(len(rows)), rows["title"])
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.margins(x=0.25)
    axes.set_xlim(left=min(0.9, axes.get_xlim()[0]))
    axes.set_xlabel("speed-up over the baseline (right of the line: faster; bar: 95 % interval)")
    axes.set_title("Speed-up")
    return figure


def _latency(rows: pd.DataFrame) -> Figure:
    rows = rows.dropna(subset=["latency_us"])
    colors = _model_colors(rows)
    # An axis of its own for each: four threads and one, or two phones, differ too much for one.
    groups = list(rows.groupby(["device_title", "configuration"]))
    figure, grid = plt.subplots(
        len(groups), 1, figsize=(_WIDTH, (0.75 + 0.3 * len(colors)) * len(groups)), squeeze=False
    )
    for axes, ((device, configuration), own) in zip(grid[:, 0], groups):
        for slot, (model, color) in enumerate(colors.items()):
            part = own[own["model"] == model]
            if part.empty:
                continue
            valid, invalid = part[part["valid"]], part[~part["valid"]]
            milliseconds = valid["latency_us"] / 1e3
            axes.plot(milliseconds, [slot] * len(valid), "o", color=color, alpha=0.45, ms=5)
            axes.plot(invalid["latency_us"] / 1e3, [slot] * len(invalid), "x", color=_GREY, ms=5)
            label = "no valid round"
            if not valid.empty:
                axes.plot(milliseconds.median(), slot, "|", color=color, ms=14, mew=2.5)
                label = f"{milliseconds.median():.3g} ms"
            axes.annotate(
                label,
                (part["latency_us"].max() / 1e3, slot),
                xytext=(8, 0),
                textcoords="offset points",
                va="center",
                color=color,
            )
        axes.set_yticks(range(len(colors)), colors)
        axes.set_ylim(len(colors) - 0.5, -0.5)
        axes.set_xlim(left=0, right=1.2 * own["latency_us"].max() / 1e3)
        axes.set_title(f"{device}: {configuration}")
    grid[-1, 0].set_xlabel("ms per inference (dot: a round; bar: median; cross: invalid)")
    return figure


def _rounds(rows: pd.DataFrame) -> Figure:
    devices = list(dict.fromkeys(rows["device_title"]))
    colors = _model_colors(rows)
    figure, grid = plt.subplots(
        len(devices), 2, figsize=(_WIDTH, 0.4 + 2.1 * len(devices)), squeeze=False
    )
    for (left, right), device in zip(grid, devices):
        own = rows[rows["device_title"] == device].reset_index(drop=True)
        for (model, _), part in own.groupby(["model", "configuration"], sort=False):
            part = part.dropna(subset=["latency_us"])
            relative = part["latency_us"] / part["latency_us"].median()
            left.plot(part.index + 1, relative, ".-", color=colors[model], linewidth=0.8)
        left.set_title(f"Drift, {device}")
        left.set_ylabel("time / median round")
        for column, name, style in (("before_c", "case", "-"), ("cpu_before_c", "CPU", ":")):
            known = own.dropna(subset=[column])
            if not known.empty:
                right.plot(known.index + 1, known[column], style, color=_GREY, label=name)
        right.set_title("Temperature before each run")
        right.set_ylabel("°C")
        if right.lines:
            right.legend(frameon=False)
    for axes in grid[-1]:
        axes.set_xlabel("run, in the order in which they were made")
    for model, color in colors.items():
        grid[0, 0].plot([], [], color=color, label=model)
    grid[0, 0].legend(frameon=False)
    return figure


def _sustained(rows: pd.DataFrame) -> Figure:
    figure, axes = plt.subplots(figsize=(_WIDTH, 3))
    for (device, model, configuration), part in rows.groupby(
        ["device_title", "model", "configuration"], sort=False
    ):
        label = f"{model}, {configuration}\n{device}"
        axes.plot(part["at_s"] / 60, part["mean_us"] / 1e3, ".-", linewidth=0.8, label=label)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("minutes without a pause")
    axes.set_ylabel("ms per inference")
    axes.set_title("Speed until and after throttling")
    axes.legend(frameon=False, fontsize=7)
    return figure


def _operators(rows: pd.DataFrame) -> Figure:
    table = rows.pivot_table(
        index=["title", "model"], columns="node_type", values="mean_ms", aggfunc="sum", fill_value=0
    )
    order = table.sum().sort_values(ascending=False).index
    shown = list(order[:_OPERATOR_TYPES])
    table = table.assign(others=table[list(order[_OPERATOR_TYPES:])].sum(axis=1))
    figure, axes = plt.subplots(figsize=(_WIDTH, 1.3 + 0.4 * len(table)))
    left = pd.Series(0.0, index=table.index)
    for kind, color in zip((*shown, "others"), (*_COLORS, _GREY)):
        if table[kind].sum():
            axes.barh(range(len(table)), table[kind], left=left, color=color, label=kind)
            left = left + table[kind]
    axes.set_yticks(range(len(table)), [f"{model}\n{title}" for title, model in table.index])
    axes.invert_yaxis()
    axes.set_xlabel("ms per inference, by kind of operator (from the profiling run)")
    axes.set_title("Where the time goes")
    axes.legend(frameon=False, fontsize=7, ncol=3, loc="upper center", bbox_to_anchor=(0.4, -0.35))
    return figure


def _model_colors(rows: pd.DataFrame) -> dict[str, str]:
    models = list(dict.fromkeys(sorted(rows["model"])))
    return {model: _COLORS[i % len(_COLORS)] for i, model in enumerate(models)}


def _png(figure: Figure, not_phones: list[str]) -> bytes:
    figure.tight_layout()
    if not_phones:
        figure.text(
            0.995,
            1.005,
            f"not a phone: {', '.join(not_phones)}",
            ha="right",
            va="bottom",
            fontsize=9,
            fontweight="bold",
            color="white",
            bbox={"facecolor": "#b00020", "edgecolor": "none", "pad": 3},
        )
    stream = io.BytesIO()
    # Without the version of matplotlib, so that the same data give the same file.
    figure.savefig(stream, format="png", bbox_inches="tight", metadata={"Software": None})
    plt.close(figure)
    return stream.getvalue()

"""The same charts as PNG files, for papers, slides and readme files."""

from __future__ import annotations

from collections.abc import Callable

import matplotlib

matplotlib.use("Agg")  # Plots are files here; a run on a server has no display.

import numpy as np
from matplotlib import colors, figure, ticker
from matplotlib import pyplot as plt

from tff_autoprune import files
from tff_autoprune.report.run_data import RunData

_DENSE, _PRUNED, _TAKEN_BACK = "#8b95a3", "#1f5fd6", "#b3470b"
_HEAT = colors.LinearSegmentedColormap.from_list("left", ["#f3f6fc", "#85abee", "#123f99"])
_STYLE = {
    "axes.edgecolor": "#c5ccd6",
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "figure.constrained_layout.use": True,
    "font.size": 10,
    "grid.color": "#eceff3",
    "legend.frameon": False,
    "svg.hashsalt": "tff_autoprune",
}
_DPI = 160


def write(run: RunData) -> list[str]:
    """Writes plots/*.png of what the run has.

    Args:
      run: The run.

    Returns:
      The names of the files written.
    """
    plots: dict[str, tuple[bool, Callable[[RunData], figure.Figure]]] = {
        "training": (run.metrics is not None, _training),
        "filters": (bool(run.groups), _filters),
        "latency": ("benchmark" in run.summary, _latency),
    }
    written = []
    with plt.rc_context(_STYLE):
        for name, (possible, draw) in plots.items():
            if not possible:
                continue
            drawing = draw(run)
            with files.replacing(run.directory.plots / f"{name}.png") as path:
                drawing.savefig(path, dpi=_DPI)
            plt.close(drawing)
            written.append(f"{name}.png")
    return written


def _training(run: RunData) -> figure.Figure:
    drawing, (top, middle, bottom) = plt.subplots(
        3, 1, sharex=True, figsize=(8, 7), height_ratios=(2.2, 1, 1)
    )
    rounds, accuracy = run.metrics["round"], run.accuracy()
    top.set_title("Accuracy")
    top.plot(rounds, run.metrics["train_accuracy"], color=_DENSE, lw=1, label="training clients")
    top.plot(
        accuracy["round"],
        accuracy["accuracy"],
        color=_PRUNED,
        lw=2,
        marker="o",
        ms=3.5,
        label="validation clients",
    )
    top.yaxis.set_major_formatter(ticker.PercentFormatter(1))
    top.legend(loc="lower right")
    middle.set_title("Parameters")
    middle.axhline(run.summary["dense"]["parameters"], color=_DENSE, ls=":", label="dense")
    middle.step(rounds, run.metrics["parameters"], where="mid", color=_PRUNED, lw=2)
    middle.fill_between(rounds, run.metrics["parameters"], step="mid", color=_PRUNED, alpha=0.12)
    middle.yaxis.set_major_formatter(ticker.EngFormatter(sep=""))
    bottom.set_title("Traffic so far, both directions")
    bottom.plot(rounds, run.traffic(dense=True) / 1e6, color=_DENSE, ls=":", label="dense model")
    bottom.plot(rounds, run.traffic() / 1e6, color=_PRUNED, lw=2, label="this run")
    bottom.set_ylabel("MB")
    bottom.set_xlabel("round")
    bottom.legend(loc="upper left")
    for axes in (middle, bottom):
        axes.set_ylim(bottom=0)
    for cut in run.cuts:
        returned = cut.outcome == "taken back"
        for axes in (top, middle, bottom):
            axes.axvline(
                cut.round_num + 0.5,
                color=_TAKEN_BACK if returned else _PRUNED,
                ls="--" if returned else "-",
                lw=0.8,
                alpha=0.8 if returned else 0.35,
                zorder=0,
            )
    return drawing


def _filters(run: RunData) -> figure.Figure:
    widths = np.array([run.widths(group) for group in run.groups])
    drawing, axes = plt.subplots(figsize=(8, 1.3 + 0.32 * len(widths)))
    rounds = run.metrics["round"].to_numpy()
    shown = axes.imshow(
        widths / widths[:, :1],
        aspect="auto",
        cmap=_HEAT,
        vmin=0,
        vmax=1,
        interpolation="nearest",
        extent=(rounds[0] - 0.5, rounds[-1] + 0.5, len(widths) - 0.5, -0.5),
    )
    finals = run.final_widths()
    labels = [f"{g}  {w[0]}→{finals[g]}" for g, w in zip(run.groups, widths)]
    axes.set_yticks(range(len(labels)), labels)
    axes.grid(False)
    axes.set_title("Filters left in each layer")
    axes.set_xlabel("round")
    drawing.colorbar(shown, ax=axes, format=ticker.PercentFormatter(1), pad=0.02)
    return drawing


def _latency(run: RunData) -> figure.Figure:
    formats = run.summary["benchmark"]["formats"]
    drawing, axes = plt.subplots(figsize=(8, 1.4 + 0.45 * len(formats)))
    for model, color in (("dense", _DENSE), ("pruned", _PRUNED)):
        medians = np.array([formats[name][model]["latency_ms_median"] for name in formats])
        bounds = np.array([formats[name][model]["latency_ms_interval95"] for name in formats]).T
        axes.errorbar(
            medians,
            range(len(formats)),
            xerr=np.abs(bounds - medians),
            fmt="o",
            color=color,
            capsize=3,
            label=model,
        )
    axes.set_yticks(range(len(formats)), list(formats))
    axes.invert_yaxis()
    axes.set_xlim(left=0)
    axes.set_xlabel("milliseconds per image")
    axes.set_title("Latency on the host, medians with 95 % intervals")
    axes.legend()
    return drawing

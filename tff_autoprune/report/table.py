"""The result of a comparison: one row a method, and the plots that say it at a glance."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import Optional

import matplotlib
import numpy as np
import pandas as pd

from tff_autoprune import files
from tff_autoprune.program.comparison import Plan
from tff_autoprune.run_directory import RunDirectory

matplotlib.use("Agg")
from matplotlib import pyplot as plt

# How far below the dense model a model may be to count as having arrived, in accuracy.
_ARRIVAL_MARGIN = 0.01


def table(plan: Plan) -> pd.DataFrame:
    """Gathers the figures of all finished runs.

    Args:
      plan: What was compared.

    Returns:
      A row for each method: runs, mean and standard deviation over seeds of the test accuracy,
      parameters, non-zero parameters, FLOPs, total bytes, bytes until the validation accuracy
      first reached the dense model's final one minus a point (mean over the runs that did; and how
      many did), rounds, bytes of the float32 TFLite file and of the same compressed, and latency.
    """
    rows = []
    for method in plan.methods:
        runs = {seed: plan.run_directory(method, seed) for seed in plan.seeds}
        figures = pd.DataFrame([_figures(plan, seed, run) for seed, run in runs.items()])
        means, deviations = figures.mean(), figures.std(ddof=0)
        rows.append(
            {
                "method": method,
                "runs": len(figures),
                "accuracy": means["accuracy"],
                "accuracy_deviation": deviations["accuracy"],
                **{
                    name: means[name]
                    for name in figures.columns
                    if name not in ("accuracy", "bytes_to_arrive")
                },
                "bytes_to_arrive": means["bytes_to_arrive"],
                "runs_arrived": int(figures["bytes_to_arrive"].notna().sum()),
            }
        )
    return pd.DataFrame(rows).set_index("method")


def write(plan: Plan) -> pd.DataFrame:
    """Writes comparison.csv, .md, .html and three plots into the plan's folder.

    Returns:
      The table.
    """
    result = table(plan)
    files.write_text(plan.out / "comparison.csv", result.to_csv())
    files.write_text(plan.out / "comparison.md", _markdown(result))
    files.write_text(plan.out / "comparison.html", result.to_html(float_format="{:,.4g}".format))
    _plot_accuracy_against_communication(plan)
    _plot_accuracy_against_parameters(plan)
    _plot_filters(plan)
    return result


def _cumulative_bytes(metrics: pd.DataFrame) -> pd.Series:
    columns = ["download_bytes", "upload_bytes", "feedback_bytes"]
    return metrics[columns].sum(axis=1).cumsum()


def _bytes_to_arrive(run: RunDirectory, threshold: float) -> float:
    metrics = pd.read_csv(run.metrics)
    arrived = metrics["validation_accuracy"] >= threshold
    return float(_cumulative_bytes(metrics)[arrived].iloc[0]) if arrived.any() else np.nan


def _dense_accuracy(plan: Plan, seed: int) -> Optional[float]:
    if "none" not in plan.methods:
        return None
    metrics = pd.read_csv(plan.run_directory("none", seed).metrics)
    return float(metrics["validation_accuracy"].dropna().iloc[-1])


def _figures(plan: Plan, seed: int, run: RunDirectory) -> Mapping[str, float]:
    summary = run.read_summary()
    traffic, pruned = summary["communication"], summary["pruned"]
    dense = _dense_accuracy(plan, seed)
    export = summary.get("export", {}).get("pruned.float32", {})
    return {
        "accuracy": summary["accuracy"]["test"],
        "parameters": pruned["parameters"],
        "nonzero_parameters": pruned["nonzero_parameters"],
        "flops": pruned["flops"],
        "total_bytes": traffic["download_bytes"] + traffic["upload_bytes"],
        "rounds": summary["rounds_completed"],
        "tflite_bytes": export.get("bytes", np.nan),
        "tflite_compressed_bytes": export.get("compressed_bytes", np.nan),
        "latency_ms": summary.get("benchmark", {})
        .get("pruned", {})
        .get("latency_ms_median", np.nan),
        "bytes_to_arrive": np.nan
        if dense is None
        else _bytes_to_arrive(run, dense - _ARRIVAL_MARGIN),
    }


def _markdown(result: pd.DataFrame) -> str:
    formats = {
        "accuracy": "{:.4f}",
        "accuracy_deviation": "{:.4f}",
        "latency_ms": "{:.4f}",
    }
    header = ["method", *result.columns]
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    for method, row in result.iterrows():
        cells = [
            "-" if pd.isna(value) else formats.get(name, "{:,.0f}").format(value)
            for name, value in row.items()
        ]
        lines.append("| " + " | ".join([str(method), *cells]) + " |")
    return "\n".join(lines) + "\n"


def _save(figure: plt.Figure, path: pathlib.Path) -> None:
    with files.replacing(path) as temporary:
        figure.savefig(temporary, dpi=130, bbox_inches="tight")
    plt.close(figure)


def _plot_accuracy_against_communication(plan: Plan) -> None:
    figure, axes = plt.subplots(figsize=(7, 4.5))
    for number, method in enumerate(plan.methods):
        for seed in plan.seeds:
            metrics = pd.read_csv(plan.run_directory(method, seed).metrics)
            megabytes = _cumulative_bytes(metrics) / 1e6
            known = metrics["validation_accuracy"].notna()
            axes.plot(
                megabytes[known],
                metrics["validation_accuracy"][known],
                color=f"C{number}",
                alpha=0.8,
                label=method if seed == plan.seeds[0] else None,
            )
    axes.set(xlabel="communication, MB", ylabel="accuracy on validation clients")
    axes.legend()
    axes.grid(alpha=0.3)
    _save(figure, plan.out / "accuracy_communication.png")


def _plot_accuracy_against_parameters(plan: Plan) -> None:
    figure, axes = plt.subplots(figsize=(7, 4.5))
    for number, method in enumerate(plan.methods):
        figures = [_figures(plan, seed, plan.run_directory(method, seed)) for seed in plan.seeds]
        axes.scatter(
            [f["nonzero_parameters"] for f in figures],
            [f["accuracy"] for f in figures],
            color=f"C{number}",
            label=method,
        )
    axes.set(xlabel="non-zero parameters", ylabel="test accuracy", xscale="log")
    axes.legend()
    axes.grid(alpha=0.3)
    _save(figure, plan.out / "accuracy_parameters.png")


def _plot_filters(plan: Plan) -> None:
    figure, all_axes = plt.subplots(
        1, len(plan.methods), figsize=(3.2 * len(plan.methods), 3.2), sharey=True, squeeze=False
    )
    for axes, method in zip(all_axes[0], plan.methods):
        metrics = pd.read_csv(plan.run_directory(method, plan.seeds[0]).metrics)
        for column in metrics.filter(like="filters/"):
            axes.plot(metrics["round"], metrics[column], label=column[len("filters/") :])
        axes.set(title=method, xlabel="round")
        axes.grid(alpha=0.3)
    all_axes[0][0].set_ylabel("filters")
    all_axes[0][-1].legend(fontsize=7)
    _save(figure, plan.out / "filters_rounds.png")

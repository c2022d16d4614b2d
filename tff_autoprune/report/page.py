"""Renders `report.html`: one file with its style, script, plotting library and figures inside."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, Optional

import jinja2
import markupsafe
import plotly.offline

from tff_autoprune.report import architecture as architecture_lib
from tff_autoprune.report import charts, comparison, device, text, warnings
from tff_autoprune.report.run_data import RunData
from tff_autoprune.report.summary_figures import SummaryFigures

_TEMPLATES = pathlib.Path(__file__).parent / "templates"


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        integer=text.integer,
        si=text.si,
        milliseconds=text.milliseconds,
        effect=lambda value: text.MISSING if value is None else text.signed(value, 3),
        left=lambda pair: text.percent(_share(*pair), 0),
        share=lambda pair: _share(*pair) or 0.0,
    )
    return environment


def render_run(
    run: RunData, architecture: str = "", layers: Sequence[architecture_lib.Node] = ()
) -> str:
    """Returns the report of one run.

    Args:
      run: What to report on; parts that it does not have are left out.
      architecture: An inline SVG of the network.
      layers: The layers that the drawing shows.
    """
    figures = SummaryFigures(run.summary, run.name)
    benchmark = run.summary.get("benchmark")
    found: dict[str, Optional[charts.Chart]] = {
        "training": charts.training(run) if run.metrics is not None else None,
        "filters": charts.filters(run) if run.groups else None,
        "latency": charts.latency(benchmark["formats"]) if benchmark else None,
    }
    exports = run.summary.get("export", {})
    return _render(
        "run.html",
        [chart for chart in found.values() if chart],
        title=f"{run.name} · tff_autoprune",
        run=run,
        headline=_headline(run),
        lede=_lede(run),
        warnings=warnings.of(run),
        tiles=_tiles(figures),
        taken_back=any(cut.outcome == "taken back" for cut in run.cuts),
        architecture=markupsafe.Markup(architecture),
        layers=[node for node in layers if node.inputs],
        exports=_export_rows(figures, exports),
        examples=min((entry["examples"] for entry in exports.values()), default=0),
        latencies=_latency_rows(figures),
        latency_note=_latency_note(benchmark) if benchmark else "",
        devices=device.load(run.directory),
        facts=_facts(run),
        config_text=json.dumps(run.config, indent=2),
        versions_text="\n".join(f"{name}=={version}" for name, version in run.versions.items()),
        **found,
    )


def render_comparison(runs: Sequence[RunData]) -> str:
    """Returns a page that shows several runs side by side."""
    accuracy = charts.accuracy_of_runs(runs) if any(r.metrics is not None for r in runs) else None
    return _render(
        "comparison.html",
        [accuracy] if accuracy else [],
        title=f"{len(runs)} runs · tff_autoprune",
        runs=runs,
        headline=comparison.headline(runs),
        rows=comparison.rows(runs),
        accuracy=accuracy,
        differences=comparison.differences(runs),
    )


def _render(template: str, embedded: Sequence[charts.Chart], **context: Any) -> str:
    # "</" inside a JSON string would end the script element that holds it.
    charts_json = json.dumps({chart.name: chart.figure for chart in embedded}).replace("</", "<\\/")
    return (
        _environment()
        .get_template(template)
        .render(
            style=markupsafe.Markup((_TEMPLATES / "style.css").read_text(encoding="utf-8")),
            script=markupsafe.Markup((_TEMPLATES / "report.js").read_text(encoding="utf-8")),
            plotly=markupsafe.Markup(plotly.offline.get_plotlyjs()),
            charts_json=markupsafe.Markup(charts_json),
            **context,
        )
    )


def _share(before: Optional[float], after: Optional[float]) -> Optional[float]:
    return after / before if before and after is not None else None


def _headline(run: RunData) -> str:
    """The run in one sentence: what was saved, and what accuracy is left."""
    summary = run.summary
    parts = []
    if "pruned" in summary:
        saved = 1 - summary["pruned"]["parameters"] / summary["dense"]["parameters"]
        parts.append(f"{100 * saved:.0f} % fewer parameters" if saved else "The dense model")
    speedup = summary.get("benchmark", {}).get("speedup")
    if speedup and parts and round(speedup, 1) > 1:
        parts.append(f"{text.times(speedup)} faster")
    accuracy = summary.get("accuracy", {}).get("test")
    if accuracy is not None:
        parts.append(f"{text.percent(accuracy)} accurate")
    return ", ".join(parts) or f"Run {run.name}"


def _lede(run: RunData) -> str:
    summary, config = run.summary, run.config
    data = summary.get("data", {})
    kept = sum(cut.outcome == "kept" for cut in run.cuts)
    sentence = (
        f"Trained by federated averaging for {summary.get('rounds_completed', 0)} rounds,"
        f" {config['federated']['clients_per_round']} of {data.get('train_clients', 0):,} clients a"
        f" round, {data.get('classes', 0)} classes."
    )
    if run.method == "none":
        return sentence + " Nothing was pruned."
    noun = "cut was" if kept == 1 else "cuts were"
    return f"{sentence} {kept} {noun} kept. The figures are of clients that never trained."


def _tiles(figures: SummaryFigures) -> list[dict[str, Any]]:
    """Returns the before-and-after tiles for which the summary has figures."""
    benchmark = figures.at("benchmark/speedup") is not None
    exported = figures.at("export/pruned.float32/bytes") is not None
    sizes = ("export/dense.float32/bytes", "export/pruned.float32/bytes")
    sent = (figures.at("communication/download_bytes") or 0) + (
        figures.at("communication/upload_bytes") or 0
    )
    tiles = [
        _tile(figures, "Parameters", "dense/parameters", "pruned/parameters", text.integer),
        _tile(figures, "FLOPs per image", "dense/flops", "pruned/flops", lambda v: text.si(v, "")),
        _tile(
            figures,
            "TFLite file" if exported else "Model size",
            *(sizes if exported else ("dense/bytes", "pruned/bytes")),
            lambda v: text.si(v, "B"),
        ),
    ]
    if benchmark:
        median = "benchmark/{}/latency_ms_median"
        tiles.append(
            _tile(
                figures,
                "Latency, host",
                median.format("dense"),
                median.format("pruned"),
                text.milliseconds,
            )
        )
    if figures.at("communication/dense_equivalent_bytes"):
        dense = figures.at("communication/dense_equivalent_bytes")
        tiles.append(
            {
                "label": "Traffic in all",
                "after": text.si(sent, "B"),
                "before": markupsafe.Markup("dense ")
                + figures.show("communication/dense_equivalent_bytes", lambda v: text.si(v, "B")),
                "change": text.change(dense, sent),
                "share": _share(dense, sent),
            }
        )
    if figures.at("accuracy/test") is not None:
        tiles.append(
            {
                "label": "Test accuracy",
                "after": figures.show("accuracy/test", text.percent),
                "before": markupsafe.Markup("validation ")
                + figures.show("accuracy/validation", text.percent),
                "change": "",
                "share": figures.at("accuracy/test"),
            }
        )
    return tiles


def _tile(
    figures: SummaryFigures, label: str, before: str, after: str, formatter: Any
) -> dict[str, Any]:
    return {
        "label": label,
        "after": figures.show(after, formatter),
        "before": markupsafe.Markup("was ") + figures.show(before, formatter),
        "change": text.change(figures.at(before), figures.at(after)),
        "share": _share(figures.at(before), figures.at(after)),
    }


def _export_rows(figures: SummaryFigures, exports: Mapping[str, Any]) -> list[dict[str, Any]]:
    def size(value: Optional[float]) -> str:
        return text.si(value, "B")

    rows = []
    for name in exports:
        model, _, format_name = name.partition(".")
        if model == "dense":
            continue
        dense = f"export/dense.{format_name}/bytes"
        path = f"export/{name}"
        rows.append(
            {
                "format": format_name,
                "fine_tuned": model == "pruned_qat",
                "dense_bytes": figures.show(dense, size),
                "bytes": figures.show(f"{path}/bytes", size),
                "sizes": (figures.at(dense), figures.at(f"{path}/bytes")),
                "compressed_bytes": figures.show(f"{path}/compressed_bytes", size),
                "difference": figures.show(f"{path}/max_abs_difference", lambda v: f"{v:.1e}"),
                "agreement": figures.show(f"{path}/top1_agreement", text.percent),
                "accuracy": figures.show(f"{path}/accuracy", text.percent),
            }
        )
    return rows


def _latency_rows(figures: SummaryFigures) -> list[dict[str, Any]]:
    formats = figures.at("benchmark/formats") or {}
    rows = []
    for name in formats:
        path = f"benchmark/formats/{name}"
        rows.append(
            {
                "format": name,
                "dense": figures.show(f"{path}/dense/latency_ms_median", text.milliseconds),
                "pruned": figures.show(f"{path}/pruned/latency_ms_median", text.milliseconds),
                "speedup": figures.show(f"{path}/speedup", lambda v: f"{v:.2f}×"),
                "interval": "{:.2f} to {:.2f}".format(*formats[name]["speedup_interval95"]),
            }
        )
    return rows


def _latency_note(benchmark: Mapping[str, Any]) -> str:
    host, threads = benchmark["host"], benchmark["threads"]
    return (
        f"Medians of single inferences, dense and pruned taking turns, with 95 % bootstrap"
        f" intervals. {host['cpu']}, {host['cores']} cores, {threads}"
        f" thread{'s' if threads > 1 else ''}, {host['runtime']}."
    )


def _facts(run: RunData) -> list[tuple[str, str]]:
    summary = run.summary
    time = summary.get("time", {})
    return [
        ("Seed", str(summary.get("seed", run.config["seed"]))),
        ("Run id", summary.get("run_id", text.MISSING)),
        ("Training time", text.seconds(time.get("total_seconds"))),
        ("Time per round", text.seconds(time.get("seconds_per_round_median"))),
        ("Time for rebuilding", text.seconds(time.get("rebuild_seconds_total"))),
        ("TensorFlow", run.versions.get("tensorflow", text.MISSING)),
        ("Python", run.versions.get("python", text.MISSING)),
    ]

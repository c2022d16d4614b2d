"""Renders the pages: one file each, with style, script, drawing library and figures inside."""

from __future__ import annotations

import functools
import json
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Optional

import jinja2
import markupsafe
import vl_convert

from tff_autoprune.report import architecture as architecture_lib
from tff_autoprune.report import device, headline, repeat, text, vega, warnings
from tff_autoprune.report.run_data import RunData
from tff_autoprune.report.summary_figures import SummaryFigures

_TEMPLATES = pathlib.Path(__file__).parent / "templates"


def render_run(
    run: RunData,
    drawn: Mapping[str, vega.Chart],
    architecture: str = "",
    layers: Sequence[architecture_lib.Node] = (),
) -> str:
    """Returns the report of one run.

    Args:
      run: What to report on; parts that it does not have are left out.
      drawn: Its charts, see `charts.of`.
      architecture: An inline SVG of the network.
      layers: The layers that the drawing shows.
    """
    figures = SummaryFigures(run.summary, run.name)
    benchmark = run.summary.get("benchmark")
    exports = run.summary.get("export", {})
    return render(
        "run.html",
        drawn,
        title=f"{run.name} · tff_autoprune",
        run=run,
        headline=headline.sentence(run),
        lede=headline.lede(run),
        against_dense=headline.dense_words(run.summary),
        privacy=headline.privacy_words(run.summary),
        warnings=warnings.of(run),
        tiles=headline.tiles(figures),
        refused=any(cut.outcome == "refused" for cut in run.cuts),
        measured=any(cut.measured for cut in run.cuts),
        architecture=markupsafe.Markup(architecture),
        layers=[node for node in layers if node.inputs],
        exports=_export_rows(figures, exports),
        examples=min((entry["examples"] for entry in exports.values()), default=0),
        latencies=_latency_rows(figures),
        latency_note=_latency_note(benchmark) if benchmark else "",
        devices=device.load(run.directory),
        phone=run.summary.get("client"),
        phone_rows=_phone_rows(figures),
        clients=run.summary.get("clients"),
        clients_rows=headline.client_rows(figures),
        fleet=run.summary.get("fleet"),
        facts=_facts(run),
        command=repeat.command(run.config),
        config_text=json.dumps(run.config, indent=2),
        versions_text="\n".join(f"{name}=={version}" for name, version in run.versions.items()),
    )


def render(template: str, drawn: Mapping[str, vega.Chart], **context: Any) -> str:
    """Returns a page.

    Args:
      template: Its name in templates/.
      drawn: The charts, by the names that the template calls them.
      **context: What else the template needs.
    """
    # "</" inside a JSON string would end the script element that holds it.
    specs = json.dumps({chart.name: chart.spec for chart in drawn.values()}, ensure_ascii=False)
    return (
        _environment()
        .get_template(template)
        .render(
            style=markupsafe.Markup(vega.STYLE.read_text(encoding="utf-8")),
            script=markupsafe.Markup((_TEMPLATES / "report.js").read_text(encoding="utf-8")),
            library=markupsafe.Markup(_library()) if drawn else "",
            charts_json=markupsafe.Markup(specs.replace("</", "<\\/")),
            charts=drawn,
            **context,
        )
    )


@functools.cache
def _library() -> str:
    """Returns the script that draws; bundling it takes a second or two."""
    return vl_convert.javascript_bundle()


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        count=text.count,
        integer=text.integer,
        si=text.si,
        milliseconds=text.milliseconds,
        seconds=text.seconds,
        points=lambda value: text.points(value.value, value.error) if value else text.MISSING,
        left=lambda pair: text.percent(_share(*pair), 0),
        share=lambda pair: _share(*pair) or 0.0,
    )
    return environment


def _share(before: Optional[float], after: Optional[float]) -> Optional[float]:
    return after / before if before and after is not None else None


def _export_rows(figures: SummaryFigures, exports: Mapping[str, Any]) -> list[dict[str, Any]]:
    def size(value: Optional[float]) -> str:
        return text.si(value, "B")

    rows = []
    for name, entry in exports.items():
        model, _, format_name = name.partition(".")
        if model == "dense":
            continue
        dense = f"export/dense.{format_name}/bytes"
        path = f"export/{name}"
        accuracies = (entry.get("keras_accuracy"), entry.get("accuracy"))
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
                "points": text.MISSING
                if None in accuracies
                else text.points(100 * (accuracies[1] - accuracies[0])),
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
        f" intervals. {host['cpu']}, {text.count(host['cores'], 'core')},"
        f" {text.count(threads, 'thread')}, {host['runtime']}."
    )


def _phone_rows(figures: SummaryFigures) -> list[dict[str, Any]]:
    """Returns a row for each figure of the files that train; empty if there are no such files."""
    if figures.at("client") is None:
        return []
    kinds: tuple[tuple[str, str, Callable[[float], str], bool], ...] = (
        ("Size of the file", "bytes", lambda value: text.si(value, "B"), True),
        ("A training step", "step_ms", text.milliseconds, True),
        ("The same step in TensorFlow", "tensorflow_step_ms", text.milliseconds, True),
        ("Difference of the weights' changes", "weights_difference", "{:.1e}".format, False),
        ("Difference of the loss", "loss_difference", "{:.1e}".format, False),
    )
    rows = []
    for label, name, formatter, shrinks in kinds:
        dense, pruned = (f"client/{model}/{name}" for model in ("dense", "pruned"))
        rows.append(
            {
                "label": label,
                "dense": figures.show(dense, formatter),
                "pruned": figures.show(pruned, formatter),
                "pair": (figures.at(dense), figures.at(pruned)) if shrinks else None,
            }
        )
    return rows


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

"""Merges results of several runs and devices into tables, pictures and one HTML page.

OUT/
  report.html        self-contained
  measurements.csv   a row per measurement of every result
  speedups.csv       a row per device, configuration and model
  operators.csv      with profiles: a row per operator, the baseline's time beside the model's
  sustained.csv      with sustained runs: a row per start of the program
  plots/NAME.png
"""

from __future__ import annotations

import base64
import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

import jinja2
import pandas as pd

from android_bench import files, plots, results
from android_bench.device import BACKEND_PHONE
from android_bench.errors import UserError
from android_bench.plan import Configuration
from android_bench.terminal import shorten

_TEMPLATE = pathlib.Path(__file__).with_name("report.html")


@dataclasses.dataclass(frozen=True)
class Frames:
    """Results as tables; `device_title` and `configuration` say which device and how.

    Attributes:
      sessions: A row per result: device, state, settings, how it ended.
      measurements: A row per measurement.
      summary: A row per session, model and configuration.
      speedups: A row per session, configuration and model other than the baseline.
      operators: A row per operator of a profiling run.
      sustained: A row per start of a sustained run.
      energy: A row per estimate.
    """

    sessions: pd.DataFrame
    measurements: pd.DataFrame
    summary: pd.DataFrame
    speedups: pd.DataFrame
    operators: pd.DataFrame
    sustained: pd.DataFrame
    energy: pd.DataFrame


def find_results(folders: Sequence[str]) -> list[pathlib.Path]:
    """Returns the result files in and below the folders, each once; of earlier sessions none.

    Raises:
      UserError: If a folder has none.
    """
    found: dict[pathlib.Path, None] = {}
    for folder in folders:
        below = [
            path
            for path in sorted(pathlib.Path(folder).rglob(results.RESULT_FILE))
            if not path.parent.name.startswith(results.EARLIER)
        ]
        if not below:
            raise UserError(f"{folder}: expected {results.RESULT_FILE} in or below it, found none.")
        found.update(dict.fromkeys(path.resolve() for path in below))
    return list(found)


def frames(values: Sequence[dict[str, Any]]) -> Frames:
    """Returns the tables of results, merged in their order."""
    tables: dict[str, list[dict[str, Any]]] = {
        field.name: [] for field in dataclasses.fields(Frames)
    }
    titles = _device_titles(values)
    for value, title in zip(values, titles):
        common = {"backend": value["backend"], "device_title": title}
        device = value["device"]
        tables["sessions"].append(
            {
                **common,
                **device,
                "created": value["created"],
                "adb": value["adb"],
                "program": value["program"],
                "statistic": value["statistic"],
                "stopped": value["stopped"],
                "preflight": value["preflight"],
                "settings": value["settings"],
                "models": value["models"],
            }
        )
        latency = f"{value['statistic']}_us"
        for row in results.measurement_rows(value):
            tables["measurements"].append(
                {**row, **common, "latency_us": row[latency], "configuration": _name(row)}
            )
        sizes = {model["label"]: model["size_bytes"] for model in value["models"]}
        for row in value["summary"]:
            size = sizes[row["model"]]
            tables["summary"].append(
                {**common, **row, "configuration": _name(row), "size_bytes": size}
            )
        for row in value["speedups"]:
            where = f"{title}\n{shorten(row['model'])}, {_name(row)}"
            tables["speedups"].append(
                {**common, **row, "configuration": _name(row), "title": where}
            )
        for profile in value["profiles"]:
            for operator in profile["operators"]:
                if operator["phase"] == "inference":
                    tables["operators"].append(
                        {
                            **common,
                            **operator,
                            "model": profile["model"],
                            "baseline": value["models"][0]["label"],
                            "configuration": _name(profile["configuration"]),
                            "title": f"{title}, {_name(profile['configuration'])}",
                        }
                    )
        for run in value["sustained"]:
            where = {**common, "model": run["model"], "configuration": _name(run["configuration"])}
            tables["sustained"].extend({**where, **point} for point in run["points"])
        for row in value["energy"]:
            tables["energy"].append({**common, **row, "configuration": _name(row["configuration"])})
    made = {name: pd.DataFrame(rows) for name, rows in tables.items()}
    if made["speedups"].empty:
        made["speedups"] = pd.DataFrame(columns=["speedup", "low", "high", "title"])
    if made["measurements"].empty:
        made["measurements"] = pd.DataFrame(columns=["backend", "latency_us"])
    return Frames(**made)


def write(paths: Sequence[pathlib.Path], out: pathlib.Path) -> pathlib.Path:
    """Writes the report of the result files in `paths`; returns the HTML page.

    Raises:
      UserError: If a file is not a result.
    """
    values = [results.read(path) for path in paths]
    tables = frames(values)
    pictures = plots.draw_all(
        tables.measurements, tables.speedups, tables.operators, tables.sustained
    )
    for name, png in pictures.items():
        files.write_bytes(out / "plots" / f"{name}.png", png)
    # Of one session the file is there already, if `out` is its own folder; this is all of them.
    files.write_text(out / "measurements.csv", tables.measurements.to_csv(index=False))
    files.write_text(
        out / "speedups.csv", tables.speedups.drop(columns="title").to_csv(index=False)
    )
    if not tables.operators.empty:
        compared = compare_operators(tables.operators)
        files.write_text(out / "operators.csv", compared.to_csv(index=False))
    if not tables.sustained.empty:
        files.write_text(out / "sustained.csv", tables.sustained.to_csv(index=False))
    page = out / "report.html"
    files.write_text(page, _render(values, tables, pictures))
    return page


def compare_operators(operators: pd.DataFrame) -> pd.DataFrame:
    """Returns each model's operators with the baseline's time of the same one beside them.

    Operators are the same if they have type and name, which is the layer's, in common. What only
    one of the two has, such as a layer that a delegate took, has no partner.

    Args:
      operators: As in `Frames`.
    """
    keys = ["backend", "device_title", "configuration", "node_type", "operator"]
    # The name ends in the number of the node, which pruning may shift.
    named = operators.assign(operator=operators["name"].str.replace(r":\d+$", "", regex=True))
    times = named.groupby([*keys, "model", "baseline"], sort=False, as_index=False)["mean_ms"].sum()
    is_baseline = times["model"] == times["baseline"]
    sessions = ["backend", "device_title", "configuration"]
    baselines = dict(list(times[is_baseline].groupby(sessions)))
    tables = []
    for (*session, model, baseline), own in times[~is_baseline].groupby(
        [*sessions, "model", "baseline"], sort=False
    ):
        partner = baselines.get(tuple(session), times.iloc[:0])
        both = partner[[*keys, "mean_ms"]].merge(
            own[[*keys, "mean_ms"]], on=keys, how="outer", suffixes=("_baseline", "_model")
        )
        tables.append(both.assign(baseline=baseline, model=model))
    columns = [*keys, "baseline", "model", "baseline_ms", "model_ms"]
    if not tables:
        alone = times.rename(columns={"mean_ms": "baseline_ms"}).assign(model_ms=float("nan"))
        return alone[columns].assign(saved_ms=float("nan"))
    renamed = {"mean_ms_baseline": "baseline_ms", "mean_ms_model": "model_ms"}
    table = pd.concat(tables, ignore_index=True).rename(columns=renamed)[columns]
    return table.assign(saved_ms=table["baseline_ms"] - table["model_ms"])


def _render(values: Sequence[dict[str, Any]], tables: Frames, pictures: dict[str, bytes]) -> str:
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    environment.filters["ms"] = lambda us: "–" if pd.isna(us) else f"{us / 1e3:.3g}"
    environment.filters["ratio"] = lambda v: "–" if pd.isna(v) else f"{v:.2f}×"
    environment.filters["number"] = lambda v: "–" if pd.isna(v) else f"{v:.3g}"
    template = environment.from_string(_TEMPLATE.read_text(encoding="utf-8"))
    invalid = tables.measurements
    if not invalid.empty:
        invalid = invalid[~invalid["valid"].astype(bool)]
    return template.render(
        sessions=tables.sessions.to_dict("records"),
        summary=tables.summary.to_dict("records"),
        speedups=tables.speedups.to_dict("records"),
        sustained=[run for value in values for run in value["sustained"]],
        energy=tables.energy.to_dict("records"),
        invalid=invalid.to_dict("records"),
        not_phones=sorted(set(tables.sessions["backend"]) - {BACKEND_PHONE}),
        pictures={name: base64.b64encode(png).decode("ascii") for name, png in pictures.items()},
    )


def _name(row: dict[str, Any]) -> str:
    return str(Configuration(row["threads"], row["delegate"], row["cores"]))


def _device_titles(values: Sequence[dict[str, Any]]) -> list[str]:
    """Names each result's device; adds serial, or the time, where the same name comes again."""
    devices = [value["device"] for value in values]
    titles = [f"{d['manufacturer']} {d['model']}".strip() or d["serial"] for d in devices]
    # What is no phone says so wherever it is named.
    titles = [
        title if value["backend"] == BACKEND_PHONE else f"{title} ({value['backend']})"
        for title, value in zip(titles, values)
    ]
    for more in ([d["serial"] for d in devices], [value["created"] for value in values]):
        titles = [
            title if titles.count(title) == 1 else f"{title} ({extra})"
            for title, extra in zip(titles, more)
        ]
    return titles

"""What a session on one device leaves behind: its versioned JSON, and its analysis.

DIR/DEVICE/
  result.json        all records and their analysis, with `schema_version`
  measurements.csv   a row per measurement, valid or not
  logs/              what the program printed, run by run
  earlier-TIME/      the same of a former session
"""

from __future__ import annotations

import csv
import dataclasses
import datetime
import io
import json
import pathlib
import statistics
from collections.abc import Iterable
from typing import Any, Optional

from android_bench import files, speedup, sustained, validity
from android_bench.errors import UserError
from android_bench.records import Check, Measurement, Session

SCHEMA = "android_bench.result"
SCHEMA_VERSION = 2
RESULT_FILE = "result.json"
# Folders of former sessions, which a report of the folder above leaves out.
EARLIER = "earlier-"
_SESSION_FILES = (RESULT_FILE, "measurements.csv", "logs")


def set_aside_earlier(folder: pathlib.Path) -> None:
    """Moves what a former session left in `folder`, so that nobody takes it for the next one's."""
    there = [folder / name for name in _SESSION_FILES if (folder / name).exists()]
    if not there:
        return
    written = datetime.datetime.fromtimestamp(max(path.stat().st_mtime for path in there))
    name = f"{EARLIER}{written:%Y%m%d-%H%M%S}"
    aside, number = folder / name, 1
    while aside.exists():
        aside, number = folder / f"{name}-{number}", number + 1
    aside.mkdir()
    for path in there:
        path.rename(aside / path.name)


def statistic_name(session: Session) -> str:
    """Returns what stands for a round: "median" if the binary prints it everywhere, else "mean"."""
    valid = [m.benchmark.inference for m in session.measurements if not m.reasons and m.benchmark]
    printed = bool(valid) and all(s is not None and s.median_us is not None for s in valid)
    return "median" if printed else "mean"


def mark_drift(session: Session) -> None:
    """Marks the measurements that are too much slower than the others of their kind."""
    name = statistic_name(session)
    for check in session.checks:
        valid = [m for m in session.of(check.model, check.configuration) if not m.reasons]
        latencies = [_latency_us(m, name) for m in valid]
        for measurement, reason in zip(
            valid, validity.drift(latencies, session.settings.max_drift)
        ):
            if reason:
                measurement.reasons.append(reason)


def summaries(session: Session) -> list[dict[str, Any]]:
    """Returns one row for each model and configuration: medians over its valid rounds.

    Without a majority of valid rounds the row has no latency, and says why.
    """
    name = statistic_name(session)
    rows = []
    for check in session.checks:
        every = session.of(check.model, check.configuration)
        valid = [m for m in every if not m.reasons and m.benchmark]
        enough = 2 * len(valid) > session.settings.rounds
        runs = [m.benchmark for m in valid] if enough else []
        row = {
            "model": check.model,
            **dataclasses.asdict(check.configuration),
            "rounds_valid": len(valid),
            "rounds": session.settings.rounds,
            "latency_us": _median(_latency_us(m, name) for m in valid) if enough else None,
            "fastest_us": min((r.inference.min_us for r in runs), default=None),
            "init_us": _median(r.init_us for r in runs),
            "first_inference_us": _median(r.first_inference_us for r in runs),
            "warmup_us": _median(r.warmup_us for r in runs),
            "memory_overall_mb": _median(r.memory_overall_mb for r in runs),
            "peak_memory_mb": check.peak_memory_mb,
            "outputs": check.outputs.detail,
            "outputs_match": check.outputs.match,
            "ran_on": "; ".join(dict.fromkeys(str(r.execution) for r in runs)) or check.ran_on,
            "remarks": _remarks(check, valid, session) if enough else [],
            "why_invalid": "" if enough else _why(check, every, session),
        }
        rows.append(row)
    return rows


def speedups(session: Session) -> list[dict[str, Any]]:
    """Returns the ratio of the first model's time to each other's, in each configuration.

    Only rounds in which both are valid count, and only if they are the majority.
    """
    name = statistic_name(session)
    baseline = session.models[0]["label"]
    rows = []
    for check in session.checks:
        if check.model == baseline:
            continue
        of_round = {
            m.round: _latency_us(m, name)
            for m in session.of(baseline, check.configuration)
            if not m.reasons
        }
        pairs = [
            (of_round[m.round], _latency_us(m, name))
            for m in session.of(check.model, check.configuration)
            if not m.reasons and m.round in of_round
        ]
        row: dict[str, Any] = {
            "model": check.model,
            "baseline": baseline,
            **dataclasses.asdict(check.configuration),
            "rounds": len(pairs),
        }
        if 2 * len(pairs) > session.settings.rounds:
            ratio = speedup.paired_ratio(*zip(*pairs))
            row.update(speedup=ratio.ratio, low=ratio.low, high=ratio.high, verdict=ratio.verdict)
        else:
            row.update(speedup=None, low=None, high=None, verdict="no result: too few valid rounds")
        rows.append(row)
    return rows


def to_json(session: Session) -> dict[str, Any]:
    """Returns the session, with its analysis, as JSON values."""
    value = dataclasses.asdict(session)
    value["device"]["clusters_text"] = session.device.clusters_text
    for measurement, row in zip(session.measurements, value["measurements"]):
        if measurement.benchmark:
            row["benchmark"].pop("operators")
            row["ran_on"] = str(measurement.benchmark.execution)
            row["remarks"] = validity.remarks(measurement.benchmark)
    for run, row in zip(session.sustained, value["sustained"]):
        row.update(sustained.analyse(run.points))
    return {
        "schema": SCHEMA,
        "schema_version": SCHEMA_VERSION,
        **value,
        "statistic": statistic_name(session),
        "summary": summaries(session),
        "speedups": speedups(session),
    }


def write(session: Session, folder: pathlib.Path) -> dict[str, Any]:
    """Writes result.json and measurements.csv; returns what is in the former."""
    value = to_json(session)
    files.write_json(folder / RESULT_FILE, value)
    files.write_text(folder / "measurements.csv", to_csv(measurement_rows(value)))
    return value


def read(path: pathlib.Path) -> dict[str, Any]:
    """Reads a result.json.

    Raises:
      UserError: If it is none, or of another version.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: expected a result of android_bench, found {error}.") from error
    if not isinstance(value, dict) or value.get("schema") != SCHEMA:
        raise UserError(f"{path}: expected a result of android_bench, found other JSON.")
    if value.get("schema_version") != SCHEMA_VERSION:
        raise UserError(
            f"{path}: expected schema version {SCHEMA_VERSION}, found"
            f" {value.get('schema_version')!r}; use the android_bench that wrote it."
        )
    return value


def measurement_rows(value: dict[str, Any]) -> list[dict[str, Any]]:
    """Returns a flat row for each measurement of a result."""
    device = value["device"]
    sizes = {model["label"]: model["size_bytes"] for model in value["models"]}
    # Watching the peak would disturb timing, so it is known of the check alone.
    peaks = {
        (check["model"], *check["configuration"].values()): check["peak_memory_mb"]
        for check in value["checks"]
    }
    rows = []
    for m in value["measurements"]:
        run = m["benchmark"] or {}
        inference = run.get("inference") or {}
        rows.append(
            {
                "backend": value["backend"],
                "serial": device["serial"],
                "device": f"{device['manufacturer']} {device['model']}".strip(),
                "soc": device["soc"],
                "android": device["android_version"],
                "created": value["created"],
                "program": value["program"]["tool"],
                "signature": value["settings"]["signature"],
                "extra_flags": " ".join(value["settings"]["extra_flags"]),
                "model": m["model"],
                "model_size_bytes": sizes[m["model"]],
                **m["configuration"],
                "core_mask": m["core_mask"],
                "round": m["round"],
                "position": m["position"],
                "started": m["started"],
                "valid": not m["reasons"],
                "why_invalid": "; ".join(m["reasons"]),
                "ran_on": m.get("ran_on"),
                "remarks": "; ".join(m.get("remarks", [])),
                "exit_code": m["exit_code"],
                "init_us": run.get("init_us"),
                "first_inference_us": run.get("first_inference_us"),
                "warmup_mean_us": run.get("warmup_us"),
                "inferences": inference.get("count"),
                "mean_us": inference.get("mean_us"),
                "std_us": inference.get("std_us"),
                "min_us": inference.get("min_us"),
                "max_us": inference.get("max_us"),
                "p5_us": inference.get("p5_us"),
                "median_us": inference.get("median_us"),
                "p95_us": inference.get("p95_us"),
                "memory_init_mb": run.get("memory_init_mb"),
                "memory_overall_mb": run.get("memory_overall_mb"),
                "peak_memory_mb": peaks.get((m["model"], *m["configuration"].values())),
                "before_c": m["before_c"],
                "after_c": m["after_c"],
                "cpu_before_c": m["cpu_before_c"],
                "cpu_after_c": m["cpu_after_c"],
                "log": m["log"],
            }
        )
    return rows


def to_csv(rows: list[dict[str, Any]]) -> str:
    """Returns rows as CSV with a header; empty for no rows."""
    if not rows:
        return ""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _latency_us(measurement: Measurement, statistic: str) -> float:
    inference = measurement.benchmark.inference
    return inference.median_us if statistic == "median" else inference.mean_us


def _median(values: Iterable[Optional[float]]) -> Optional[float]:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def _remarks(check: Check, valid: list[Measurement], session: Session) -> list[str]:
    """What the check and the valid rounds say, each once, and a trend."""
    every = [*check.remarks, *(r for m in valid for r in validity.remarks(m.benchmark))]
    name = statistic_name(session)
    trend = validity.trend([_latency_us(m, name) for m in valid], session.settings.max_drift)
    return list(dict.fromkeys([*every, *([trend] if trend else [])]))


def _why(check: Check, every: list[Measurement], session: Session) -> str:
    """The most frequent reason, or what kept the pair from being measured."""
    if check.reasons:
        return "; ".join(check.reasons)
    reasons = [reason for m in every for reason in m.reasons]
    if reasons:
        return max(reasons, key=reasons.count)
    return session.stopped or "not measured"

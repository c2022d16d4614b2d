"""What a run comes down to: a sentence, three lines for a terminal, and the tiles of the page."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Optional

import markupsafe

from tff_autoprune.report import text
from tff_autoprune.report.run_data import RunData
from tff_autoprune.report.summary_figures import SummaryFigures


def sentence(run: RunData) -> str:
    """Returns the run in one sentence: what was saved, and what accuracy is left."""
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


def whose_accuracy(run: RunData) -> str:
    """Returns whose examples the test accuracy is of, e.g. "clients that never trained"."""
    if run.config["data"].get("split") == "examples":
        return "test examples of the clients that trained"
    return "clients that never trained"


def lede(run: RunData) -> str:
    """Returns how the run came to it."""
    summary, config = run.summary, run.config
    data = summary.get("data", {})
    kept = sum(cut.outcome == "kept" for cut in run.cuts)
    words = (
        f"Trained by federated averaging for {summary.get('rounds_completed', 0)} rounds,"
        f" {config['federated']['clients_per_round']} of {data.get('train_clients', 0):,} clients a"
        f" round, {data.get('classes', 0)} classes."
    )
    words += (
        " Nothing was pruned."
        if run.method == "none"
        else f" {text.count(kept, 'move')} {'was' if kept == 1 else 'were'} kept."
    )
    return f"{words} Accuracies are of {whose_accuracy(run)}."


def dense_words(summary: Mapping[str, Any]) -> str:
    """Returns the difference from the dense run in words; "" if it is not known.

    E.g. "1.9 ± 0.6 points less than the dense model (73.1 %), on the same 30 clients".
    """
    found = summary.get("against_dense")
    if not found:
        return ""
    words = "more than" if found["points"] > 0 else "less than"
    if abs(found["points"]) < 0.05:
        words = "from"
    return (
        f"{abs(found['points']):.1f} ± {found['standard_error']:.1f} points {words} the dense"
        f" model ({text.percent(found['dense_accuracy'])}), on the same"
        f" {text.count(found['clients'], 'client')}"
    )


def privacy_words(summary: Mapping[str, Any]) -> str:
    """Returns the differential privacy of a run; "" if it has none.

    Args:
      summary: With "privacy": {"epsilon", "delta", "rounds", "validation_epsilon"}.
    """
    privacy = summary.get("privacy")
    if not privacy:
        return ""
    if privacy["epsilon"] is None:
        return "differential privacy: none, since there is no noise"
    words = (
        f"differential privacy: epsilon {privacy['epsilon']:.2f} at delta {privacy['delta']:g}"
        f" after {text.count(privacy['rounds'], 'round')}"
    )
    held_out = privacy.get("validation_epsilon")
    return words if held_out is None else f"{words} ({held_out:.2f} for a validation client)"


def lines(run: RunData) -> list[str]:
    """Returns the run in three lines for a terminal; with privacy, in four."""
    summary = run.summary
    found = []
    if "pruned" in summary:
        dense, pruned = summary["dense"], summary["pruned"]
        found.append(
            f"size      {dense['parameters']:,} -> {pruned['parameters']:,} parameters"
            f" ({text.change(dense['parameters'], pruned['parameters'])}),"
            f" {dense['flops'] / 1e6:.2f} -> {pruned['flops'] / 1e6:.2f} MFLOP"
            f" ({text.change(dense['flops'], pruned['flops'])})"
        )
    against = summary.get("against_dense")
    accuracy = against["accuracy"] if against else summary.get("accuracy", {}).get("test")
    if accuracy is not None:
        words = dense_words(summary) or f"on {whose_accuracy(run)}"
        found.append(f"accuracy  {text.percent(accuracy)}, {words}")
    traffic = summary.get("communication")
    if traffic:
        used = traffic["total_bytes"]
        line = (
            f"traffic   {text.si(used, 'B')}"
            f" ({text.percent(used / max(1, traffic['dense_equivalent_bytes']), 0)} of the dense"
            " model's)"
        )
        if against and against["bytes_to_arrive"] is not None:
            line += f", {text.si(against['bytes_to_arrive'], 'B')} to dense minus one point"
        bill = summary.get("clients")
        if bill:
            share = bill["training_flops"] / max(1, bill["dense_training_flops"])
            line += f"; client training {text.percent(share, 0)} of the dense model's FLOPs"
        found.append(line)
    if privacy_words(summary):
        found.append(f"privacy   {privacy_words(summary)}")
    return found


def tiles(figures: SummaryFigures) -> list[dict[str, Any]]:
    """Returns the before-and-after tiles for which the summary has figures.

    Returns:
      [{"label", "after", "before", "change", "share"}, ...]: the value now, what it is compared
      with, the change in words, and the share that is left (None if there is no bar to draw).
    """
    found = [_accuracy_tile(figures)] if figures.at("accuracy/test") is not None else []
    exported = figures.at("export/pruned.float32/bytes") is not None
    sizes = ("export/dense.float32/bytes", "export/pruned.float32/bytes")
    found += [
        _tile(figures, "Parameters", "dense/parameters", "pruned/parameters", text.integer),
        _tile(figures, "FLOPs per image", "dense/flops", "pruned/flops", lambda v: text.si(v, "")),
        _tile(
            figures,
            "TFLite file" if exported else "Model size",
            *(sizes if exported else ("dense/bytes", "pruned/bytes")),
            _bytes,
        ),
    ]
    if figures.at("benchmark/speedup") is not None:
        median = "benchmark/{}/latency_ms_median"
        paths = (median.format("dense"), median.format("pruned"))
        found.append(_tile(figures, "Latency, host", *paths, text.milliseconds))
    if figures.at("communication/dense_equivalent_bytes"):
        found.append(_traffic_tile(figures))
    if figures.at("clients/dense_training_flops"):
        found.append(
            _tile(
                figures,
                "Client training, FLOPs",
                "clients/dense_training_flops",
                "clients/training_flops",
                lambda v: text.si(v, ""),
                word="dense ",
            )
        )
    if figures.at("privacy/epsilon") is not None:
        found.append(
            {
                "label": "Privacy, epsilon",
                "after": figures.show("privacy/epsilon", lambda v: f"{v:.2f}"),
                "before": markupsafe.Markup("at delta ")
                + figures.show("privacy/delta", lambda v: f"{v:g}"),
                "change": "",
                "share": None,
            }
        )
    return found


def client_rows(figures: SummaryFigures) -> list[dict[str, Any]]:
    """Returns what a client's part costs, dense and in this run, with how it is known.

    Returns:
      [{"label", "dense", "now", "pair", "how"}, ...].
    """
    rows = (
        (
            "Training of a client in a round, FLOPs",
            "clients/dense_flops_per_client_round",
            "clients/flops_per_client_round",
            lambda v: text.si(v, ""),
            "counted",
        ),
        (
            "Memory while training",
            "clients/memory_bytes/dense",
            "clients/memory_bytes/pruned",
            _bytes,
            "estimated",
        ),
        (
            "Energy of a client in a round",
            "fleet/dense_joules_per_client_round",
            "fleet/joules_per_client_round",
            lambda v: f"{v:.3g} J",
            "modelled",
        ),
        ("Time of all rounds", "fleet/dense_seconds", "fleet/seconds", text.seconds, "modelled"),
    )
    return [
        {
            "label": label,
            "dense": figures.show(before, formatter),
            "now": figures.show(after, formatter),
            "pair": (figures.at(before), figures.at(after)),
            "how": how,
        }
        for label, before, after, formatter, how in rows
        if figures.at(after) is not None
    ]


def _accuracy_tile(figures: SummaryFigures) -> dict[str, Any]:
    after, before, change = "accuracy/test", "accuracy/validation", ""
    word = "validation "
    if figures.at("against_dense") is not None:
        after, before, word = "against_dense/accuracy", "against_dense/dense_accuracy", "dense "
        points, error = (figures.at(f"against_dense/{n}") for n in ("points", "standard_error"))
        change = text.points(points, error)
    return {
        "label": "Test accuracy",
        "after": figures.show(after, text.percent),
        "before": markupsafe.Markup(word) + figures.show(before, text.percent),
        "change": change,
        "share": figures.at(after),
    }


def _traffic_tile(figures: SummaryFigures) -> dict[str, Any]:
    sent = figures.at("communication/total_bytes") or 0
    dense = figures.at("communication/dense_equivalent_bytes")
    return {
        "label": "Traffic in all",
        "after": text.si(sent, "B"),
        "before": markupsafe.Markup("dense ")
        + figures.show("communication/dense_equivalent_bytes", _bytes),
        "change": text.change(dense, sent),
        "share": sent / dense,
    }


def _tile(
    figures: SummaryFigures,
    label: str,
    before: str,
    after: str,
    formatter: Callable[[Optional[float]], str],
    word: str = "was ",
) -> dict[str, Any]:
    then, now = figures.at(before), figures.at(after)
    return {
        "label": label,
        "after": figures.show(after, formatter),
        "before": markupsafe.Markup(word) + figures.show(before, formatter),
        "change": text.change(then, now),
        "share": now / then if then and now is not None else None,
    }


def _bytes(value: Optional[float]) -> str:
    return text.si(value, "B")

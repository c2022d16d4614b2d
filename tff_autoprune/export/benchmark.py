"""Benchmarks the exported models of a run and adds the `benchmark` section to its summary."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Optional

from tff_autoprune.errors import UserError
from tff_autoprune.export import host, latency
from tff_autoprune.export import latency_statistics as statistics
from tff_autoprune.export.formats import FORMATS
from tff_autoprune.run_directory import RunDirectory


def benchmark_run(
    run: RunDirectory,
    rounds: Optional[int] = None,
    runs: Optional[int] = None,
    threads: Optional[int] = None,
    on_result: Callable[[str, Mapping[str, Any]], None] = lambda name, figures: None,
) -> dict[str, Any]:
    """Times the dense and the pruned model of every exported format.

    Args:
      run: Where an export is.
      rounds: Interleaved rounds for a format; the configuration's by default, like the next two.
      runs: Inferences of each model in a round, at most.
      threads: CPU threads for one inference.
      on_result: Called with a format and its figures after each.

    Returns:
      The `benchmark` section: what `statistics.compare` returns for float32 (or the first format
      there is), with "format", "rounds", "threads", "host" and "formats": {FORMAT: figures}.

    Raises:
      UserError: If no format has both models, or a file is missing.
    """
    config = run.read_config()["config"]
    settings = config["benchmark"]
    rounds = rounds or settings["rounds"]
    runs = runs or settings["runs"]
    threads = threads or settings["threads"]
    exported = run.read_summary().get("export", {})
    measured: dict[str, Any] = {}
    others = host.OtherWork()
    for name in FORMATS:
        names = (f"dense.{name}", f"pruned.{name}")
        if not all(key in exported for key in names):
            continue
        contents = [_read(run, exported[key]["path"]) for key in names]
        dense, pruned = latency.measure(contents, rounds, runs, threads, config["seed"])
        measured[name] = statistics.compare(dense, pruned, config["seed"])
        on_result(name, measured[name])
    if not measured:
        raise UserError(
            f"--run_dir: {run.path} has no exported models to time;"
            f" `tff-autoprune export --run_dir={run.path}` writes them."
        )
    first = next(iter(measured))
    section = {
        **measured[first],
        "format": first,
        "rounds": rounds,
        "threads": threads,
        "host": {**host.describe(), "busy_cores": others.cores()},
        "formats": measured,
    }
    run.update_summary(benchmark=section)
    return section


def _read(run: RunDirectory, path: str) -> bytes:
    try:
        return (run.path / path).read_bytes()
    except OSError as error:
        raise UserError(
            f"{run.path / path} is missing; `tff-autoprune export --run_dir={run.path}` writes it."
        ) from error

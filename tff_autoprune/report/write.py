"""Writes reports into run directories, and comparisons of runs."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, Optional

from tff_autoprune import files, models
from tff_autoprune.export import latency, latency_statistics
from tff_autoprune.report import (
    architecture,
    architecture_svg,
    bill,
    charts,
    comparison,
    comparison_charts,
    comparison_page,
    dense,
    fleet,
    page,
    run_data,
    vega,
)
from tff_autoprune.report.run_data import RunData
from tff_autoprune.run_directory import RunDirectory


def write_report(
    run_dir: pathlib.Path,
    *,
    dense_dir: Optional[pathlib.Path] = None,
    people: Optional[int] = None,
    fleet_wanted: str = "",
) -> RunData:
    """Writes `report.html` and `plots/*.png` of a run, and its sections of summary.json.

    Args:
      run_dir: The directory of a run; export and benchmark may be missing.
      dense_dir: A dense run to compare with; without it, an earlier comparison is kept.
      people: Of rendered data, how many unseen clients to compare on.
      fleet_wanted: What the time is modelled for, see `fleet.load`.

    Returns:
      What the run now holds.

    Raises:
      UserError: If the run has not begun, a file is damaged, or the dense run does not compare.
    """
    run = run_data.load(run_dir)
    other = None if dense_dir is None else run_data.load(dense_dir)
    if other is not None:
        run = _with_sections(run, against_dense=dense.compare(run, other, people))
    threshold = None if other is None else dense.dense_threshold(other)
    networks = _networks(run)
    run = _with_client_costs(run, fleet.load(run, fleet_wanted), threshold, networks)
    nodes = architecture.graph(*networks.values()) if len(networks) == 2 else []
    drawing = architecture_svg.draw(nodes)
    drawn = charts.of(run)
    files.write_text(run.directory.report, page.render_run(run, drawn, drawing, nodes))
    write_plots(drawn, run.directory.plots)
    return run


def write_comparison(
    run_dirs: Sequence[pathlib.Path], path: pathlib.Path, *, fleet_wanted: str = ""
) -> list[comparison.Contender]:
    """Writes a page that shows several runs side by side, its table and its charts.

    Args:
      run_dirs: The directories of runs on one data set. Those that differ in their seed only are
        shown as one.
      path: The page to write; `.csv`, `.md` and a PNG file per chart go beside it.
      fleet_wanted: What the time is modelled for, see `fleet.load`.

    Returns:
      What was compared.

    Raises:
      UserError: As `write_report`, or if the runs are on different data.
    """
    runs = [run_data.load(run) for run in run_dirs]
    comparison.contenders(runs)
    device_fleet = fleet.load(runs[0], fleet_wanted)
    runs = [_compared(run, runs, device_fleet) for run in runs]
    found = comparison.contenders(runs)
    latencies = measure_latencies(found)
    drawn = comparison_charts.of(found, device_fleet)
    files.write_text(path, comparison_page.render(found, latencies, device_fleet, drawn))
    files.write_text(path.with_suffix(".csv"), comparison.table(found, latencies).to_csv())
    files.write_text(path.with_suffix(".md"), comparison.markdown(found, latencies))
    write_plots(drawn, path.parent)
    return found


def measure_latencies(found: Sequence[comparison.Contender]) -> dict[str, dict[str, Any]]:
    """Times the float32 models of all contenders in one interleaved session.

    Args:
      found: The contenders; the first run of each is measured.

    Returns:
      By label, what `latency_statistics.figures` says; empty if one of them has no such model,
      since only times of one session compare.
    """
    firsts = [one.runs[0] for one in found]
    paths = [
        run.directory.path / run.summary.get("export", {}).get("pruned.float32", {}).get("path", "")
        for run in firsts
    ]
    if not all(path.is_file() for path in paths):
        return {}
    settings = firsts[0].config["benchmark"]
    times = latency.measure(
        [path.read_bytes() for path in paths],
        settings["rounds"],
        settings["runs"],
        settings["threads"],
        firsts[0].config["seed"],
    )
    return {one.label: latency_statistics.figures(taken) for one, taken in zip(found, times)}


def write_plots(drawn: Mapping[str, vega.Chart], folder: pathlib.Path) -> list[pathlib.Path]:
    """Writes charts as PNG files.

    Args:
      drawn: The charts, by the names of their files.
      folder: Where to; made if missing.

    Returns:
      The paths.
    """
    paths = []
    for name, chart in drawn.items():
        paths.append(folder / f"{name}.png")
        files.write_bytes(paths[-1], vega.png(chart))
    return paths


def _compared(run: RunData, runs: Sequence[RunData], device_fleet: fleet.Fleet) -> RunData:
    """Returns a run with the sections that a comparison shows, writing those it did not have."""
    other = comparison.dense_run(runs, run)
    threshold = None
    if other is not None and "accuracy" in run.summary:
        threshold = dense.dense_threshold(other)
        if not dense.is_current(run, other):
            run = _with_sections(run, against_dense=dense.compare(run, other))
    return _with_client_costs(run, device_fleet, threshold, {})


def _with_client_costs(
    run: RunData,
    device_fleet: fleet.Fleet,
    threshold: Optional[float],
    networks: Mapping[str, Any],
) -> RunData:
    clients = bill.of(run)
    if clients is None:
        return run
    memory = {name: bill.memory(run, model) for name, model in networks.items()}
    kept = run.summary.get("clients", {}).get("memory_bytes")
    clients["memory_bytes"] = memory or kept
    modelled = fleet.model(run, device_fleet, threshold)
    return _with_sections(run, clients=clients, fleet=modelled)


def _with_sections(run: RunData, **sections: Any) -> RunData:
    return dataclasses.replace(run, summary=run.directory.update_summary(**sections))


def _networks(run: RunData) -> dict[str, Any]:
    """Returns the models before and after; nothing until there are both."""
    directory: RunDirectory = run.directory
    if not (directory.dense_model.exists() and directory.pruned_model.exists()):
        return {}
    return {name: models.load_trained(directory, name) for name in ("dense", "pruned")}

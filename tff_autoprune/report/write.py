"""Writes reports into run directories."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

from tff_autoprune import files, models
from tff_autoprune.report import architecture, architecture_svg, page, plots, run_data


def write_report(run_dir: pathlib.Path) -> pathlib.Path:
    """Writes `report.html` and `plots/*.png` of a run.

    Args:
      run_dir: The directory of a run; export and benchmark may be missing.

    Returns:
      The path of the page.

    Raises:
      UserError: If the run has not begun or a file is damaged.
    """
    run = run_data.load(run_dir)
    nodes = _network(run)
    drawing = architecture_svg.draw(nodes)
    files.write_text(run.directory.report, page.render_run(run, drawing, nodes))
    plots.write(run)
    return run.directory.report


def write_comparison(run_dirs: Sequence[pathlib.Path], path: pathlib.Path) -> pathlib.Path:
    """Writes a page that shows several runs side by side.

    Args:
      run_dirs: The directories, in the order of the columns.
      path: The page to write.

    Returns:
      `path`.

    Raises:
      UserError: As `write_report`.
    """
    files.write_text(path, page.render_comparison([run_data.load(run) for run in run_dirs]))
    return path


def _network(run: run_data.RunData) -> list[architecture.Node]:
    """Returns the network before and after; nothing until there are both models."""
    paths = (run.directory.dense_model, run.directory.pruned_model)
    if not all(path.exists() for path in paths):
        return []
    return architecture.graph(
        *(models.load_trained(run.directory, name) for name in ("dense", "pruned"))
    )

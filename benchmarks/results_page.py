"""Writes the tables of docs/results.md from the raw results that are committed.

    python benchmarks/results_page.py

reads benchmarks/results/*.csv (a row a run; the columns are those of `_COLUMNS`) and replaces what
stands between the page's two markers: a table for each data set and model, a line for each method,
tolerance and seed. Shares and accuracies are fractions of 1, points are points of accuracy gained.
"""

from __future__ import annotations

import pathlib
import re
from collections.abc import Sequence

import pandas as pd
from absl import flags

from tff_autoprune import cli
from tff_autoprune.errors import UserError

_ROOT = pathlib.Path(__file__).parents[1]
_RESULTS = flags.DEFINE_string("results", str(_ROOT / "benchmarks/results"), "Folder of CSV files.")
_PAGE = flags.DEFINE_string("page", str(_ROOT / "docs/results.md"), "Page to be renewed.")

# What tells one run from another, and what was found.
_RUN = ["data", "model", "rounds", "method", "tolerance", "seed"]
_FIGURES = ["parameters", "parameter_share", "flop_share", "byte_share", "test_accuracy"]
_FIGURES += ["dense_accuracy", "points", "points_error", "commit"]
_COLUMNS = _RUN + _FIGURES
_HEADER = (
    "| method | tolerance | seed | parameters | FLOPs | bytes sent | test accuracy (dense) | points"
    " gained | commit |\n|---|---:|---:|---:|---:|---:|---:|---:|---|"
)
_MARKED = re.compile(
    r"(<!-- made by benchmarks/results_page.py -->\n).*(<!-- until here -->)", re.S
)


def read(folder: pathlib.Path) -> pd.DataFrame:
    """Returns the rows of all files, sorted.

    Args:
      folder: Holds the CSV files.

    Raises:
      UserError: If there is no file, or one lacks a column.
    """
    parts = {path.name: pd.read_csv(path, dtype={"commit": str}) for path in folder.glob("*.csv")}
    if not parts:
        raise UserError(f"--results: expected CSV files in {folder}, found none.")
    for name, part in parts.items():
        missing = sorted(set(_COLUMNS) - set(part.columns))
        if missing:
            raise UserError(f"{name}: expected the column {missing[0]}, found none of this name.")
    return pd.concat(parts.values())[_COLUMNS].sort_values(_RUN)


def _line(row: pd.Series) -> str:
    def shown(value: float, form: str) -> str:
        return "" if pd.isna(value) else format(value, form)

    size = f"{shown(row.parameters, ',.0f')} ({shown(row.parameter_share, '.0%')})"
    accuracy = shown(row.test_accuracy, ".3f")
    if pd.notna(row.dense_accuracy):
        accuracy += f" ({row.dense_accuracy:.3f})"
    points = shown(row.points, "+.1f")
    if pd.notna(row.points_error):
        points += f" ± {row.points_error:.1f}"
    shares = f"{shown(row.flop_share, '.0%')} | {shown(row.byte_share, '.0%')}"
    run = f"`{row.method}` | {shown(row.tolerance, 'g')} | {row.seed}"
    return f"| {run} | {size} | {shares} | {accuracy} | {points} | {shown(row.commit, '.9')} |"


def tables(rows: pd.DataFrame) -> str:
    """Returns the tables in Markdown."""
    found = []
    for (data, model, rounds), group in rows.groupby(_RUN[:3], sort=False):
        lines = "\n".join(map(_line, group.itertuples()))
        found.append(f"### {data}, {model}, {rounds} rounds\n\n{_HEADER}\n{lines}\n")
    return "\n".join(found)


def main(argv: Sequence[str]) -> None:
    """Renews the page."""
    cli.no_arguments(argv)
    page = pathlib.Path(_PAGE.value)
    made = tables(read(pathlib.Path(_RESULTS.value)))
    text, count = _MARKED.subn(
        lambda mark: f"{mark[1]}\n{made}\n{mark[2]}", page.read_text("utf-8")
    )
    if count != 1:
        raise UserError(f"--page: expected the two markers once in {page}, found {count}.")
    page.write_text(text, encoding="utf-8")
    print(f"wrote {page}")


if __name__ == "__main__":
    cli.run(main)

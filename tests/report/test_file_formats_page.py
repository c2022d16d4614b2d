"""docs/file_formats.md names everything that is written, and nothing else."""

import pathlib
import re

import pandas as pd

from tff_autoprune.export import FORMATS
from tff_autoprune.program import records
from tff_autoprune.report import comparison, run_data, write

PAGE = (pathlib.Path(__file__).parents[2] / "docs" / "file_formats.md").read_text(encoding="utf-8")


def section(title):
    level = PAGE.index(f"\n{title}\n")
    rest = PAGE[level + len(title) + 2 :]
    return re.split(r"\n#{1,6} ", rest)[0]


def first_column(title):
    cells = re.findall(r"^\| ([^|]+) \|", section(title), re.MULTILINE)
    return {name for cell in cells for name in re.findall(r"`([^`]+)`", cell)}


def described_anywhere(name):
    return f"`{name}`" in PAGE


def test_metrics_columns():
    assert first_column("## metrics.csv") == {*records.METRICS_COLUMNS, "filters/GROUP"}


def test_pruning_columns():
    assert first_column("## pruning.csv") == set(records.PRUNING_COLUMNS)


def test_every_field_of_a_summary_is_described(exported_run):
    summary = exported_run.read_summary()
    assert set(summary) <= first_column("## summary.json")
    for entry in summary["export"].values():
        assert set(entry) == first_column("### export")
    benchmark = first_column("### benchmark")
    for name, value in summary["benchmark"].items():
        assert name in benchmark
        if isinstance(value, dict) and name != "formats":
            assert all(described_anywhere(key) for key in value)
    for name in ("data", "dense", "accuracy", "communication", "faults", "time"):
        assert all(described_anywhere(key) for key in summary[name])


def test_sections_that_the_report_adds(exported_run):
    write.write_report(exported_run.path)
    summary = exported_run.read_summary()
    assert set(summary) <= first_column("## summary.json")
    for name in ("clients", "fleet"):
        assert set(summary[name]) == first_column(f"### {name}")
    runs = [run_data.load(exported_run.path)]
    columns = comparison.table(comparison.contenders(runs), {}).reset_index().columns
    assert set(columns) == first_column("## Comparisons")


def test_formats_and_files_are_those_that_exist(exported_run):
    assert first_column("## MODEL.FORMAT.tflite") == set(FORMATS)
    assert set(pd.read_csv(exported_run.pruning).columns) == first_column("## pruning.csv")
    for path in exported_run.path.iterdir():
        assert f"`{path.name}" in PAGE

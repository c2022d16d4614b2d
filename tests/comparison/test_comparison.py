"""Several methods on the same clients, as scripts/compare.py runs them."""

import pathlib
import subprocess
import sys

import pandas as pd
import pytest

ROOT = pathlib.Path(__file__).parents[2]
METHODS = ["none", "paper", "auto", "uniform", "unstructured"]


def compare(out, *flags, rounds=3):
    return subprocess.run(
        [
            sys.executable,
            "scripts/compare.py",
            "--config=configs/digits.py",
            f"--out={out}",
            *flags,
            "--",
            f"--config.federated.rounds={rounds}",
            "--config.federated.evaluate_every=2",
            "--config.pruning.target_parameters=2000",
            "--config.pruning.uniform_round=2",
            "--config.pruning.paper_k=1.2",
            "--config.export.formats=('float32',)",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=900,
    )


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    path = tmp_path_factory.mktemp("comparison")
    done = compare(path, f"--methods={','.join(METHODS)}", rounds=20)
    assert done.returncode == 0, done.stderr
    return path


@pytest.mark.slow
def test_the_table_has_a_row_for_each_method(out):
    table = pd.read_csv(out / "comparison.csv", index_col="method")
    assert list(table.index) == METHODS
    assert (table["runs"] == 1).all()
    assert (table["rounds"] == 20).all()
    assert table["tflite_bytes"].gt(0).all()
    assert table["latency_ms"].gt(0).all()
    dense = table.loc["none"]
    assert dense["parameters"] == 3594
    assert dense["runs_arrived"] == 1
    assert table.loc["auto", "parameters"] <= 2000 * 1.02
    assert table.loc["uniform", "parameters"] <= table.loc["auto", "parameters"]
    assert table.loc["unstructured", "parameters"] == dense["parameters"]
    assert table.loc["unstructured", "nonzero_parameters"] < dense["parameters"]
    assert table.loc["auto", "total_bytes"] < dense["total_bytes"]


@pytest.mark.slow
def test_files_for_people_are_written(out):
    text = (out / "comparison.md").read_text()
    assert all(f"| {method} |" in text for method in METHODS)
    assert "<table" in (out / "comparison.html").read_text()
    for name in ("accuracy_communication", "accuracy_parameters", "filters_rounds"):
        assert (out / f"{name}.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_finished_runs_are_not_run_again(out):
    times = {path: path.stat().st_mtime_ns for path in out.glob("*/seed_0/models/*.keras")}
    assert len(times) == 2 * len(METHODS)
    assert compare(out, f"--methods={','.join(METHODS)}", rounds=20).returncode == 0
    assert {path: path.stat().st_mtime_ns for path in times} == times


def test_a_failing_run_is_named(tmp_path):
    done = compare(tmp_path, "--methods=none", "--first_seed=0", "--jobs=1")
    assert done.returncode == 0
    broken = tmp_path / "none" / "seed_0" / "summary.json"
    broken.write_text("{")
    again = compare(tmp_path, "--methods=none", "--jobs=1")
    assert again.returncode == 2
    assert str(broken) in again.stderr


@pytest.mark.parametrize(
    "flags, expected",
    [
        (["--methods=none,magic"], "magic"),
        (["--config=absent.py"], "absent.py"),
        (["--seeds=0"], "seeds"),
    ],
)
def test_wrong_flags_are_named(tmp_path, flags, expected):
    done = compare(tmp_path, *flags)
    assert done.returncode == 2
    assert expected in done.stderr

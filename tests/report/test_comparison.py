"""Several methods on the same clients, as scripts/compare.py runs them."""

import pathlib
import signal
import subprocess
import sys
import time

import pandas as pd
import psutil
import pytest

ROOT = pathlib.Path(__file__).parents[2]
METHODS = ["none", "paper", "auto", "uniform", "unstructured"]


def command(out, *flags, rounds):
    return [
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
    ]


def compare(out, *flags, rounds=3):
    return subprocess.run(
        command(out, *flags, rounds=rounds), cwd=ROOT, capture_output=True, text=True, timeout=900
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
    assert text.splitlines()[0] == "| | " + " | ".join(METHODS) + " |"
    page = (out / "comparison.html").read_text()
    assert "Accuracy for what it cost" in page and "Latency, host" in page
    for name in ("accuracy_cost", "accuracy_parameters"):
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


def test_finished_runs_of_other_settings_are_not_mixed_in(tmp_path):
    path = tmp_path / "none" / "seed_0"
    assert compare(tmp_path, "--methods=none,none", "--jobs=1").returncode == 0
    done = compare(tmp_path, "--methods=none", "--jobs=1", rounds=4)
    assert done.returncode == 2
    assert f"--out: {path}: federated.rounds is 4, but the run was started with 3" in done.stderr


def test_sigterm_ends_the_trainings_too(tmp_path):
    process = subprocess.Popen(
        command(tmp_path, "--methods=none,paper", rounds=500),
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 300
    while len(list(tmp_path.glob("*/seed_0/metrics.csv"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.1)
    children = psutil.Process(process.pid).children(recursive=True)
    assert len(children) >= 2
    # Each run has its share of the cores.
    shares = [set(child.cpu_affinity()) for child in children]
    assert max(map(len, shares)) <= max(1, len(psutil.Process().cpu_affinity()) // 2 + 1)
    assert psutil.cpu_count() == 1 or shares[0] != shares[1]
    process.terminate()
    assert process.wait(timeout=120) == 128 + signal.SIGTERM
    _, alive = psutil.wait_procs(children, timeout=60)
    assert not alive


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

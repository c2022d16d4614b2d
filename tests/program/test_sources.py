"""The whole job on small files in the formats of the real data sets, and on wrong files."""

import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import source_files

ROOT = pathlib.Path(__file__).parents[2]

QUICK = (
    "--config.federated.rounds=2",
    "--config.federated.clients_per_round=2",
    "--config.aggregator.min_clients=1",
    "--config.federated.local_epochs=1",
    "--config.pruning.method=paper",
    "--config.pruning.paper_k=1.0",
)


def run(script, *flags):
    return subprocess.run(
        [sys.executable, f"scripts/{script}.py", *flags],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.mark.parametrize(
    "config, write, filters",
    [
        ("femnist_cnn", source_files.write_emnist, "(4,6)"),
        ("celeba_resnet", source_files.write_celeba, "(4,6)"),
    ],
)
def test_the_whole_job_runs_on_tffs_formats(tmp_path, config, write, filters):
    write(tmp_path)
    run_dir = tmp_path / "run"
    trained = run(
        "train",
        f"--config=configs/{config}.py",
        f"--config.data.path={tmp_path}",
        f"--config.model.filters={filters}",
        "--config.export.formats=('float32',)",
        f"--run_dir={run_dir}",
        *QUICK,
    )
    assert trained.returncode == 0, trained.stderr
    exported = run("export", f"--run_dir={run_dir}")
    assert exported.returncode == 0, exported.stderr
    summary = json.loads((run_dir / "summary.json").read_text())
    assert summary["rounds_completed"] == 2
    assert summary["pruned"]["parameters"] < summary["dense"]["parameters"]
    assert summary["export"]["pruned.float32"]["max_abs_difference"] < 1e-4
    assert summary["export"]["pruned.float32"]["top1_agreement"] > 0.98


def _no_sqlite(folder):
    (folder / "emnist_all.sqlite").write_bytes(b"this is no database")
    return ["--config=configs/femnist_cnn.py", f"--config.data.path={folder}"]


def _nan_pixels(folder):
    columns = source_files.npz_columns()
    pixels = columns["pixels"].astype(np.float32) / 255
    pixels[3] = np.nan
    source_files.write_npz(folder / "own.npz", **{**columns, "pixels": pixels})
    return [
        "--config=configs/demo.py",
        "--config.data.name=npz",
        f"--config.data.path={folder / 'own.npz'}",
    ]


def _half_a_leaf_file(folder):
    source_files.write_leaf(folder)
    file = next((folder / "train").glob("*.json"))
    file.write_text(file.read_text()[:-200])
    return [
        "--config=configs/femnist_cnn.py",
        "--config.data.name=leaf",
        f"--config.data.path={folder}",
    ]


def _nothing_there(folder):
    return ["--config=configs/celeba_cnn.py", f"--config.data.path={folder}"]


@pytest.mark.parametrize("spoil", [_no_sqlite, _nan_pixels, _half_a_leaf_file, _nothing_there])
def test_bad_data_is_one_clear_line(tmp_path, spoil):
    flags = spoil(tmp_path)
    done = run("train", *flags, f"--run_dir={tmp_path / 'run'}", *QUICK)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    [line] = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert str(tmp_path) in line
    assert not (tmp_path / "run" / "summary.json").exists()

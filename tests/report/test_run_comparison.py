"""Several runs side by side, whoever asks for it."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from test_report_page import Outline, change_summary

from tff_autoprune.errors import UserError
from tff_autoprune.report import comparison, dense, run_data, write
from tff_autoprune.run_directory import RunDirectory


def change_config(run, change):
    stored = run.read_config()
    change(stored["config"])
    run.config.write_text(json.dumps(stored))


def copy(run, name, method, seed=1, accuracy=None):
    other = RunDirectory(run.path.with_name(name))
    shutil.copytree(run.path, other.path)
    change_config(other, lambda c: (c["pruning"].update(method=method), c.update(seed=seed)))
    if accuracy is not None:
        change_summary(other, lambda s: s["accuracy"].update(test=accuracy))
    return other


@pytest.fixture
def two_runs(exported_run):
    """The run and a copy that claims to be dense."""
    other = copy(exported_run, "dense", "none")
    change_summary(other, lambda s: s.update(pruned={**s["dense"], "nonzero_parameters": 1}))
    return other, exported_run


def test_runs_are_compared_side_by_side(two_runs, tmp_path):
    page = tmp_path / "compared.html"
    found = write.write_comparison([run.path for run in two_runs], page)
    outline = Outline(page.read_text())
    base, pruned = (run.read_summary() for run in two_runs)
    saved = 100 * (1 - pruned["pruned"]["parameters"] / base["pruned"]["parameters"])
    # The copy has the same weights, so that nothing was lost.
    assert f"auto: {saved:.0f} % fewer parameters, +0.0 ± 0.0 points" in outline.text
    assert "pruning.method none auto" in outline.text
    values = [a["value"] for tag, a in outline.tags if tag == "data"]
    assert [str(float(s["pruned"]["parameters"])) for s in (base, pruned)] == [
        v
        for v in values
        if float(v) in (base["pruned"]["parameters"], pruned["pruned"]["parameters"])
    ][:2]
    best = sum(a.get("class") == "best" for tag, a in outline.tags if tag == "td")
    assert best >= 1
    assert "Latency, host" in outline.text and "in one session" in outline.text
    assert not {"nan", "e+"} & set(outline.text.lower().split()) and "e+0" not in outline.text
    table = pd.read_csv(tmp_path / "compared.csv", index_col="method")
    assert list(table.index) == [one.label for one in found] == ["none", "auto"]
    assert table["latency_ms"].gt(0).all()
    assert "| Parameters |" in (tmp_path / "compared.md").read_text()
    for name in ("accuracy_cost", "accuracy_parameters"):
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_latencies_of_separate_sessions_are_not_compared(two_runs, tmp_path):
    change_summary(two_runs[0], lambda s: s["export"].pop("pruned.float32"))
    page = tmp_path / "compared.html"
    write.write_comparison([run.path for run in two_runs], page)
    assert "Latency" not in Outline(page.read_text()).text


def test_runs_on_different_data_are_refused(two_runs, tmp_path):
    change_config(two_runs[0], lambda c: c["data"].update(name="fontwriters"))
    with pytest.raises(UserError, match="figures on different data do not compare"):
        write.write_comparison([run.path for run in two_runs], tmp_path / "compared.html")


def load(*runs):
    return [run_data.load(run.path) for run in runs]


def test_seeds_of_a_method_are_one_contender(exported_run):
    other = copy(exported_run, "again", "auto", seed=2, accuracy=0.5)
    base = copy(exported_run, "dense", "none")
    found = comparison.contenders(load(exported_run, base, other))
    assert [(one.label, one.seeds) for one in found] == [("auto", (1, 2)), ("none", (1,))]
    first = exported_run.read_summary()["accuracy"]["test"]
    table = comparison.table(found, {})
    assert table.loc["auto", "accuracy"] == pytest.approx((first + 0.5) / 2)
    assert table.loc["auto", "accuracy_deviation"] == pytest.approx(abs(first - 0.5) / 2)
    # Other seeds are other clients: nothing is the best.
    assert not comparison.same_seeds(found)
    cells = [cell for row in comparison.rows(found, {}) for cell in row["cells"]]
    assert cells and not any(cell["best"] for cell in cells)


def test_a_method_that_is_told_a_size_is_one_contender_too(exported_run):
    runs = [copy(exported_run, f"u{seed}", "uniform", seed=seed) for seed in (1, 2)]
    for run, size in zip(runs, (500, 600)):
        change_config(run, lambda c, size=size: c["pruning"].update(target_parameters=size))
    assert len(comparison.contenders(load(*runs))) == 1
    change_config(runs[1], lambda c: c.update(seed=1))
    assert [one.label for one in comparison.contenders(load(*runs))] == ["u1", "u2"]


def test_the_difference_is_paired_by_client():
    rng = np.random.default_rng(0)
    counts = rng.integers(50, 100, 40)
    skill = rng.uniform(0.2, 0.9, 40)
    base = np.round(skill * counts)
    points, error = dense.difference((base - 2) - base, counts)
    assert points == pytest.approx(-100 * 2 * 40 / counts.sum())
    # Clients differ by 20 points, but their differences hardly at all.
    assert error < 0.15
    noisy = rng.integers(-8, 9, 40)
    _, error = dense.difference(noisy, counts)
    expected = 100 * np.std(noisy) / counts.mean() / np.sqrt(40)
    assert error == pytest.approx(expected, rel=0.25)


def test_the_report_says_what_the_dense_model_reaches(exported_run, capsys):
    base = copy(exported_run, "dense", "none")
    model = tf.keras.models.load_model(base.pruned_model, compile=False)
    # A dense model that always says 0.
    weights = model.get_weights()
    weights[-2][:] = 0
    weights[-1][:] = [1] + [0] * 9
    model.set_weights(weights)
    model.save(base.pruned_model)
    run = write.write_report(exported_run.path, dense_dir=base.path)
    found = exported_run.read_summary()["against_dense"]
    assert found["accuracy"] == pytest.approx(exported_run.read_summary()["accuracy"]["test"])
    assert found["points"] == pytest.approx(100 * (found["accuracy"] - found["dense_accuracy"]))
    assert 0.05 < found["dense_accuracy"] < 0.15 and found["standard_error"] > 0
    text = Outline(run.directory.report.read_text()).text
    words = (
        f"{found['points']:.1f} ± {found['standard_error']:.1f} points more than the dense model"
    )
    assert words in text
    # An update of the report does not need the dense run again.
    write.write_report(exported_run.path)
    assert exported_run.read_summary()["against_dense"] == found


def test_a_dense_run_that_does_not_compare_is_refused(exported_run):
    pruned = copy(exported_run, "pruned", "auto")
    other = copy(exported_run, "other", "none", seed=2)
    with pytest.raises(UserError, match="was pruned"):
        write.write_report(exported_run.path, dense_dir=pruned.path)
    with pytest.raises(UserError, match="has seed 2, but"):
        write.write_report(exported_run.path, dense_dir=other.path)


def test_the_command_compares(two_runs):
    out = two_runs[0].path.parent / "compared.html"
    done = subprocess.run(
        [sys.executable, "scripts/report.py", *(str(r.path) for r in two_runs), f"--out={out}"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert out.exists() and all(run.report.exists() for run in two_runs)
    first = done.stdout.splitlines()[:4]
    assert [line.split()[0] for line in first] == ["size", "accuracy", "traffic", "wrote"]

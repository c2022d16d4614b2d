"""The whole harness against phones on the loopback, with the real adb client in between."""

from __future__ import annotations

import json

import pandas as pd


def result_of(folder, serial):
    return json.loads((folder / serial.replace(":", "_") / "result.json").read_text())


def test_full_run_of_a_training_run(attach, program, models, tmp_path, capsys):
    from conftest import QUICK

    from android_bench import cli

    phone, serial = attach()
    out = tmp_path / "out"
    code = cli.main(
        [
            "run",
            f"--benchmark_binary={program}",
            f"--run_dir={models.parent}",
            f"--out={out}",
            "--profile",
            *QUICK,
            "--threads=1,2",
        ]
    )
    printed = capsys.readouterr().out
    assert code == 0, printed
    value = result_of(out, serial)
    assert value["backend"] == "loopback double"
    assert value["stopped"] is None
    assert [m["label"] for m in value["models"]] == ["dense.float32", "pruned.float32"]
    # Every pair was measured in every round, and its outputs were compared.
    assert len(value["measurements"]) == 3 * 2 * 2
    assert all(not m["reasons"] for m in value["measurements"])
    assert all(c["outputs"]["match"] for c in value["checks"])
    # 800 times fewer multiplications than the dense model: no noise hides that.
    assert all(s["verdict"] == "faster" and s["low"] > 1 for s in value["speedups"])
    assert len(value["speedups"]) == 2
    assert {p["model"] for p in value["profiles"]} == {"dense.float32", "pruned.float32"}
    assert all("CONV_2D" in {o["node_type"] for o in p["operators"]} for p in value["profiles"])
    assert "backend: loopback double" in printed
    page = (out / "report.html").read_text()
    assert "Not a phone: loopback double" in page
    table = pd.read_csv(out / "measurements.csv")
    assert len(table) == 12 and table["valid"].all()
    assert (table["median_us"].isna()).all(), "no percentile that the binary did not print"
    assert set(phone.masks) == {"c0"}, "two threads fit the fastest cluster"
    assert phone.leftovers == []

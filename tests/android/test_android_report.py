"""Results on disk: their schema, the merged tables, the page."""

from __future__ import annotations

import dataclasses
import json

import pandas as pd
import pytest

from android_bench import device, report, results
from android_bench.delegation import Delegation, Execution
from android_bench.errors import UserError
from android_bench.outputs import Comparison
from android_bench.parse import BenchmarkRun, Statistics
from android_bench.plan import Configuration, Settings
from android_bench.profile_table import OperatorTime
from android_bench.records import Check, Measurement, Profile, Session

CONFIGURATION = Configuration(1, "xnnpack", "big")


def run_of(mean_us, median_us=None):
    return BenchmarkRun(
        complete=True,
        init_us=1000.0,
        first_inference_us=2 * mean_us,
        warmup_us=1.1 * mean_us,
        inference_us=mean_us,
        inference=Statistics(
            50, mean_us, mean_us, 0.9 * mean_us, 2 * mean_us, mean_us, 1.0, median_us=median_us
        ),
        memory_overall_mb=5.0,
        execution=Execution((Delegation("XNNPACK", "complete", 5, 5),)),
    )


def session_of(times, model="Pixel 6", serial="S1", backend="phone", medians=False, **changes):
    """A session with the given times in us: {label: [one per round]}."""
    info = device.parse_info(
        serial,
        f"ro.product.manufacturer=Google\nro.product.model={model}\nsys.boot_completed=1\n",
    )
    rounds = max(map(len, times.values()))
    session = Session(
        created="2024-05-01T10:00:00+00:00",
        backend=backend,
        adb="1.0.41",
        host={},
        device=dataclasses.replace(info, backend=backend),
        program={
            "name": "benchmark_model",
            "tool": "benchmark_model",
            "abi": "arm64-v8a",
            "sha256": "0" * 64,
        },
        models=[
            {"label": label, "name": label, "sha256": "0" * 64, "size_bytes": 1000 * len(label)}
            for label in times
        ],
        settings=Settings((CONFIGURATION,), rounds=rounds),
        **changes,
    )
    same = Comparison(True, True, "outputs differ by up to 0, allowed 1")
    for label, each in times.items():
        session.checks.append(Check(label, CONFIGURATION, [], same, peak_memory_mb=9.0))
        for number, time in enumerate(each, start=1):
            run = run_of(time, median_us=0.95 * time if medians else None)
            session.measurements.append(
                Measurement(number, 1, label, CONFIGURATION, "f0", "now", [], 0, run)
            )
    return session


def test_round_trip(tmp_path):
    times = [200.0, 202.0, 204.0, 202.0, 200.0, 204.0]
    session = session_of({"dense": times, "pruned": [time / 2 for time in times]})
    written = results.write(session, tmp_path)
    value = results.read(tmp_path / "result.json")
    assert value == json.loads(json.dumps(written))
    assert (value["schema"], value["schema_version"]) == ("android_bench.result", 2)
    (speedup,) = value["speedups"]
    assert (speedup["model"], speedup["baseline"]) == ("pruned", "dense")
    assert [speedup[key] for key in ("speedup", "low", "high")] == pytest.approx([2, 2, 2])
    assert [row["latency_us"] for row in value["summary"]] == [202, 101]
    table = pd.read_csv(tmp_path / "measurements.csv")
    assert list(table["mean_us"]) == times + [time / 2 for time in times]
    assert set(table["peak_memory_mb"]) == {9.0} and set(table["ran_on"]) == {
        "XNNPACK, 5 of 5 nodes"
    }
    assert table["valid"].all() and table["why_invalid"].isna().all()


@pytest.mark.parametrize("medians, name, latency", [(True, "median", 190), (False, "mean", 200)])
def test_medians_stand_for_rounds_where_the_binary_prints_them(medians, name, latency):
    value = results.to_json(session_of({"dense": [200.0] * 3}, medians=medians))
    assert value["statistic"] == name
    assert value["summary"][0]["latency_us"] == pytest.approx(latency)
    assert value["speedups"] == []


def test_a_single_run_without_median_makes_it_means():
    session = session_of({"dense": [200.0] * 3}, medians=True)
    session.measurements[1].benchmark = run_of(200.0)
    assert results.statistic_name(session) == "mean"


def test_drift_is_marked_for_each_model_by_itself():
    session = session_of({"dense": [200.0, 200.0, 300.0], "pruned": [100.0, 105.0, 100.0]})
    results.mark_drift(session)
    wrong = [(m.model, m.round) for m in session.measurements if m.reasons]
    assert wrong == [("dense", 3)]
    (speedup,) = results.speedups(session)
    assert speedup["rounds"] == 2, "only rounds in which both are valid"
    assert speedup["verdict"] == "too few rounds for an interval (2, at least 6)"


def test_no_figure_without_a_majority_of_valid_rounds():
    session = session_of({"dense": [200.0] * 4, "pruned": [100.0] * 4})
    for measurement in session.measurements[:2]:
        measurement.reasons.append("hung: no answer within 1 s")
    dense, pruned = results.summaries(session)
    assert dense["latency_us"] is None and dense["rounds_valid"] == 2
    assert dense["why_invalid"] == "hung: no answer within 1 s"
    assert pruned["latency_us"] == 100
    (speedup,) = results.speedups(session)
    assert speedup["speedup"] is None and speedup["verdict"].startswith("no result")


@pytest.mark.parametrize(
    "content, message",
    [
        ("{", "found"),
        ('{"a": 1}', "found other JSON"),
        ("[]", "found other JSON"),
        ('{"schema": "android_bench.result", "schema_version": 1}', "found 1"),
    ],
)
def test_what_is_no_result(tmp_path, content, message):
    path = tmp_path / "result.json"
    path.write_text(content)
    with pytest.raises(UserError, match=message):
        results.read(path)


def test_merged_report_of_runs_and_devices(tmp_path):
    times = {"dense": [2000.0, 2020.0, 2040.0], "pruned": [1000.0, 1010.0, 1020.0]}
    profiled = session_of(times, stopped="it rained")
    profiled.profiles.append(
        Profile(
            "dense",
            CONFIGURATION,
            [],
            (OperatorTime("inference", "CONV_2D", "a", 1, 1, 100, 1),),
            "",
        )
    )
    profiled.measurements[1].reasons.append("throttled: <b>cores</b> capped")
    results.write(profiled, tmp_path / "a/one")
    other = session_of(times, "Galaxy <S24>", "S2", "loopback double", preflight=["it was hot"])
    results.write(other, tmp_path / "a/two")
    results.write(session_of({"dense": [5000.0]}, "Moto G", "S3"), tmp_path / "b")
    paths = report.find_results([str(tmp_path / "a"), str(tmp_path / "b"), str(tmp_path / "a/one")])
    assert len(paths) == 3, "each result once"
    page = report.write(paths, tmp_path / "out").read_text()
    assert "Not a phone: loopback double" in page
    assert "Google Galaxy &lt;S24&gt; (loopback double)" in page and "<S24>" not in page
    assert "throttled: &lt;b&gt;cores&lt;/b&gt; capped" in page
    assert "it rained" in page and "it was hot" in page
    table = pd.read_csv(tmp_path / "out/measurements.csv")
    assert len(table) == 13 and set(table["backend"]) == {"phone", "loopback double"}
    assert len(pd.read_csv(tmp_path / "out/speedups.csv")) == 2
    for name in ("speedup", "latency", "rounds", "operators"):
        png = (tmp_path / f"out/plots/{name}.png").read_bytes()
        assert png.startswith(b"\x89PNG")
        assert f'alt="{name}"' in page


def test_a_report_of_phones_only_has_no_warning(tmp_path):
    results.write(session_of({"dense": [200.0] * 3}), tmp_path)
    page = report.write(report.find_results([str(tmp_path)]), tmp_path).read_text()
    assert "Not a phone" not in page
    assert "Only one model was measured" in page


def test_a_session_in_which_nothing_could_be_measured(tmp_path):
    session = session_of({"dense": [], "pruned": []})
    for check in session.checks:
        check.reasons.append("fell back to the CPU: GPU took no part of the model")
    results.write(session, tmp_path)
    page = report.write(report.find_results([str(tmp_path)]), tmp_path / "out").read_text()
    assert "fell back to the CPU" in page and "no result" in page
    assert not (tmp_path / "out/plots").exists()


def test_one_device_measured_twice_is_told_apart_by_time(tmp_path):
    first, second = (session_of({"dense": [200.0] * 3}) for _ in range(2))
    second.created = "2024-05-02T10:00:00+00:00"
    frames = report.frames([results.to_json(first), results.to_json(second)])
    titles = list(frames.sessions["device_title"])
    assert titles == [f"Google Pixel 6 (S1) ({s.created})" for s in (first, second)]


def test_folders_without_results(tmp_path):
    with pytest.raises(UserError, match="found none"):
        report.find_results([str(tmp_path)])

import json
import subprocess
import sys
import time

import numpy as np
import pytest

from tff_autoprune.errors import UserError
from tff_autoprune.export import benchmark as export_benchmark
from tff_autoprune.export import host, latency, latency_statistics


def test_the_section_has_every_exported_format(exported_run):
    section = exported_run.read_summary()["benchmark"]
    assert set(section["formats"]) == {"float32", "float16", "dynamic_int8", "full_int8"}
    assert section["format"] == "float32"
    for name in ("dense", "pruned", "speedup", "speedup_interval95"):
        assert section[name] == section["formats"]["float32"][name]
    for figures in section["formats"].values():
        for model in ("dense", "pruned"):
            low, high = figures[model]["latency_ms_interval95"]
            assert 0 < low <= high
            assert figures[model]["latency_ms_p10"] <= figures[model]["latency_ms_p90"]
        ratio = figures["dense"]["latency_ms_median"] / figures["pruned"]["latency_ms_median"]
        assert figures["speedup"] == pytest.approx(ratio)
    assert section["threads"] == 1
    assert section["rounds"] == 5
    host = section["host"]
    assert host["cpu"] and 0 <= host["busy_cores"] <= host["cores"] + 0.1


def test_only_what_others_do_makes_the_host_busy():
    """A training that has just ended, or this process, is not another program at work."""
    spin = "import time; end = time.process_time() + 0.6\nwhile time.process_time() < end: pass"
    others, started = host.OtherWork(), time.monotonic()
    subprocess.run([sys.executable, "-c", spin], check=True)
    own = time.process_time()
    while time.process_time() < own + 0.6:
        pass
    seconds = time.monotonic() - started
    busy = others.cores() * seconds
    # What the child spent is there, what this process spent is not. The kernel counts in ticks.
    assert busy >= 0.5
    assert busy + 0.6 <= host.describe()["cores"] * seconds + 0.1


def test_both_models_are_timed_in_every_round(exported_run):
    contents = [
        (exported_run.path / f"tflite/{model}.float32.tflite").read_bytes()
        for model in ("dense", "pruned")
    ]
    dense, pruned = latency.measure(contents, rounds=4, runs=6, threads=2, seed=3)
    for model in (dense, pruned):
        rounds, inferences = model.shape
        assert rounds == 4 and 2 <= inferences <= 6
    assert np.all(dense > 0) and np.all(pruned > 0)
    three = latency.measure([*contents, contents[0]], rounds=3, runs=4)
    assert [model.shape for model in three] == [(3, 4)] * 3


def times(*round_medians):
    """Rounds of three inferences whose median is given."""
    return np.array([[0.9 * median, median, 1.2 * median] for median in round_medians])


def test_equal_ratios_give_a_sharp_interval_however_much_the_host_drifts():
    drift = np.linspace(1, 10, 21)
    found = latency_statistics.compare(times(*(4 * drift)), times(*(2 * drift)))
    assert found["speedup"] == pytest.approx(2)
    assert found["speedup_interval95"] == pytest.approx([2, 2])
    low, high = found["dense"]["latency_ms_interval95"]
    assert low < found["dense"]["latency_ms_median"] < high


def test_the_interval_covers_one_if_the_models_are_alike():
    rng = np.random.default_rng(0)
    dense, pruned = rng.lognormal(0, 0.2, (2, 30, 20))
    low, high = latency_statistics.compare(dense, pruned)["speedup_interval95"]
    assert low < 1 < high


def test_more_inferences_of_one_model_do_not_matter():
    dense, pruned = times(4, 4, 4), np.full((3, 50), 2.0)
    found = latency_statistics.compare(dense, pruned)
    assert found["speedup"] == 2
    assert (found["dense"]["inferences"], found["pruned"]["inferences"]) == (9, 150)


def test_statistics_are_a_function_of_the_seed():
    rng = np.random.default_rng(1)
    dense, pruned = rng.lognormal(0, 0.2, (2, 10, 5))
    first, again, other = (
        latency_statistics.compare(dense, pruned, seed=seed) for seed in (4, 4, 5)
    )
    assert first == again != other


def test_a_run_without_exports_says_what_to_do(trained_run):
    with pytest.raises(UserError, match=r"no exported models to time; `tff-autoprune export"):
        export_benchmark.benchmark_run(trained_run)


def test_a_missing_file_is_named(exported_run):
    (exported_run.tflite / "pruned.float16.tflite").unlink()
    with pytest.raises(UserError, match=r"pruned\.float16\.tflite is missing"):
        export_benchmark.benchmark_run(exported_run, rounds=2, runs=2)


def test_the_command_measures_without_tensorflow(exported_run):
    probe = (
        "import runpy, sys; sys.modules['tensorflow'] = None;"
        "runpy.run_path('scripts/benchmark.py', run_name='__main__')"
    )
    flags = [f"--run_dir={exported_run.path}", "--rounds=3", "--runs=4", "--threads=2"]
    done = subprocess.run(
        [sys.executable, "-c", probe, *flags], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert "full_int8" in done.stdout and "speed-up" in done.stdout
    section = json.loads(exported_run.summary.read_text())["benchmark"]
    assert (section["rounds"], section["threads"]) == (3, 2)
    assert 6 <= section["pruned"]["inferences"] <= 12

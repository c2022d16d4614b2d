"""The whole harness against phones on the loopback, with the real adb client in between."""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest
from conftest import QUICK
from loopback import write_app, write_program
from phone_double import MODERN, OLD

from android_bench import cli, energy, runner

ONE_ROUND = (*QUICK, "--rounds=1")
ROOT = pathlib.Path(__file__).parents[2]


def result_of(folder, serial):
    return json.loads((folder / serial.replace(":", "_") / "result.json").read_text())


def reasons_of(value):
    return [reason for m in value["measurements"] for reason in m["reasons"]]


def test_full_run_of_a_training_run(attach, program, models, tmp_path, capsys):
    phone, serial = attach()
    out = tmp_path / "out"
    where = [f"--benchmark_binary={program}", f"--run_dir={models.parent}", f"--out={out}"]
    how = [*QUICK, "--rounds=6", "--delegate=cpu,xnnpack"]
    code = cli.main(["run", *where, "--profile", *how])
    printed = capsys.readouterr().out
    assert code == 0, printed
    value = result_of(out, serial)
    assert value["backend"] == "loopback double"
    assert value["stopped"] is None
    assert [m["label"] for m in value["models"]] == ["dense.float32", "pruned.float32"]
    # Every pair was measured in every round, and its outputs were compared.
    assert len(value["measurements"]) == 6 * 2 * 2
    assert all(not m["reasons"] for m in value["measurements"])
    assert all(c["outputs"]["match"] for c in value["checks"])
    assert len(value["speedups"]) == 2
    assert all(s["low"] <= s["speedup"] <= s["high"] for s in value["speedups"])
    compared = pd.read_csv(out / "operators.csv")
    assert set(compared["node_type"]) >= {"CONV_2D", "FULLY_CONNECTED"}
    assert set(compared["baseline"]) == {"dense.float32"}
    both = compared.dropna(subset=["baseline_ms", "model_ms"])
    assert len(both) == len(compared), "dense and pruned have the same layers"
    assert {p["model"] for p in value["profiles"]} == {"dense.float32", "pruned.float32"}
    assert all("CONV_2D" in {o["node_type"] for o in p["operators"]} for p in value["profiles"])
    assert all(c["peak_memory_mb"] > 0 for c in value["checks"])
    assert "backend: loopback double" in printed
    page = (out / "report.html").read_text()
    assert "Not a phone: loopback double" in page
    table = pd.read_csv(out / "measurements.csv")
    assert len(table) == 24 and table["valid"].all()
    assert (table["peak_memory_mb"] > 0).all()
    assert set(table["ran_on"]) == {"CPU", "XNNPACK, all"}
    assert set(table["backend"]) == {"loopback double"}
    assert table["median_us"].isna().all(), "no percentile that the binary did not print"
    assert set(phone.masks) == {"c0"}, "the fastest cluster"
    timing = [run for run in phone.benchmark_runs if "--enable_op_profiling=true" not in run]
    assert len(timing) == len(phone.benchmark_runs) - 4, "profiling is apart from timing"
    assert phone.leftovers == []


def test_old_device_without_shell_v2(attach, program, run_cli):
    phone, serial = attach(OLD)
    write_program(program, "armeabi-v7a")
    code, printed, _, out = run_cli("--cores=all", "--delegate=cpu", quick=ONE_ROUND)
    assert code == 0, printed
    assert phone.leftovers == []
    phone.behaviour["exit_code"] = 3
    code, _, _, out = run_cli("--cores=all", "--delegate=cpu", quick=ONE_ROUND)
    assert code == cli.EXIT_INVALID
    assert result_of(out, serial)["checks"][0]["reasons"] == ["exit code 3"]
    assert list((out / serial.replace(":", "_")).glob("earlier-*")), "the first session's"
    assert phone.leftovers == []


def test_quantized_models(attach, run_cli):
    attach()
    code, printed, _, _ = run_cli(quick=ONE_ROUND, model_format="full_int8")
    assert code == 0 and "outputs differ by up to" in printed


def test_two_devices(attach, run_cli, tmp_path, capsys):
    (first, one), (second, two) = attach(), attach()
    locked, _ = attach()
    locked.authorized = False
    locked.on_unplug()
    code, _, error, _ = run_cli(quick=ONE_ROUND)
    assert code == cli.EXIT_USER_ERROR
    assert "several devices" in error and one in error and two in error
    code, printed, error, out = run_cli("--all", quick=ONE_ROUND)
    assert code == 0, printed
    for phone, serial in ((first, one), (second, two)):
        assert result_of(out, serial)["device"]["serial"] == serial
        assert len(phone.benchmark_runs) == 4
        assert phone.leftovers == []
    assert set(pd.read_csv(out / "measurements.csv")["serial"]) == {one, two}
    merged = tmp_path / "merged"
    assert cli.main(["report", str(out), f"--out={merged}"]) == 0
    capsys.readouterr()
    # Two phones of one model are told apart by their serials.
    page = (merged / "report.html").read_text()
    assert f"loopback double) ({one})" in page and f"loopback double) ({two})" in page
    code, _, _, _ = run_cli(f"--serial={two}", quick=ONE_ROUND)
    assert (len(first.benchmark_runs), len(second.benchmark_runs)) == (4, 8)


def test_one_unfit_device_does_not_keep_the_other_from_being_measured(attach, run_cli):
    _, good = attach()
    _, wrong_abi = attach(OLD)
    code, _, error, out = run_cli("--all", quick=ONE_ROUND)
    assert code == cli.EXIT_INVALID
    assert result_of(out, good)["stopped"] is None
    assert "is for arm64-v8a, the device runs armeabi-v7a" in error
    assert not (out / wrong_abi.replace(":", "_")).exists()


def test_devices_that_are_not_ready(attach, adb_server, run_cli, capsys):
    locked, serial = attach(connect=False)
    locked.authorized = False
    adb_server.connect(serial)
    code, _, error, _ = run_cli()
    assert code == cli.EXIT_USER_ERROR
    assert "accept the question about this computer's key" in error
    code, _, error, _ = run_cli(f"--serial={serial}")
    assert code == cli.EXIT_USER_ERROR and "unauthorized" in error
    code, _, error, _ = run_cli("--serial=$(touch injected)")
    assert code == cli.EXIT_USER_ERROR and "no device" in error
    _, ready = attach()
    assert cli.main(["devices"]) == 0
    printed = capsys.readouterr().out
    assert "unauthorized" in printed and "accept the question" in printed
    row = next(line for line in printed.splitlines() if line.startswith(ready))
    for word in ("Google Pixel 6", "Tensor", "arm64-v8a", "14", "2x2.80 GHz", "29.0", "80 %"):
        assert word in row
    assert "ready (loopback double)" in row


def test_device_that_is_lost_for_good(attach, adb_server, run_cli):
    phone, serial = attach(unplug_at_run=5)
    code, _, _, out = run_cli()
    assert code == cli.EXIT_INVALID
    value = result_of(out, serial)
    assert "connection ended" in value["stopped"] and "rm -rf" in value["stopped"]
    assert len(value["measurements"]) == 3, "two were made, the third was cut off"
    assert value["measurements"][-1]["reasons"] == ["the device was lost"]
    assert value["speedups"][0]["speedup"] is None
    (left,) = phone.leftovers
    assert f"/data/local/tmp/{left}" in value["stopped"]
    # It comes back later: the next run tidies up.
    phone.unreachable = False
    adb_server.run(["disconnect", serial], 10)
    adb_server.connect(serial)
    code, _, _, _ = run_cli(quick=ONE_ROUND)
    assert code == 0 and phone.leftovers == []


def test_device_that_is_back_at_once(attach, run_cli):
    phone, serial = attach(unplug_at_run=4, comes_back=True)
    code, _, _, out = run_cli()
    assert code == cli.EXIT_INVALID
    assert "connection ended" in result_of(out, serial)["stopped"]
    assert phone.leftovers == []


def test_run_that_hangs(attach, run_cli):
    phone, serial = attach(hang_at_run=4)
    code, _, _, out = run_cli("--timeout_s=20")
    value = result_of(out, serial)
    assert [r for r in reasons_of(value) if r.startswith("hung")] == ["hung: no answer within 20 s"]
    assert len(value["measurements"]) == 6, "the others were made"
    assert code == 0, "two rounds of three are a majority"
    assert phone.ends_within(10) and phone.leftovers == []


@pytest.mark.parametrize(
    "attribute, amount, message",
    [("free_bytes", 4_000_000, "KiB are free"), ("quota_bytes", 5_000, "No space left on device")],
)
def test_full_disk(attach, run_cli, attribute, amount, message):
    phone, _ = attach()
    setattr(phone, attribute, amount)
    code, printed, error, _ = run_cli("--force", quick=ONE_ROUND)
    assert code == (cli.EXIT_USER_ERROR if attribute == "free_bytes" else cli.EXIT_INVALID)
    assert message in error + printed
    assert phone.leftovers == []


def test_hot_device_is_refused_or_marked(attach, run_cli):
    phone, serial = attach()
    phone.body_c = 45.0
    code, _, error, _ = run_cli(quick=ONE_ROUND)
    assert code == cli.EXIT_USER_ERROR
    assert "not fit to be measured: 45.0 °C, above 38.0 °C; --force" in error
    assert phone.benchmark_runs == []
    code, _, _, out = run_cli("--force", quick=ONE_ROUND)
    assert code == cli.EXIT_INVALID
    value = result_of(out, serial)
    assert set(reasons_of(value)) == {"before the start: 45.0 °C, above 38.0 °C"}
    assert value["speedups"][0]["speedup"] is None


def test_hot_device_is_waited_for(attach, run_cli):
    phone, _ = attach()
    phone.body_c, phone.cools_by_c = 45.0, 3.0
    code, printed, _, _ = run_cli("--cool_timeout_s=60", quick=ONE_ROUND)
    assert code == 0
    assert "waiting until it is cooler" in printed


def test_device_that_gets_hot_on_the_way(attach, run_cli):
    phone, serial = attach()
    phone.body_c, phone.cools_by_c = 37.0, -0.05
    code, _, _, out = run_cli()
    assert code == cli.EXIT_INVALID
    value = result_of(out, serial)
    assert "did not cool down" in value["stopped"]
    assert phone.leftovers == []


@pytest.mark.parametrize(
    "attribute, value, reason",
    [
        ("battery_percent", 10, "battery is at 10 %"),
        ("power_save", True, "battery saver is on"),
        ("screen_on", False, "screen is off"),
        ("thermal_status", 3, "thermal status 3"),
        ("capped_khz", {6: 1000000, 7: 1000000}, "capped at 1.00 of 2.80 GHz"),
    ],
)
def test_unfit_devices_are_refused(attach, run_cli, attribute, value, reason):
    phone, _ = attach()
    setattr(phone, attribute, value)
    code, _, error, _ = run_cli(quick=ONE_ROUND)
    assert code == cli.EXIT_USER_ERROR
    assert reason in error


@pytest.mark.parametrize(
    "behaviour, flags, reason",
    [
        ({"fall_back": True}, ("--delegate=gpu",), "fell back to the CPU: GPU took no part"),
        ({"wrong_output": True}, (), "wrong result: outputs differ"),
        ({"drop_summary": True}, (), "no summary"),
        ({"exit_code": 139}, (), "exit code 139"),
        ({"measure_only": 4}, (), "4 inferences instead of 5"),
        (
            {"say": "INFO: Inference timings in ms: Init: 1"},
            (),
            "not a known format of this line: 'Inference timings in ms: Init: 1'",
        ),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_what_makes_a_run_invalid(attach, run_cli, behaviour, flags, reason):
    phone, serial = attach(**behaviour)
    code, _, _, out = run_cli(*flags, quick=ONE_ROUND)
    assert code == cli.EXIT_INVALID
    value = result_of(out, serial)
    found = [reason for c in value["checks"] for reason in c["reasons"]] + reasons_of(value)
    assert any(reason in text for text in found), found
    assert value["speedups"][0]["speedup"] is None
    assert phone.leftovers == []


@pytest.mark.parametrize("names", [["output_filepath"], ["input_layer_value_files"]])
def test_binary_that_cannot_write_outputs(attach, run_cli, names):
    _, serial = attach(unknown=names)
    code, _, _, out = run_cli(quick=ONE_ROUND)
    assert code == 0, "an old binary is slower to trust, not wrong"
    check = result_of(out, serial)["checks"][0]
    assert check["outputs"]["compared"] is False
    assert (
        check["outputs"]["detail"]
        == "not compared: this program does not take inputs or write outputs"
    )


@pytest.mark.parametrize(
    "number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_interrupted(attach, program, models, tmp_path, number, code):
    phone, serial = attach()
    command = [sys.executable, "-m", "android_bench", "run", f"--benchmark_binary={program}"]
    command += [f"--run_dir={models.parent}", f"--out={tmp_path / 'out'}", *QUICK, "--min_secs=30"]
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        # A shell's background jobs, such as a whole test run, are started with SIGINT ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 120
    while len(phone.benchmark_runs) < 3:
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.05)
    process.send_signal(number)
    printed, _ = process.communicate(timeout=300)
    assert process.returncode == code, printed
    assert b"Traceback" not in printed
    assert phone.leftovers == []
    assert phone.ends_within(10), "nothing goes on on the device"
    value = result_of(tmp_path / "out", serial)
    assert len(value["checks"]) == 2 and value["stopped"] == "interrupted"


def test_odd_names(attach, models, tmp_path, capsys, monkeypatch):
    phone, _ = attach()
    monkeypatch.chdir(tmp_path)
    names = ["it's a; touch injected;.tflite", '$(touch injected) "q" `touch injected`.tflite']
    for name, model in zip(names, ("dense", "pruned")):
        shutil.copy(models / f"{model}.float32.tflite", name)
    program = write_program(tmp_path / "benchmark; $(touch injected)")
    out = tmp_path / "out <b>'&"
    where = [f"--benchmark_binary={program}", f"--out={out}"]
    code = cli.main(["run", *where, *(f"--model={name}" for name in names), *ONE_ROUND])
    printed = capsys.readouterr().out
    assert code == 0, printed
    assert "it's a; touch injected;" in printed
    assert not list(tmp_path.rglob("injected")) and not list(phone.root.rglob("injected"))
    assert not os.path.exists("injected")
    sent = "".join(phone.scripts)
    assert "touch" not in sent, "the name of a file does not reach the device"
    assert "&lt;b&gt;" not in (out / "report.html").read_text()
    assert "it&#39;s a; touch injected;" in (out / "report.html").read_text()


def test_no_device_can_pass_as_another(attach, adb_server, capsys):
    text = dict(MODERN.properties, **{"ro.android_bench.backend": "phone"})
    attach(type(MODERN)(**{**MODERN.__dict__, "properties": text}))
    cli.main(["devices"])
    assert "ready (loopback double)" in capsys.readouterr().out


CASES = pathlib.Path(__file__).parent / "fixtures/cases"


def test_one_odd_model_does_not_take_the_others_with_it(attach, program, tmp_path, capsys):
    """Dynamic shapes, Select ops, and 20 inputs, whose command is longer than old phones take."""
    _, serial = attach(OLD)
    write_program(program, "armeabi-v7a")
    out = tmp_path / "out"
    flags = [f"--model={CASES / name}.tflite" for name in ("states20", "dynamic", "flex")]
    where = [f"--benchmark_binary={program}", f"--out={out}", "--cores=all"]
    assert cli.main(["run", *where, *flags, *ONE_ROUND]) == cli.EXIT_INVALID
    capsys.readouterr()
    states, dynamic, flex = result_of(out, serial)["checks"]
    assert states["outputs"]["match"] and not states["reasons"]
    assert "the model needs one fixed shape" in dynamic["reasons"][0]
    assert flex["outputs"]["compared"] is False
    assert "take the _plus_flex build" in flex["reasons"][0]
    latencies = [row["latency_us"] is not None for row in result_of(out, serial)["summary"]]
    assert latencies == [True, False, False]


def test_long_and_similar_names(attach, program, models, tmp_path, capsys):
    _, serial = attach()
    out = tmp_path / "out"
    names = ("m" * 240, "模" * 70, "m-1", "m_1")
    for name in names:
        shutil.copy(models / "pruned.float32.tflite", tmp_path / f"{name}.tflite")
    flags = [f"--model={tmp_path / name}.tflite" for name in names]
    code = cli.main(["run", f"--benchmark_binary={program}", f"--out={out}", *flags, *ONE_ROUND])
    assert code == 0, capsys.readouterr().out
    value = result_of(out, serial)
    logs = [run["log"] for run in value["checks"] + value["measurements"]]
    assert len(set(logs)) == 8
    assert all((out / serial.replace(":", "_") / log).is_file() for log in logs)


def test_session_that_is_lost_at_once_shows_no_earlier_result(attach, adb_server, run_cli):
    phone, serial = attach()
    code, _, _, out = run_cli(quick=ONE_ROUND)
    assert code == 0
    phone.behaviour.update(unplug_at_run=5, hang_at_run=5, comes_back=True)
    code, printed, _, _ = run_cli(quick=ONE_ROUND)
    assert code == cli.EXIT_INVALID
    assert "stopped: " in printed and " ms" not in printed.split("backend")[1]
    value = result_of(out, serial)
    assert (value["checks"], value["measurements"]) == ([], [])
    assert "connection ended" in value["stopped"]
    (earlier,) = (out / serial.replace(":", "_")).glob("earlier-*")
    assert len(json.loads((earlier / "result.json").read_text())["measurements"]) == 2


def test_other_devices_are_measured_although_one_is_lost_at_once(attach, run_cli):
    attach(unplug_at_run=1, hang_at_run=1)
    _, good = attach()
    code, _, _, out = run_cli("--all", quick=ONE_ROUND)
    assert code == cli.EXIT_INVALID
    assert len(result_of(out, good)["measurements"]) == 2


def test_old_binary_that_knows_no_escapes(attach, run_cli):
    _, serial = attach(no_escape=True)
    code, printed, _, out = run_cli(quick=ONE_ROUND)
    assert code == 0, printed
    for check in result_of(out, serial)["checks"]:
        assert check["outputs"]["compared"] is False and not check["reasons"]
        assert "more than one delimiter" in check["outputs"]["detail"]


@pytest.mark.parametrize(
    "case, code, words",
    [
        ("page16k_old_binary.txt", 134, "built for 4 KB pages, the phone has 16 KB pages"),
        ("mtk_neuron4_failed.txt", 1, "the delegate's library cannot be opened"),
    ],
)
def test_the_programs_own_last_words(attach, run_cli, case, code, words):
    text = (CASES / case).read_text()
    attach(print=text, exit_code=code)
    exit_code, printed, _, _ = run_cli(quick=ONE_ROUND)
    assert exit_code == cli.EXIT_INVALID
    assert f"exit code {code}: " in printed and words in printed


def test_shell_that_may_not_execute(attach, run_cli):
    phone, _ = attach()
    phone.executes = False
    code, printed, _, _ = run_cli(quick=ONE_ROUND)
    assert code == cli.EXIT_INVALID
    assert "can't execute: Permission denied (this phone's shell may not execute" in printed


@pytest.mark.parametrize(
    "case, delegate, ran_on, remark",
    [
        ("gpu_opencl_to_opengl.txt", "gpu", "GPU (OpenGL, because OpenCL failed)", "OpenGL ran"),
        ("tf41977_immutable_but_completes.txt", "xnnpack", "XNNPACK, all", "is disallowed when"),
    ],
)
def test_what_really_ran_is_said(attach, run_cli, case, delegate, ran_on, remark):
    attach(print=(CASES / case).read_text(), print_from=3)  # After the checks.
    code, printed, _, out = run_cli(f"--delegate={delegate}", quick=ONE_ROUND)
    assert code == 0, printed
    table = pd.read_csv(out / "measurements.csv")
    assert table["ran_on"].str.startswith(ran_on).all()
    assert table["remarks"].str.contains(remark, regex=False).all()
    assert ran_on in printed and remark in printed


def test_flags_that_are_passed_on(attach, run_cli):
    phone, _ = attach()
    code, printed, _, _ = run_cli(
        "--extra_flag=gpu_backend=cl",
        "--extra_flag=--use_sl=it's",
        "--delegate=gpu",
        quick=ONE_ROUND,
    )
    assert code == cli.EXIT_INVALID, "the double does not know the second"
    assert "does not know --use_sl=it's" in printed
    assert all("--gpu_backend=cl" in run for run in phone.benchmark_runs)


def test_external_delegate(attach, run_cli):
    attach()
    flag = "--extra_flag=external_delegate_path=/vendor/lib64/libQnnTFLiteDelegate.so"
    code, printed, _, _ = run_cli("--delegate=external", flag, quick=ONE_ROUND)
    assert code == 0 and "EXTERNAL, all" in printed
    code, printed, _, _ = run_cli("--delegate=external", quick=ONE_ROUND)
    assert code == cli.EXIT_INVALID
    assert "does not say that a delegate other than XNNPACK took the model" in printed


def test_training_signature(attach, program, trainers, tmp_path, capsys):
    phone, _ = attach()
    flags = [f"--model={trainers / name}.tflite" for name in ("dense", "pruned")]
    where = ["run", f"--benchmark_binary={program}", f"--out={tmp_path / 'out'}", *flags]
    assert cli.main([*where, "--signature=train", *ONE_ROUND]) == 0
    capsys.readouterr()
    assert all("--signature_to_run_for=train" in run for run in phone.benchmark_runs)
    table = pd.read_csv(tmp_path / "out/measurements.csv")
    assert set(table["signature"]) == {"train"} and table["valid"].all()
    assert cli.main([*where, "--signature=no_such", *ONE_ROUND]) == cli.EXIT_INVALID
    assert "the model has no such --signature" in capsys.readouterr().out
    phone.behaviour["unknown"] = ["signature_to_run_for"]
    assert cli.main([*where, "--signature=train", *ONE_ROUND]) == cli.EXIT_INVALID
    assert "does not know --signature_to_run_for=train" in capsys.readouterr().out


def test_litert(attach, models, tmp_path, capsys):
    _, serial = attach()
    program = write_program(tmp_path / "litert", name="benchmark_litert_model")
    where = [f"--litert_binary={program}", f"--run_dir={models.parent}"]
    where.append(f"--out={tmp_path / 'out'}")
    code = cli.main(["run", *where, *ONE_ROUND, "--delegate=xnnpack,gpu"])
    assert code == 0, capsys.readouterr().out
    value = result_of(tmp_path / "out", serial)
    assert value["program"]["tool"] == "benchmark_litert_model"
    assert all("takes no inputs" in check["outputs"]["detail"] for check in value["checks"])


def test_benchmark_app(attach, models, tmp_path, capsys):
    phone, serial = attach()
    app = write_app(tmp_path / "benchmark.apk")
    where = [f"--benchmark_app={app}", f"--run_dir={models.parent}", f"--out={tmp_path / 'out'}"]
    code = cli.main(["run", *where, *ONE_ROUND])
    printed = capsys.readouterr().out
    assert code == 0, printed
    value = result_of(tmp_path / "out", serial)
    assert value["program"]["tool"] == "benchmark app" and "benchmark app" in printed
    assert [m["configuration"]["cores"] for m in value["measurements"]] == ["all", "all"]
    assert all(not m["reasons"] for m in value["measurements"])
    assert not phone.installed and phone.leftovers == [], "as it was before"
    phone.behaviour["drop_summary"] = True
    assert cli.main(["run", *where, *ONE_ROUND]) == cli.EXIT_INVALID
    assert "INVALID: exit code 1" in capsys.readouterr().out


def test_sustained_run(attach, run_cli):
    # A check and a round; then three starts as fast as ever, and the rest a hundred times slower.
    _, serial = attach(slow_down={str(number): 100.0 for number in range(6, 200)})
    code, printed, _, out = run_cli("--sustained=0.01", quick=ONE_ROUND, files=("dense",))
    assert code == 0, printed
    (run,) = result_of(out, serial)["sustained"]
    assert len(run["points"]) >= 6 and run["reasons"] == []
    assert run["throttled_after_s"] == run["points"][3]["at_s"] and run["slowdown"] > 1.1
    assert "without a pause; throttled after" in printed
    table = pd.read_csv(out / "sustained.csv")
    assert len(table) == len(run["points"]) and set(table["backend"]) == {"loopback double"}
    assert (out / "plots/sustained.png").exists()


@pytest.mark.parametrize(
    "charging, gauge, words",
    [
        (True, (300_000, 4_000_000), "no estimate while the phone is charged"),
        (False, None, "does not tell current and voltage"),
        (False, (300_000, 4_000_000), "power while running was not above idle power"),
    ],
)
def test_energy_where_there_is_no_estimate(attach, run_cli, monkeypatch, charging, gauge, words):
    monkeypatch.setattr(energy, "IDLE_S", 2)
    monkeypatch.setattr(runner, "_LONG_RUN_S", 2)
    phone, serial = attach()
    phone.charging, phone.gauge = charging, gauge
    code, printed, _, out = run_cli("--energy", quick=ONE_ROUND, files=("dense",))
    assert code == 0, printed
    assert words in result_of(out, serial)["energy"][0]["reasons"][0]
    assert words in printed and phone.leftovers == []


def test_devices_that_cannot_be_bound_or_are_booting(attach, run_cli, capsys):
    phone, _ = attach()
    phone.offline = (6, 7)
    code, _, error, _ = run_cli(quick=ONE_ROUND)
    assert code == cli.EXIT_USER_ERROR and "cores 6, 7 are switched off" in error
    phone.offline, phone.booted = (), False
    code, _, error, _ = run_cli(quick=ONE_ROUND)
    assert code == cli.EXIT_USER_ERROR and "still booting" in error
    assert cli.main(["devices"]) == 0
    printed = capsys.readouterr().out
    assert "still booting" in printed and "ready" not in printed

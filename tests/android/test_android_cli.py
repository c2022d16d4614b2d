"""The command line: help, usage errors, and what it does not import."""

from __future__ import annotations

import pathlib
import subprocess
import sys

import pytest
from loopback import write_app, write_program

from android_bench import cli

ROOT = pathlib.Path(__file__).parents[2]


def write_model(path):
    path.write_bytes(b"\x1c\0\0\0TFL3")
    return path


def test_help_answers_without_the_heavy_packages():
    script = (
        "import sys\n"
        "from android_bench import cli\n"
        "try:\n"
        "    cli.main(['run', '--help'])\n"
        "except SystemExit as end:\n"
        "    assert end.code == 0\n"
        "heavy = {'tensorflow', 'tflite_runtime', 'pandas', 'numpy', 'matplotlib', 'adbutils'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "android_aarch64_benchmark_model" in done.stdout
    assert "android_bench/native" in done.stdout


def test_as_a_module():
    done = subprocess.run(
        [sys.executable, "-m", "android_bench", "run", "--benchmark_binary=none"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == cli.EXIT_USER_ERROR
    assert done.stderr.startswith("error: expected either --model")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "flags",
    [
        ["--threads=0"],
        ["--threads=1,two"],
        ["--delegate=cpu,tpu"],
        ["--cores=fast"],
        ["--cores=0"],
        ["--rounds=many"],
        ["--round=3"],
    ],
)
def test_flags_that_cannot_be_read(flags, capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(["run", "--benchmark_binary=b", "--model=m", *flags])
    assert end.value.code == cli.EXIT_USER_ERROR
    assert flags[0].split("=")[0] in capsys.readouterr().err


@pytest.mark.parametrize(
    "flags, message",
    [
        ([], "expected either --model (repeatable) or --run_dir"),
        (["--model={model}", "--run_dir={folder}"], "expected either"),
        (["--model={folder}/none"], "No such file"),
        (["--run_dir={folder}/none"], "found no folder"),
        (["--model={model}", "--delegate=npu"], "benchmark_model has cpu, xnnpack, gpu"),
        (["--model={model}", "--extra_flag=gpu"], "--extra_flag: expected NAME=VALUE"),
        (["--model={model}", "--extra_flag=--num_runs=3"], "num_runs is set by --num_runs"),
        (["--model={model}", "--benchmark_app={model}"], "expected one of --benchmark_binary"),
        (["--model={model}", "--sustained=-1"], "--sustained: expected 0 or more"),
        (["--model={model}", "--benchmark_binary={model}"], "expected a program for Android"),
        (["--model={model}", "--rounds=0"], "--rounds: expected more than 0, found 0"),
        (["--model={model}", "--max_drift=-1"], "--max_drift: expected 0 or more"),
        (["--model={model}", "--adb=/none"], "--adb: expected an executable"),
    ],
)
def test_usage_errors_are_one_line(tmp_path, capsys, flags, message):
    model = write_model(tmp_path / "m.tflite")
    program = write_program(tmp_path / "program")
    flags = [flag.format(model=model, folder=tmp_path) for flag in flags]
    assert cli.main(["run", f"--benchmark_binary={program}", *flags]) == cli.EXIT_USER_ERROR
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1 and error.startswith("error: ")


def test_no_device(adb_server, tmp_path, capsys):
    model = write_model(tmp_path / "m.tflite")
    program = write_program(tmp_path / "program")
    command = ["run", f"--benchmark_binary={program}", f"--model={model}"]
    assert cli.main(command) == cli.EXIT_USER_ERROR
    assert "no device is ready: connect one" in capsys.readouterr().err
    assert cli.main([*command, "--connect=127.0.0.1:1"]) == cli.EXIT_USER_ERROR
    assert "--connect" in capsys.readouterr().err
    assert cli.main([*command, "--all", "--serial=S"]) == cli.EXIT_USER_ERROR
    assert "found both" in capsys.readouterr().err
    assert cli.main(["devices"]) == 0
    assert "no device; connect one" in capsys.readouterr().out


def test_connect(attach, capsys):
    _, serial = attach(connect=False)
    assert cli.main(["devices", f"--connect={serial}"]) == 0
    assert serial in capsys.readouterr().out


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--litert_binary={program}", "--delegate=cpu"], "has xnnpack, gpu, npu; found cpu"),
        (["--litert_binary={program}", "--profile"], "prints no table"),
        (["--benchmark_app={app}", "--cores=big"], "cannot be bound to cores"),
        (["--benchmark_app={app}", "--extra_flag=a=b c"], "takes no spaces"),
        (["--benchmark_app={program}"], "expected an APK"),
        (["--benchmark_app={folder}/none.apk"], "No such file"),
        ([], "expected one of --benchmark_binary, --litert_binary and --benchmark_app"),
    ],
)
def test_what_other_programs_cannot_do(tmp_path, capsys, flags, message):
    names = {
        "program": write_program(tmp_path / "program"),
        "app": write_app(tmp_path / "app.apk"),
        "folder": tmp_path,
    }
    flags = [flag.format(**names) for flag in flags]
    model = write_model(tmp_path / "m.tflite")
    assert cli.main(["run", f"--model={model}", *flags]) == cli.EXIT_USER_ERROR
    assert message in capsys.readouterr().err

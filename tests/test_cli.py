import pathlib
import subprocess
import sys

import pytest

from tff_autoprune import cli

ROOT = pathlib.Path(__file__).parents[1]
SCRIPT = """
import importlib
from tff_autoprune import cli

cli.run(lambda argv: print(importlib.import_module("my_package.networks").NAME))
"""


def _python(*arguments, cwd=ROOT):
    return subprocess.run([sys.executable, *arguments], cwd=cwd, capture_output=True, text=True)


def test_a_module_in_the_folder_where_the_command_is_called_is_found(tmp_path):
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts" / "command.py").write_text(SCRIPT)
    (tmp_path / "project" / "my_package").mkdir(parents=True)
    (tmp_path / "project" / "my_package" / "networks.py").write_text('NAME = "mine"')
    done = _python(tmp_path / "scripts" / "command.py", cwd=tmp_path / "project")
    assert done.stdout == "mine\n", done.stderr


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_help_lists_the_flags_of_the_command_without_tensorflow(command):
    probe = (
        "import sys; sys.modules['tensorflow'] = None;"
        f"sys.argv = ['tff-autoprune', {command!r}, '--help'];"
        "from tff_autoprune import cli; cli.main()"
    )
    done = _python("-c", probe)
    assert done.returncode == 0, done.stderr
    known = {"train": "--run_dir", "show-data": "--data", "worker": "--bind", "compare": "--jobs"}
    assert known.get(command, "--run_dir") in done.stdout
    assert "--verbosity" not in done.stdout
    assert ("--jobs" in done.stdout) == (command == "compare")


def test_the_commands_are_listed():
    done = _python("-m", "tff_autoprune", "--help")
    assert done.returncode == 0
    assert all(f"  {command} " in done.stdout for command in cli.COMMANDS)


@pytest.mark.parametrize(
    "arguments, expected",
    [
        ([], ""),
        (["magic"], "expected one of train, export"),
        (["train", "rounds=abc", "--config=configs/demo.py"], "found 'rounds=abc'"),
        (["benchmark", "--rounds=abc"], "--rounds=abc: expected an integer, found 'abc'"),
        (["benchmark", "--rounds=1"], "--rounds=1: expected an integer >= 2, found 1"),
        (["export", "--formats=float33"], "some of float32, float16"),
        (["export", "--tolerance=x"], "expected a number, found 'x'"),
        (["report", "runs/one", "--out=page.html"], "--out: expected several runs"),
        (
            ["train", "--config=configs/demo.py", "--run_dir=x", "--resume", "--overwrite"],
            "expected one of them, found both",
        ),
        (
            [
                *("train", "--config=configs/demo.py", "--dry_run"),
                *(f"--tls_{what}=x.pem" for what in ("ca", "certificate", "key")),
            ],
            "expected --workers with them",
        ),
        (["report", "--import=my.missing_module"], "--import=my.missing_module: "),
    ],
)
def test_what_is_wrong_is_one_line(arguments, expected):
    done = _python("-m", "tff_autoprune", *arguments)
    assert done.returncode == 2
    assert done.stderr.count("\n") == (1 if arguments else 0)
    assert expected in done.stderr


def test_an_imported_module_registers_layers(tmp_path):
    (tmp_path / "my_layers.py").write_text("print('registered')")
    done = _python(
        ROOT / "scripts" / "export.py", "--import=my_layers", "--only_check_args", cwd=tmp_path
    )
    assert (done.returncode, done.stdout) == (0, "registered\n"), done.stderr


@pytest.mark.parametrize("command", ["--help", "show-data --list"])
def test_a_reader_that_has_seen_enough_is_no_error(command):
    line = f"{sys.executable} -m tff_autoprune {command} | true"
    done = subprocess.run(["bash", "-c", line], cwd=ROOT, capture_output=True, text=True)
    assert done.stderr == ""

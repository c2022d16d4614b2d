import subprocess
import sys

SCRIPT = """
import importlib
from tff_autoprune import cli

cli.run(lambda argv: print(importlib.import_module("my_package.networks").NAME))
"""


def test_a_module_in_the_folder_where_the_command_is_called_is_found(tmp_path):
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts" / "command.py").write_text(SCRIPT)
    (tmp_path / "project" / "my_package").mkdir(parents=True)
    (tmp_path / "project" / "my_package" / "networks.py").write_text('NAME = "mine"')
    done = subprocess.run(
        [sys.executable, tmp_path / "scripts" / "command.py"],
        cwd=tmp_path / "project",
        capture_output=True,
        text=True,
    )
    assert done.stdout == "mine\n", done.stderr

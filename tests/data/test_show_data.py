"""The command that shows a data set."""

from __future__ import annotations

import pathlib
import subprocess
import sys

import numpy as np
import pytest
import source_files
from PIL import Image

from tff_autoprune import data
from tff_autoprune.data.contact_sheet import contact_sheet

SCRIPT = pathlib.Path(__file__).parents[2] / "scripts" / "show_data.py"


def _run(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, str(SCRIPT), *arguments], capture_output=True, text=True, check=False
    )


def test_it_draws_a_sheet_and_prints_statistics(tmp_path):
    path = source_files.write_npz(tmp_path / "own.npz")
    out = tmp_path / "new" / "sheet.png"
    result = _run(
        "--data=npz", f"--path={path}", f"--out={out}", "--part=train", "--clients=3",
        "--examples=4", "--option=test_fraction=0.3", "--crop=0,8", "--resize=20", "--invert",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert "npz: images (20, 20, 1), 4 classes" in result.stdout
    assert "test: 3 clients, 18 examples" in result.stdout
    assert Image.open(out).format == "PNG"


def test_it_lists_the_data_sets():
    result = _run("--list")
    assert result.returncode == 0
    for name in data.names():
        assert f"{name}: " in result.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data=nothing"], "data.name: expected one of"),
        (["--data=digits", "--option=writers"], "--option: expected name=value, found 'writers'"),
        (["--data=digits", "--option=seed=3"], "--option: 'digits' has no option 'seed'"),
        (["--data=digits", "--crop=1,x"], "data.crop: expected two integers"),
        (["--data=femnist", "--path=/nowhere"], "emnist_all.sqlite"),
    ],
)
def test_mistakes_are_one_line(arguments, message):
    result = _run(*arguments)
    assert result.returncode == 2
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert message in line


@pytest.mark.parametrize("name", ["digits", "celeba"])
def test_every_client_has_a_row_and_every_example_a_tile(load_small, name):
    loaded = load_small(name)
    ids = loaded.train.client_ids[:2]
    one, two = (
        contact_sheet(loaded.train, ids[:count], loaded.spec.label_names, examples=5)
        for count in (1, 2)
    )
    assert two.height - 4 == 2 * (one.height - 4)
    assert len(np.unique(np.asarray(two))) > 10

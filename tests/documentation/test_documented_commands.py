"""Every command and link in README.md and docs/ is real."""

import pathlib
import re
import shlex
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def _blocks(page, language):
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)


def _lines(page):
    for block in _blocks(page, "sh"):
        yield from (line for line in block.replace("\\\n", " ").splitlines() if line.strip())


def _script_commands():
    found = {}
    for page in PAGES:
        for line in _lines(page):
            words = shlex.split(line, comments=True)
            if len(words) > 1 and words[0] == "python" and words[1].startswith("scripts/"):
                found[" ".join(words[1:])] = words[1:]
            if len(words) > 1 and words[0] == "tff-autoprune":
                found[" ".join(words)] = ["-m", "tff_autoprune", *words[1:]]
    return list(found.values())


@pytest.mark.parametrize("words", _script_commands(), ids=" ".join)
def test_a_documented_command_is_accepted(words):
    done = subprocess.run(
        [sys.executable, *words, "--only_check_args"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_documented_make_targets_exist():
    rules = (ROOT / "Makefile").read_text()
    for page in PAGES:
        for line in _lines(page):
            words = shlex.split(line, comments=True)
            if words and words[0] == "make":
                assert re.search(rf"^{words[1]}:", rules, re.MULTILINE), line


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8")):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


@pytest.mark.slow
def test_the_tutorial_works_as_written(tmp_path):
    """Follows docs/tutorial.md literally, with its results in another folder."""
    for line in _lines(ROOT / "docs" / "tutorial.md"):
        words = shlex.split(line)
        if words[0] != "python":
            continue
        words = [re.sub(r"(^|=)runs/", rf"\1{tmp_path}/", word) for word in words]
        done = subprocess.run(
            [sys.executable, *words[1:]], cwd=ROOT, capture_output=True, text=True, timeout=900
        )
        assert done.returncode == 0, f"{line}\n{done.stderr}"
    assert (tmp_path / "tutorial" / "report.html").exists()
    assert (tmp_path / "tutorial_comparison" / "comparison.md").exists()


def test_tensorboard_starts():
    """It needs more than its package asks for; see requirements.in."""
    done = subprocess.run(
        [sys.executable, "-m", "tensorboard.main", "--version"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr

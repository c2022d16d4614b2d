import json
import multiprocessing
import os
import stat

import pytest

from tff_autoprune import files
from tff_autoprune.errors import UserError
from tff_autoprune.run_directory import RunDirectory


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "result.json"
    files.write_json(path, {"a": 1})
    with pytest.raises(ValueError):
        files.write_json(path, {"a": float("nan")})
    with pytest.raises(RuntimeError), files.replacing(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError("stopped")
    assert json.loads(path.read_text()) == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["result.json"]


def test_written_files_are_readable_by_others(tmp_path):
    path = tmp_path / "sub" / "result.txt"
    files.write_text(path, "ä")
    assert path.read_text(encoding="utf-8") == "ä"
    assert path.stat().st_mode & stat.S_IROTH


def test_summary_sections_are_replaced_one_by_one(tmp_path):
    run = RunDirectory(tmp_path)
    run.update_summary(seed=3, export={"a": 1})
    run.update_summary(export={"b": 2})
    assert run.read_summary() == {"schema_version": 1, "seed": 3, "export": {"b": 2}}


def test_a_missing_or_broken_run_directory_is_a_user_error(tmp_path):
    with pytest.raises(UserError, match="not a folder"):
        RunDirectory(tmp_path / "absent").require()
    with pytest.raises(UserError, match=r"config\.json is missing"):
        RunDirectory(tmp_path).read_config()
    (tmp_path / "summary.json").write_text("{")
    with pytest.raises(UserError, match="expected JSON"):
        RunDirectory(tmp_path).read_summary()


def _add_sections(path, name):
    for number in range(25):
        RunDirectory(path).update_summary(**{f"{name}{number}": number})


def test_commands_that_write_the_summary_at_once_lose_nothing(tmp_path):
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_add_sections, args=(tmp_path, name)) for name in "abc"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert len(RunDirectory(tmp_path).read_summary()) == 1 + 3 * 25


def test_writing_never_changes_the_umask(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "umask", None)
    files.write_text(tmp_path / "result.txt", "1")


def _fill(path):
    """Writes what a run writes, and something else beside and in between."""
    for name in ("metrics.csv", "summary.json", "models/dense.keras", "plots/loss.png"):
        files.write_text(path / name, "{}")
    files.write_json(path / "config.json", {"config": {}, "versions": {}})
    for name in ("notes.txt", "models/mine.h5", "other/metrics.csv"):
        files.write_text(path / name, "mine")


def _names(path):
    return sorted(str(file.relative_to(path)) for file in path.rglob("*") if file.is_file())


def test_only_what_a_run_wrote_is_deleted(tmp_path):
    _fill(tmp_path)
    RunDirectory(tmp_path).clear()
    assert _names(tmp_path) == ["models/mine.h5", "notes.txt", "other/metrics.csv"]
    RunDirectory(tmp_path).check_writable(overwrite=True)


@pytest.mark.parametrize("content", [None, "{}", "[]", "not JSON"])
def test_a_folder_that_is_no_run_is_left_alone(tmp_path, content):
    _fill(tmp_path)
    (tmp_path / "config.json").unlink()
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    before = _names(tmp_path)
    for overwrite in (False, True):
        with pytest.raises(UserError, match="is not a run, but holds"):
            RunDirectory(tmp_path).check_writable(overwrite=overwrite)
    with pytest.raises(UserError, match="is not a run, but holds"):
        RunDirectory(tmp_path).clear()
    assert _names(tmp_path) == before


def test_a_folder_of_runs_loses_none(tmp_path):
    _fill(tmp_path / "runs" / "one")
    before = _names(tmp_path)
    RunDirectory(tmp_path / "runs").clear()
    assert _names(tmp_path) == before


def test_measurements_on_phones_are_not_left_for_another_model(tmp_path):
    _fill(tmp_path)
    files.write_text(tmp_path / "android" / "speedups.csv", "")
    with pytest.raises(UserError, match="holds measurements of the earlier run on phones"):
        RunDirectory(tmp_path).clear()
    assert (tmp_path / "summary.json").exists()

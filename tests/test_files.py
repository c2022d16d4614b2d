import json
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

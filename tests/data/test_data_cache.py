"""Files of rendered data: written once, noticed when damaged."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tff_autoprune.data import cache
from tff_autoprune.errors import UserError

PARAMETERS = {"format": 1, "seed": 3}


@pytest.fixture
def built() -> list[int]:
    return []


@pytest.fixture
def get(tmp_path, built):
    """Gets the arrays of a data set that takes note of each time it is built."""

    def build() -> dict[str, np.ndarray]:
        built.append(len(built))
        return {"images": np.arange(4000, dtype=np.uint8), "names": np.asarray(["a", "bc"])}

    return lambda parameters=PARAMETERS: cache.load_or_build(
        "things", parameters, build, str(tmp_path / "new")
    )


def test_what_was_built_is_kept(get, built):
    first, second = get(), get()
    assert built == [0]
    assert set(first) == set(second) == {"images", "names"}
    for key, value in first.items():
        np.testing.assert_array_equal(value, second[key])


def test_other_parameters_are_another_file(get, built, tmp_path):
    get()
    get({**PARAMETERS, "seed": 4})
    assert built == [0, 1]
    assert len(list((tmp_path / "new").iterdir())) == 2


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty", "other recipe", "a folder"])
def test_a_damaged_file_is_built_again_with_one_line(get, built, tmp_path, caplog, damage):
    expected = get()["images"]
    (file,) = (tmp_path / "new").iterdir()
    content = bytearray(file.read_bytes())
    if damage == "truncated":
        file.write_bytes(content[: len(content) // 2])
    elif damage == "flipped":
        content[content.index(bytes(range(100, 120)))] ^= 1
        file.write_bytes(content)
    elif damage == "empty":
        file.write_bytes(b"")
    elif damage == "other recipe":
        with np.load(file) as stored:
            np.savez(file, **{**stored, "recipe": np.asarray(json.dumps({}))})
    else:
        file.unlink()
        file.mkdir()
        with pytest.raises(UserError, match="cannot write"):
            get()
        return
    np.testing.assert_array_equal(get()["images"], expected)
    np.testing.assert_array_equal(get()["images"], expected)
    assert built == [0, 1]
    (message,) = [record.getMessage() for record in caplog.records]
    assert str(file) in message
    assert "rendering it again" in message
    assert "\n" not in message


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    with pytest.raises(UserError, match=r"data\.cache_dir: cannot write .*file"):
        cache.load_or_build("things", PARAMETERS, dict, str(blocked))


def test_the_environment_names_the_folder(tmp_path, monkeypatch):
    monkeypatch.setenv(cache.CACHE_VARIABLE, str(tmp_path))
    assert cache.folder() == tmp_path
    assert cache.folder("elsewhere").name == "elsewhere"
    monkeypatch.delenv(cache.CACHE_VARIABLE)
    assert cache.folder().parts[-2:] == (".cache", "tff_autoprune")

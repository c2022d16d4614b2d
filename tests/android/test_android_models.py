"""Which files are measured."""

from __future__ import annotations

import pytest

from android_bench import models
from android_bench.errors import UserError


def write(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"\x1c\0\0\0TFL3" + path.name.encode())
    return str(path)


def test_labels_are_file_names_unless_they_collide(tmp_path):
    a, b, c = (write(tmp_path / name) for name in ("x/dense.tflite", "y/dense.tflite", "odd name"))
    assert [m.label for m in models.from_files([a, c])] == ["dense", "odd name"]
    assert [m.label for m in models.from_files([a, b, c])] == [a, b, "odd name"]


def test_dense_and_pruned_of_a_run(tmp_path):
    for name in ("dense.float32", "pruned.float32", "dense.float16"):
        write(tmp_path / "tflite" / f"{name}.tflite")
    assert [m.label for m in models.from_run(str(tmp_path), "float32")] == [
        "dense.float32",
        "pruned.float32",
    ]
    with pytest.raises(UserError, match=r"pruned.float16.tflite, found dense.float16.tflite,"):
        models.from_run(str(tmp_path), "float16")


@pytest.mark.parametrize("name", ["none", "."])
def test_no_run(tmp_path, name):
    with pytest.raises(UserError, match="--run_dir"):
        models.from_run(str(tmp_path / name), "float32")


def test_what_is_no_model(tmp_path):
    with pytest.raises(UserError, match="No such file"):
        models.from_files([str(tmp_path / "none.tflite")])
    (tmp_path / "keras.tflite").write_bytes(b"PK\x03\x04 not a model")
    with pytest.raises(UserError, match="expected a TensorFlow Lite model"):
        models.from_files([str(tmp_path / "keras.tflite")])
    model = write(tmp_path / "a.tflite")
    with pytest.raises(UserError, match="twice"):
        models.from_files([model, model])

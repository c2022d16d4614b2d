"""LEAF's folders, FEMNIST's and CelebA's layout."""

from __future__ import annotations

import json
import logging

import numpy as np
import pytest
import source_files
from PIL import Image

from tff_autoprune import data
from tff_autoprune.errors import UserError


def test_users_of_both_splits_are_held_out_whole(tmp_path):
    folder = source_files.write_leaf(tmp_path)
    loaded = data.load("leaf", path=str(folder))
    assert len(loaded.train.client_ids) == 6
    user = loaded.test.client_ids[0]
    expected = {"x": [], "y": []}
    for split in ("train", "test"):
        for path in sorted((folder / split).iterdir()):
            users = json.loads(path.read_text())["user_data"]
            for key in expected:
                expected[key] += users.get(user, {key: []})[key]
    images, labels = data.client_arrays(loaded.test, user)
    np.testing.assert_allclose(images.reshape(len(labels), 784), expected["x"], atol=1e-6)
    assert labels.tolist() == expected["y"]


def test_leafs_own_split_by_user_is_kept(tmp_path):
    loaded = data.load("leaf", path=str(source_files.write_leaf(tmp_path, by_user=True)))
    assert sorted(loaded.train.client_ids) == [f"user_{i}" for i in range(4)]
    assert len(loaded.validation.client_ids) == len(loaded.test.client_ids) == 2


def test_leafs_own_split_by_example_can_be_kept(tmp_path):
    loaded = data.load("leaf", path=str(source_files.write_leaf(tmp_path)), split="examples")
    assert len(loaded.train.client_ids) == 8


def test_faces_are_read_from_the_pictures(tmp_path):
    folder = source_files.write_leaf_faces(tmp_path)
    loaded = data.load("leaf", path=str(folder))
    assert loaded.spec.image_shape == (84, 84, 3)
    assert loaded.spec.num_classes == 2
    images, labels = data.client_arrays(loaded.train, "b")
    stored = Image.open(folder / "raw" / "img_align_celeba" / "b1.png")
    np.testing.assert_allclose(images[1], np.asarray(stored) / 255, atol=1e-6)
    assert labels.tolist() == [0, 1]


def test_floats_that_were_no_bytes_are_kept_beside_bytes(tmp_path):
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        users = {f"u{i}": source_files.leaf_characters(rng, 2) for i in range(6)}
        users["u0"]["x"][0][0] = users["u1"]["x"][0][0] = 0.123456
        source_files.write_leaf_file(tmp_path / split / "a.json", users)
    loaded = data.load("leaf", path=str(tmp_path))
    for part in (loaded.train, loaded.validation, loaded.test):
        for user in set(part.client_ids) & {"u0", "u1"}:
            images, _ = data.client_arrays(part, user)
            assert images[0, 0, 0, 0] == np.float32(0.123456)
            np.testing.assert_allclose(images * 255, np.rint(images * 255), atol=0.5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda user: user["y"].__setitem__(0, 62), r"example 0 has label 62; expected 0 to 61"),
        (lambda user: user["y"].__setitem__(0, 1.5), r"y must be integers"),
        (lambda user: user["x"][1].__setitem__(5, float("nan")), r"example 1 has pixels .*NaN"),
        (lambda user: user["x"][1].__setitem__(5, -2.0), r"pixels must lie in \[0, 1\], found -2"),
        (lambda user: user["x"][1].pop(), r"x must be rows of 784 numbers"),
        (lambda user: user["x"].pop(), r"has 1 x and 2 y; num_samples says 2"),
        (lambda user: user.pop("x"), r"has no `x` and `y`"),
    ],
)
def test_bad_values_name_file_and_user(tmp_path, change, message):
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        users = {f"user_{i}": source_files.leaf_characters(rng, 2) for i in range(6)}
        path = source_files.write_leaf_file(tmp_path / split / "all.json", users)
    content = json.loads(path.read_text())
    change(content["user_data"]["user_3"])
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=rf"test/all\.json: user 'user_3'.*{message}"):
        data.load("leaf", path=str(tmp_path))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"expected JSON, found"),
        ("[]", r"`users` is missing"),
        ('{"users": ["a"], "num_samples": [1]}', r"`user_data` is missing"),
        ('{"users": ["a"], "num_samples": [], "user_data": {}}', r"1 users but 0 num_samples"),
        ('{"users": ["a"], "num_samples": [1], "user_data": {}}', r"'a' has no `x` and `y`"),
        (
            '{"users": ["a"], "num_samples": [1], "user_data": {"a": {"x": [7], "y": [0]}}}',
            r"expected x to be rows of 784 numbers .* or names of pictures .*found int",
        ),
    ],
)
def test_a_file_that_is_not_leafs(tmp_path, text, message):
    source_files.write_leaf(tmp_path)
    path = tmp_path / "train" / "all_data_0.json"
    path.write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        data.load("leaf", path=str(tmp_path))
    assert "all_data_0.json" in str(caught.value)


def test_a_user_in_two_files_of_a_split_is_refused(tmp_path):
    source_files.write_leaf(tmp_path)
    first = tmp_path / "train" / "all_data_0.json"
    (tmp_path / "train" / "again.json").write_bytes(first.read_bytes())
    with pytest.raises(UserError, match=r"user 'user_0' is in again\.json as well"):
        data.load("leaf", path=str(tmp_path))


@pytest.mark.parametrize("missing", ["train", "test"])
def test_a_missing_split_is_named(tmp_path, missing):
    source_files.write_leaf(tmp_path)
    for path in (tmp_path / missing).iterdir():
        path.unlink()
    with pytest.raises(UserError, match=rf"found no .*{missing}/\*\.json"):
        data.load("leaf", path=str(tmp_path))


@pytest.mark.parametrize("damage", [lambda path: path.unlink(), lambda path: path.write_text("?")])
def test_a_missing_or_damaged_picture_is_named(tmp_path, damage):
    folder = source_files.write_leaf_faces(tmp_path)
    damage(folder / "raw" / "img_align_celeba" / "c0.png")
    with pytest.raises(UserError, match=r"c0\.png"):
        data.load("leaf", path=str(folder))


def test_users_without_examples_are_skipped_with_a_count(tmp_path, caplog):
    source_files.write_leaf(tmp_path)
    source_files.write_leaf_file(tmp_path / "train" / "more.json", {"idle": {"x": [], "y": []}})
    with caplog.at_level(logging.WARNING):
        loaded = data.load("leaf", path=str(tmp_path))
    parts = (loaded.train, loaded.validation, loaded.test)
    assert all("idle" not in part.client_ids for part in parts)
    assert "1 users without examples were skipped" in caplog.text

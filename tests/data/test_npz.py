"""A user's own NumPy file."""

from __future__ import annotations

import numpy as np
import pytest
import source_files

from tff_autoprune import data
from tff_autoprune.errors import UserError

PARTS = ("train", "validation", "test")


@pytest.mark.parametrize("channels", [0, 1, 3])
def test_every_row_reaches_its_client_in_order(tmp_path, channels):
    columns = source_files.npz_columns(channels=channels)
    path = source_files.write_npz(tmp_path / "own.npz", **columns)
    loaded = data.load("npz", path=str(path))
    assert loaded.spec.source_shape == (12, 10, channels or 1)
    assert loaded.spec.num_classes == 4
    for part in PARTS:
        clients = getattr(loaded, part)
        for client_id in clients.client_ids:
            rows = columns["client"] == client_id
            images, labels = data.client_arrays(clients, client_id)
            expected = columns["pixels"][rows].reshape(images.shape)
            np.testing.assert_array_equal(np.rint(images * 255), expected)
            np.testing.assert_array_equal(labels, columns["label"][rows])


def test_the_fractions_are_of_clients(tmp_path):
    path = source_files.write_npz(tmp_path / "own.npz")
    loaded = data.load("npz", path=str(path), validation_fraction=0.2, test_fraction=0.3)
    assert [len(getattr(loaded, part).client_ids) for part in PARTS] == [5, 2, 3]


def test_labels_may_have_names(tmp_path):
    names = np.asarray(["up", "down", "left", "right", "nothing"])
    path = source_files.write_npz(tmp_path / "own.npz", label_names=names)
    assert data.load("npz", path=str(path)).spec.label_names == tuple(names)


def test_floats_and_numbered_clients_are_taken_too(tmp_path):
    columns = source_files.npz_columns()
    pixels = np.random.default_rng(0).random(columns["pixels"].shape)
    numbers = np.arange(len(pixels)) % 7
    path = source_files.write_npz(tmp_path / "own.npz", pixels=pixels, client=numbers)
    loaded = data.load("npz", path=str(path))
    client_id = loaded.test.client_ids[0]
    images, _ = data.client_arrays(loaded.test, client_id)
    np.testing.assert_allclose(images[..., 0], pixels[numbers == int(client_id)], atol=1e-6)


def test_a_single_class_is_nothing_to_learn(tmp_path):
    path = source_files.write_npz(tmp_path / "own.npz", label=np.zeros(60, int))
    with pytest.raises(UserError, match="expected at least 2 classes in 'npz', found 1"):
        data.load("npz", path=str(path))


def _with(name, index, value):
    column = source_files.npz_columns()[name]
    column = column.astype(np.float32) / 255 if name == "pixels" else column.copy()
    column[index] = value
    return {name: column}


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"client": None}, r"the array `client` is missing; expected pixels, label, client, found"),
        ({"label": None}, r"the array `label` is missing"),
        ({"pixels": np.zeros((60, 5), np.uint8)}, r"must be \[n, h, w\] .*found \[60, 5\]"),
        ({"pixels": np.zeros((0, 5, 5), np.uint8)}, r"found \[0, 5, 5\]"),
        ({"pixels": np.zeros((60, 5, 5), np.int64)}, r"must be uint8 .*found int64"),
        ({"label": np.zeros(59, int)}, r"must be of length 60, .*found \[59\] and \[60\]"),
        ({"label": np.zeros(60)}, r"`label` must be integers, found float64"),
        ({"client": np.full(60, b"\xff")}, r"`client` must be text in UTF-8, found b'"),
        ({"client": np.zeros(60)}, r"`client` must be text, found float64"),
        ({"client": np.full(60, "one")}, r"1 clients with examples are too few"),
        (_with("label", 3, -1), r"client 'client_\d': example \d has label -1; expected 0 to 3"),
        (_with("label", 3, 10**9), r"client 'client_\d' has label 1000000000"),
        (
            {**_with("label", 3, 2), "label_names": np.asarray(["a", "b"])},
            r"client 'client_\d': example \d has label \d; expected 0 to 1",
        ),
        (_with("pixels", (5, 0, 0), np.nan), r"client 'client_\d': example \d has pixels .*NaN"),
        (_with("pixels", (5, 0, 0), 2.0), r"client 'client_\d': pixels must lie in .*found 2"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, columns, message):
    path = source_files.write_npz(tmp_path / "own.npz", **columns)
    with pytest.raises(UserError, match=message) as caught:
        data.load("npz", path=str(path))
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"no zip", b"PK\x03\x04 cut off"])
def test_a_file_that_is_no_npz(tmp_path, content):
    path = tmp_path / "own.npz"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"own\.npz: expected a NumPy \.npz file"):
        data.load("npz", path=str(path))


def test_a_single_array_is_no_npz(tmp_path):
    np.save(tmp_path / "own.npy", np.zeros(3))
    with pytest.raises(UserError, match=r"found: a single array"):
        data.load("npz", path=str(tmp_path / "own.npy"))


def test_pickled_objects_are_not_loaded(tmp_path):
    objects = np.asarray([{}] * 60, object)
    path = source_files.write_npz(tmp_path / "own.npz", client=objects)
    with pytest.raises(UserError, match="holds Python objects, as columns of pandas"):
        data.load("npz", path=str(path))


def test_a_damaged_member_is_noticed(tmp_path):
    path = source_files.write_npz(tmp_path / "own.npz")
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"expected a NumPy \.npz file, found: .*CRC"):
        data.load("npz", path=str(path))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"nowhere\.npz is not a file"):
        data.load("npz", path=str(tmp_path / "nowhere.npz"))

"""FEMNIST and CelebA from small files in exactly TFF's format."""

from __future__ import annotations

import logging
import sqlite3

import numpy as np
import pytest
import source_files
import tensorflow_federated as tff

from tff_autoprune import data
from tff_autoprune.data.label_names import CELEBA_ATTRIBUTES
from tff_autoprune.errors import UserError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("tff")
    source_files.write_emnist(path)
    source_files.write_celeba(path)
    return path


def _tff_pixels(client_data, client_id):
    dataset = client_data.create_tf_dataset_for_client(client_id)
    return np.stack([row["pixels"] for row in dataset.as_numpy_iterator()])[..., np.newaxis]


@pytest.mark.parametrize("only_digits", [False, True])
def test_femnist_holds_whole_writers_out_with_all_that_they_wrote(folder, only_digits):
    loaded = data.load("femnist", path=str(folder), only_digits=only_digits)
    train, test = tff.simulation.datasets.emnist.load_data(only_digits, cache_dir=str(folder))
    assert loaded.spec.num_classes == (10 if only_digits else 62)
    assert [len(part.client_ids) for part in (loaded.train, loaded.validation, loaded.test)] == [
        8,
        1,
        1,
    ]
    for client_id in (loaded.train.client_ids[0], loaded.test.client_ids[0]):
        part = loaded.train if client_id in loaded.train.client_ids else loaded.test
        images, _ = data.client_arrays(part, client_id)
        expected = np.concatenate([_tff_pixels(source, client_id) for source in (train, test)])
        np.testing.assert_allclose(images, expected, atol=1e-6)


def test_femnist_can_keep_the_sources_own_split(folder):
    loaded = data.load("femnist", path=str(folder), split="examples")
    assert len(loaded.train.client_ids) == 10
    held_out = loaded.validation.client_ids + loaded.test.client_ids
    assert sorted(held_out) == sorted(loaded.train.client_ids)
    sizes = data.client_sizes(loaded.train)
    assert sizes == {f"f{i:04d}_{i}": 3 + i for i in range(10)}
    assert set(data.client_sizes(loaded.test).values()) == {2}


def test_celeba_keeps_the_split_by_people(folder):
    loaded = data.load("celeba", path=str(folder))
    assert loaded.train.client_ids == [str(i) for i in range(6)]
    assert sorted(loaded.validation.client_ids + loaded.test.client_ids) == ["6", "7", "8", "9"]
    assert loaded.spec.label_names == ("not male", "male")


def test_celeba_can_keep_the_split_by_examples(folder):
    loaded = data.load("celeba", path=str(folder), split="examples")
    assert len(loaded.train.client_ids) == 10
    assert set(data.client_sizes(loaded.validation).values()) == {1}


@pytest.mark.parametrize("label", ["male", "smiling", "young"])
def test_celeba_predicts_any_attribute(folder, label):
    loaded = data.load("celeba", path=str(folder), label=label)
    source, _ = tff.simulation.datasets.celeba.load_data(cache_dir=str(folder))
    rows = list(source.create_tf_dataset_for_client("3").as_numpy_iterator())
    images, labels = data.client_arrays(loaded.train, "3")
    np.testing.assert_array_equal(labels, [int(row[label]) for row in rows])
    np.testing.assert_allclose(images, np.stack([row["image"] for row in rows]) / 255, atol=1e-6)


def test_the_attributes_are_tffs():
    from tensorflow_federated.python.simulation.datasets import celeba

    assert sorted(celeba.ATTRIBUTE_NAMES) == sorted(CELEBA_ATTRIBUTES)


def test_pixels_that_were_no_bytes_are_kept_exactly(tmp_path):
    images = np.random.default_rng(0).random((2, 28, 28)).astype(np.float32)
    blobs = source_files.character_blobs(images, [1, 2])
    clients = {f"c{i}": blobs for i in range(4)}
    splits = {"all_train": clients, "all_test": clients}
    source_files.write_database(tmp_path / "emnist_all.sqlite", splits)
    loaded = data.load("femnist", path=str(tmp_path))
    found, _ = data.client_arrays(loaded.train, loaded.train.client_ids[0])
    np.testing.assert_array_equal(found[:2, ..., 0], images)


def test_the_file_may_be_named_or_lie_in_the_cache_folder(folder):
    named = data.load("celeba", path=str(folder / "celeba.sqlite"))
    cached = data.load("celeba", cache_dir=str(folder))
    assert named.train.client_ids == cached.train.client_ids


@pytest.mark.parametrize("name", ["femnist", "celeba"])
def test_a_missing_file_says_what_goes_where(name, tmp_path):
    file = {"femnist": "emnist_all.sqlite", "celeba": "celeba.sqlite"}[name]
    with pytest.raises(UserError, match=rf"needs TFF's file {file}, which is not in .*{tmp_path}"):
        data.load(name, path=str(tmp_path))
    assert not list(tmp_path.iterdir())


def test_a_compressed_file_says_how_to_unpack_it(tmp_path):
    (tmp_path / "celeba.sqlite.lzma").write_bytes(b"")
    with pytest.raises(UserError, match="still compressed; unpack it with `xz --decompress"):
        data.load("celeba", path=str(tmp_path))


def test_a_file_that_is_no_database(tmp_path):
    (tmp_path / "celeba.sqlite").write_bytes(b"not a database at all" * 100)
    with pytest.raises(
        UserError, match=r"celeba\.sqlite: expected a SQLite database .*not a datab"
    ):
        data.load("celeba", path=str(tmp_path))


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("DROP TABLE client_metadata", r"table `client_metadata` is missing"),
        ("ALTER TABLE examples RENAME COLUMN client_id TO who", r"lacks the column client_id"),
        (
            "UPDATE client_metadata SET split_name = 'other'",
            r"no client has examples in split 'all_train'; splits found: other",
        ),
        ("UPDATE client_metadata SET num_examples = -1", r"num_examples must be a count, found -1"),
    ],
)
def test_a_database_that_lacks_something(tmp_path, statement, message):
    path = source_files.write_emnist(tmp_path)
    connection = sqlite3.connect(path)
    with connection:
        connection.execute(statement)
    connection.close()
    with pytest.raises(UserError, match=message) as caught:
        data.load("femnist", path=str(tmp_path))
    assert str(path) in str(caught.value)


def _load_with(tmp_path, blobs):
    """Loads a FEMNIST file in which every client has these examples."""
    clients = {f"writer_{i}": blobs for i in range(4)}
    splits = {"all_train": clients, "all_test": clients}
    source_files.write_database(tmp_path / "emnist_all.sqlite", splits)
    return data.load("femnist", path=str(tmp_path))


@pytest.mark.parametrize(
    ("pixel", "label", "message"),
    [
        (np.nan, 0, r"example 1 has pixels that are not numbers"),
        (1.5, 0, r"pixels must lie in \[0, 1\], found 1\.5"),
        (0.5, 62, r"example 1 has label 62; expected 0 to 61"),
        (0.5, -1, r"example 1 has label -1"),
    ],
)
def test_values_are_checked_when_a_client_is_read(tmp_path, pixel, label, message):
    images = np.full((2, 28, 28), 0.5, np.float32)
    images[1, 3, 3] = pixel
    loaded = _load_with(tmp_path, source_files.character_blobs(images, [0, label]))
    client_id = loaded.train.client_ids[0]
    with pytest.raises(UserError, match=rf"emnist_all\.sqlite: client '{client_id}': {message}"):
        loaded.train.create_tf_dataset_for_client(client_id)


@pytest.mark.parametrize(
    ("blob", "message"),
    [(b"\xff\xff\xff", "not a tf.train.Example"), (b"", "cannot read its examples")],
)
def test_examples_that_cannot_be_parsed_name_their_client(tmp_path, blob, message):
    loaded = _load_with(tmp_path, [blob])
    with pytest.raises(UserError, match=rf"client 'writer_\d': .*{message}"):
        data.client_arrays(loaded.test, loaded.test.client_ids[0])


def test_lost_examples_are_noticed(folder, tmp_path):
    path = source_files.write_emnist(tmp_path)
    loaded = data.load("femnist", path=str(tmp_path))
    client_id = loaded.train.client_ids[0]
    connection = sqlite3.connect(path)
    with connection:
        connection.execute(
            "DELETE FROM examples WHERE rowid = (SELECT rowid FROM examples WHERE client_id = ?"
            " AND split_name = 'all_train' LIMIT 1)",
            (client_id,),
        )
    connection.close()
    with pytest.raises(UserError, match=rf"'{client_id}': expected the \d+ examples .*found"):
        data.client_arrays(loaded.train, client_id)


def test_clients_without_examples_are_skipped_with_a_count(tmp_path, caplog):
    rng = np.random.default_rng(0)
    blobs = source_files.character_blobs(*source_files.characters(rng, 2))
    clients = {"a": blobs, "b": blobs, "c": blobs, "nobody": []}
    source_files.write_database(
        tmp_path / "emnist_all.sqlite", {"all_train": clients, "all_test": clients}
    )
    with caplog.at_level(logging.WARNING):
        loaded = data.load("femnist", path=str(tmp_path))
    parts = (loaded.train, loaded.validation, loaded.test)
    assert sorted(i for part in parts for i in part.client_ids) == ["a", "b", "c"]
    assert "2 clients without examples were skipped" in caplog.text


def test_the_users_file_is_not_changed(folder):
    path = folder / "emnist_all.sqlite"
    before = path.read_bytes()
    loaded = data.load("femnist", path=str(folder))
    data.client_arrays(loaded.train, loaded.train.client_ids[0])
    assert path.read_bytes() == before
    assert sorted(p.name for p in folder.iterdir()) == ["celeba.sqlite", "emnist_all.sqlite"]

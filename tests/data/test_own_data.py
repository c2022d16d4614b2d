"""Data people have: tables, pictures, texts, arrays, rows, data sets of their own."""

from __future__ import annotations

import collections

import numpy as np
import pytest
import source_files
import tensorflow as tf
import tensorflow_federated as tff
from PIL import Image
from sklearn import datasets as sklearn_datasets

from tff_autoprune import data
from tff_autoprune.data import arrays, vocabulary
from tff_autoprune.errors import UserError


def _frame():
    bunch = sklearn_datasets.load_diabetes(as_frame=True, scaled=False)
    # Whole decades of age are the clients.
    return bunch.frame.assign(client=(bunch.frame["age"] // 10).astype(int).astype(str))


def _table(tmp_path, frame, **options):
    path = tmp_path / "own.csv"
    frame.to_csv(path, index=False)
    return data.load("table", path=str(path), **{"label_column": "target", **options})


def test_a_table_is_scaled_by_clients_that_train(tmp_path):
    frame = _frame()
    loaded = _table(tmp_path, frame, validation_fraction=0.2, test_fraction=0.2)
    assert loaded.spec.image_shape == (10,) and loaded.spec.dtype == "float32"
    np.testing.assert_allclose(loaded.train.inputs.mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(loaded.train.inputs.std(axis=0), 1, atol=1e-3)
    client = loaded.test.client_ids[0]
    inputs, labels = data.client_arrays(loaded.test, client)
    assert inputs.dtype == labels.dtype == np.float32
    expected = frame[frame["client"] == client]["target"]
    np.testing.assert_array_equal(labels, expected.to_numpy(np.float32))


def test_texts_in_a_label_column_are_classes(tmp_path):
    frame = _frame().assign(target=np.where(_frame()["target"] > 140, "ill", "fine"))
    loaded = _table(tmp_path, frame)
    assert loaded.spec.label_names == ("fine", "ill")
    assert loaded.train.labels.dtype == np.int32


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ({}, {"client_column": "person"}, "client_column: .* has no column 'person'; it has age"),
        ({"bmi": "high"}, {}, "the column 'bmi' holds 'high'; expected numbers"),
        ({"bmi": np.nan}, {}, "row 0 of the column 'bmi' is empty"),
        ({}, {"invert": True}, "are for images"),
    ],
)
def test_mistakes_in_a_table_are_one_line(tmp_path, change, options, message):
    with pytest.raises(UserError, match=message):
        _table(tmp_path, _frame().assign(**change), **options)


def test_a_table_that_is_none_is_named(tmp_path):
    (tmp_path / "own.parquet").write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"own\.parquet"):
        data.load("table", path=str(tmp_path / "own.parquet"))
    with pytest.raises(UserError, match="is not a file"):
        data.load("table", path=str(tmp_path / "absent.csv"))


def _pictures(folder, size=(6, 6)):
    stream = np.random.default_rng(0)
    for client in range(8):
        for name in ("cat", "dog"):
            path = folder / f"person_{client}" / name / "1.png"
            path.parent.mkdir(parents=True)
            pixels = stream.integers(0, 256, (*size, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(path)
    return folder


def test_a_folder_of_pictures_for_each_client(tmp_path):
    loaded = data.load("pictures", path=str(_pictures(tmp_path)))
    assert loaded.spec.image_shape == (6, 6, 3) and loaded.spec.label_names == ("cat", "dog")
    client = loaded.train.client_ids[0]
    images, labels = data.client_arrays(loaded.train, client)
    stored = np.asarray(Image.open(tmp_path / client / "dog" / "1.png"), np.float32) / 255
    np.testing.assert_allclose(images[labels.tolist().index(1)], stored, atol=1e-6)
    assert data.load("pictures", path=str(tmp_path), size=4).spec.image_shape == (4, 4, 3)


def test_mistakes_in_pictures_are_one_line(tmp_path):
    with pytest.raises(UserError, match=r"FOLDER/CLIENT/CLASS/\*\.png"):
        data.load("pictures", path=str(tmp_path))
    folder = _pictures(tmp_path)
    Image.new("RGB", (9, 5)).save(folder / "person_3" / "dog" / "2.png")
    with pytest.raises(UserError, match=r"has 5x9 pixels.*data\.size"):
        data.load("pictures", path=str(folder))
    (folder / "person_3" / "dog" / "2.png").write_text("no picture")
    with pytest.raises(UserError, match=r"2\.png: expected a picture"):
        data.load("pictures", path=str(folder))


def _decoded(names, numbers):
    return "".join(names[number] for number in numbers if number > 3)


def test_texts_are_cut_into_pieces_whose_labels_are_the_next_characters(tmp_path):
    texts = {f"role_{i}": f"Speak, {i} friend; and then no more." for i in range(8)}
    for name, text in texts.items():
        (tmp_path / f"{name}.txt").write_text(text, encoding="utf-8")
    loaded = data.load("texts", path=str(tmp_path), length=10)
    assert loaded.spec.dtype == "int32" and loaded.spec.ignored_label == 0
    client = loaded.train.client_ids[0]
    inputs, labels = data.client_arrays(loaded.train, client)
    assert inputs.shape == labels.shape and inputs.shape[1] == 10
    assert _decoded(loaded.spec.label_names, inputs.ravel()) == texts[client]
    assert _decoded(loaded.spec.label_names, labels.ravel()) == texts[client]
    flat = labels[labels > 0]
    np.testing.assert_array_equal(inputs[labels > 0][1:], flat[:-1])
    assert ((inputs > 0) == (labels > 0)).all()
    (tmp_path / "role_1.txt").write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(UserError, match="expected a text in UTF-8"):
        data.load("texts", path=str(tmp_path))


@pytest.mark.parametrize("split", ["clients", "examples"])
def test_shakespeare_is_tffs(tmp_path, split):
    lines = source_files.write_shakespeare(tmp_path)
    loaded = data.load("shakespeare", path=str(tmp_path), length=30, split=split)
    assert loaded.spec.held_out == split
    client = loaded.train.client_ids[0]
    found = _decoded(loaded.spec.label_names, data.client_arrays(loaded.train, client)[1].ravel())
    parts = ("train", "test") if split == "clients" else ("train",)
    assert found == "".join(text for part in parts for text in lines[part][client])


def test_stack_overflow_is_read_client_by_client(tmp_path):
    sentences = source_files.write_stackoverflow(tmp_path)
    loaded = data.load("stackoverflow", path=str(tmp_path), words=5, length=6)
    assert len(loaded.spec.label_names) == 9
    client = loaded.train.client_ids[0]
    inputs, _ = data.client_arrays(loaded.train, client)
    assert inputs.shape == (len(sentences["train"][client]), 6)
    first = [loaded.spec.label_names[n] for n in inputs[0] if n > 0]
    words = sentences["train"][client][0].split()
    for found, word in zip(first[1:], words):
        assert found in (word, "unknown")
    assert set(loaded.test.client_ids) | set(loaded.validation.client_ids) == set(
        sentences["heldout"]
    )
    batch = next(iter(loaded.test.create_tf_dataset_for_client(loaded.test.client_ids[0]).batch(2)))
    assert batch[0].shape[1:] == (6,)
    (tmp_path / "stackoverflow.word_count").write_text("zebra 9\nthe 7\n", encoding="utf-8")
    counted = data.load("stackoverflow", path=str(tmp_path), words=1)
    assert counted.spec.label_names[-1] == "zebra"


def test_cifar100_keeps_the_clients_of_both_splits_apart(tmp_path):
    images = source_files.write_cifar100(tmp_path)
    loaded = data.load("cifar100", path=str(tmp_path))
    assert all(client.startswith("train_") for client in loaded.train.client_ids)
    client = loaded.test.client_ids[0]
    found, labels = data.client_arrays(loaded.test, client)
    stored = images["test"][client[len("test_") :]]
    np.testing.assert_allclose(found, stored[0] / np.float32(255), atol=1e-6)
    assert labels.tolist() == stored[1].tolist()
    coarse = data.load("cifar100", path=str(tmp_path), coarse=True)
    assert coarse.spec.num_classes == 20


# ---------------------------------------------------------------- from Python


def test_arrays_are_dealt_out_by_label_and_seed():
    digits = sklearn_datasets.load_digits()
    clients = arrays.deal_out(digits.target, clients=20, alpha=0.1, seed=1)
    again = arrays.deal_out(digits.target, clients=20, alpha=0.1, seed=1)
    assert (clients == again).all()
    assert (clients != arrays.deal_out(digits.target, clients=20, alpha=0.1, seed=2)).any()
    assert collections.Counter(clients.tolist()).most_common()[0][1] == 90
    even = arrays.deal_out(digits.target, clients=20, alpha=1000.0, seed=1)
    skew = []
    for dealt in (clients, even):
        images = (digits.images / 16).astype(np.float32)[..., np.newaxis]
        loaded = arrays.from_arrays(images, digits.target, dealt, name="digits")
        skew.append(data.statistics(loaded.train)["label_skew"].mean())
    assert skew[0] > 0.5 > 0.2 > skew[1]
    assert loaded.spec.image_shape == (8, 8, 1) and loaded.spec.num_classes == 10


def test_rows_of_a_hugging_face_data_set():
    rows = [
        {"image": Image.new("L", (4, 4), i), "label": i % 3, "writer": f"w{i % 8}"}
        for i in range(32)
    ]
    columns = arrays.columns_of(rows, client="writer", inputs="image", label="label")
    loaded = arrays.from_arrays(*columns)
    images, labels = data.client_arrays(loaded.train, loaded.train.client_ids[0])
    assert images.shape == (4, 4, 4, 1) and images.max() <= 1 and labels.dtype == np.int32
    with pytest.raises(UserError, match="row 0 has no 'person'; it has image, label, writer"):
        arrays.columns_of(rows, client="person", inputs="image", label="label")
    rows[3]["image"] = Image.new("L", (4, 5))
    with pytest.raises(UserError, match="must be of one shape"):
        arrays.columns_of(rows, client="writer", inputs="image", label="label")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": np.arange(11)}, "of as many rows"),
        ({"client": ["a"]}, "a client for each of the 12 rows"),
        ({"labels": np.arange(12) - 3}, "the label of row 0 is -3; classes count from 0"),
        ({"inputs": np.full((12, 3), np.nan)}, "row 0 are not numbers"),
        ({"inputs": np.full((12, 3), "x")}, "must be numbers"),
        ({"label_names": ["one", "two"]}, "has label 2; expected 0 to 1"),
        ({"inputs": np.full((12, 4, 4, 1), 7.0)}, r"must lie in \[0, 1\], found 7"),
        ({"client": ["a", "b"] * 6}, "2 clients with examples are too few"),
    ],
)
def test_arrays_that_do_not_fit_are_one_line(change, message):
    good = {
        "inputs": np.zeros((12, 3)),
        "labels": np.arange(12) % 3,
        "client": [f"c{i % 6}" for i in range(12)],
    }
    arrays.from_arrays(**good)
    with pytest.raises(UserError, match=message):
        arrays.from_arrays(**{**good, **change})


X, Y = np.ones((5, 3)), np.arange(5) % 2
_slices = tf.data.Dataset.from_tensor_slices


@pytest.mark.parametrize(
    "source",
    [
        {"a": _slices((X, Y))},
        {"a": _slices((X, Y)).batch(2)},
        {"a": _slices({"x": X, "y": Y})},
        {"a": (X, Y)},
        tff.simulation.datasets.TestClientData({"a": (X, Y)}),
        tff.simulation.datasets.TestClientData({"a": collections.OrderedDict(y=Y, x=X)}),
    ],
    ids=["examples", "batches", "dicts", "arrays", "ClientData", "ClientData of dicts"],
)
def test_clients_as_people_have_them(source):
    clients = data.as_examples(source)
    assert clients.client_ids == ["a"] and clients.client_sizes() == {"a": 5}
    inputs, labels = clients.client_arrays("a")
    np.testing.assert_array_equal(inputs, X)
    np.testing.assert_array_equal(labels, Y)
    assert inputs.dtype == np.float32 and labels.dtype == np.int32


def test_clients_that_are_none_are_one_line():
    with pytest.raises(UserError, match="found list"):
        data.as_examples([1])
    with pytest.raises(UserError, match=r"client a: expected examples .*keys u, v"):
        data.as_examples({"a": _slices({"u": X, "v": Y})})
    with pytest.raises(UserError, match="client a: expected arrays of as many examples"):
        data.as_examples({"a": (X, Y[:3])})


def test_guessing_is_told_from_knowing():
    assert data.is_guessing(0.11, guessing=0.1, examples=100)
    assert data.is_guessing(float("nan"), guessing=0.1, examples=100)
    assert not data.is_guessing(0.2, guessing=0.1, examples=100)


def test_a_vocabulary_counts_from_its_special_symbols():
    words = vocabulary.Vocabulary(("a", "b"))
    assert words.encode(["b", "z"]).tolist() == [2, 5, 1, 3]
    assert len(vocabulary.characters()) == 90

"""Small files in exactly the formats of TFF's SQLite databases, LEAF's folders and `npz`."""

from __future__ import annotations

import json
import pathlib
import sqlite3

import numpy as np
import tensorflow as tf
from PIL import Image

from tff_autoprune.data.label_names import CELEBA_ATTRIBUTES


def characters(rng: np.random.Generator, count: int, classes: int = 62):
    """Returns FEMNIST-like images float32 [n, 28, 28], multiples of 1/255, and labels int64 [n]."""
    images = (rng.integers(0, 256, (count, 28, 28)) / 255).astype(np.float32)
    return images, rng.integers(0, classes, count)


def faces(rng: np.random.Generator, count: int):
    """Returns CelebA-like images uint8 [n, 84, 84, 3] and attributes [n, 40] of 0 and 1."""
    return rng.integers(0, 256, (count, 84, 84, 3)).astype(np.uint8), rng.integers(
        0, 2, (count, 40)
    )


def _example(**features: tf.train.Feature) -> bytes:
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()


def _ints(values) -> tf.train.Feature:
    return tf.train.Feature(int64_list=tf.train.Int64List(value=np.ravel(values).tolist()))


def character_blobs(images, labels) -> list[bytes]:
    """Serializes examples as TFF's emnist_all.sqlite has them."""
    return [
        _example(
            pixels=tf.train.Feature(float_list=tf.train.FloatList(value=image.ravel().tolist())),
            label=_ints([label]),
        )
        for image, label in zip(images, labels)
    ]


def face_blobs(images, attributes) -> list[bytes]:
    """Serializes examples as TFF's celeba.sqlite has them."""
    return [
        _example(
            image=_ints(image.astype(np.int64)),
            **{name: _ints([value]) for name, value in zip(CELEBA_ATTRIBUTES, values)},
        )
        for image, values in zip(images, attributes)
    ]


def write_database(path: pathlib.Path, splits: dict[str, dict[str, list[bytes]]]) -> pathlib.Path:
    """Writes a database: for each split, the serialized examples of each client."""
    path.parent.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(path)
    with connection:
        connection.execute(
            "CREATE TABLE examples (split_name TEXT NOT NULL, client_id TEXT NOT NULL,"
            " serialized_example_proto BLOB NOT NULL)"
        )
        connection.execute(
            "CREATE TABLE client_metadata (client_id TEXT NOT NULL, split_name TEXT NOT NULL,"
            " num_examples INTEGER NOT NULL)"
        )
        for split, clients in splits.items():
            for client_id, blobs in clients.items():
                connection.executemany(
                    "INSERT INTO examples VALUES (?, ?, ?)",
                    [(split, client_id, blob) for blob in blobs],
                )
                connection.execute(
                    "INSERT INTO client_metadata VALUES (?, ?, ?)", (client_id, split, len(blobs))
                )
    connection.close()
    return path


def write_emnist(folder: pathlib.Path, clients: int = 10, seed: int = 0) -> pathlib.Path:
    """Writes emnist_all.sqlite: client i has 3 + i training and 2 test examples."""
    rng = np.random.default_rng(seed)
    splits: dict[str, dict[str, list[bytes]]] = {}
    for i in range(clients):
        for prefix, classes in (("all", 62), ("digits_only", 10)):
            for part, count in (("train", 3 + i), ("test", 2)):
                blobs = character_blobs(*characters(rng, count, classes))
                splits.setdefault(f"{prefix}_{part}", {})[f"f{i:04d}_{i}"] = blobs
    return write_database(folder / "emnist_all.sqlite", splits)


def write_celeba(folder: pathlib.Path, seed: int = 0) -> pathlib.Path:
    """Writes celeba.sqlite: 6 people train, 4 are the test's; 2 or 3 pictures each."""
    rng = np.random.default_rng(seed)
    people = {str(i): face_blobs(*faces(rng, 2 + i % 2)) for i in range(10)}
    train = {name: people[name] for name in list(people)[:6]}
    test = {name: people[name] for name in list(people)[6:]}
    splits = {
        "split_by_clients_train": train,
        "split_by_clients_test": test,
        "split_by_examples_train": {name: blobs[:-1] for name, blobs in people.items()},
        "split_by_examples_test": {name: blobs[-1:] for name, blobs in people.items()},
    }
    return write_database(folder / "celeba.sqlite", splits)


def write_leaf_file(path: pathlib.Path, users: dict[str, dict[str, list]]) -> pathlib.Path:
    """Writes one of LEAF's JSON files."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {
        "users": list(users),
        "num_samples": [len(data["y"]) for data in users.values()],
        "user_data": users,
    }
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def leaf_characters(rng: np.random.Generator, count: int) -> dict[str, list]:
    """Returns `x` and `y` of a user of LEAF's FEMNIST."""
    images, labels = characters(rng, count)
    return {"x": images.reshape(count, 784).tolist(), "y": labels.tolist()}


def write_leaf(folder: pathlib.Path, clients: int = 8, by_user: bool = False) -> pathlib.Path:
    """Writes LEAF's FEMNIST layout, in two files a split."""
    rng = np.random.default_rng(1)
    ids = [f"user_{i}" for i in range(clients)]
    train_ids, test_ids = (ids[:-4], ids[-4:]) if by_user else (ids, ids)
    for split, chosen in (("train", train_ids), ("test", test_ids)):
        for half in (0, 1):
            users = {user: leaf_characters(rng, 2 + half) for user in chosen[half::2]}
            write_leaf_file(folder / split / f"all_data_{half}.json", users)
    return folder


def write_leaf_faces(folder: pathlib.Path) -> pathlib.Path:
    """Writes LEAF's CelebA layout: names of pictures, and the pictures."""
    rng = np.random.default_rng(2)
    for split, people in (("train", "abcd"), ("test", "ef")):
        users = {}
        for person in people:
            names = [f"{person}{i}.png" for i in range(2)]
            for name in names:
                path = folder / "raw" / "img_align_celeba" / name
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(rng.integers(0, 256, (84, 84, 3), np.uint8)).save(path)
            users[person] = {"x": names, "y": [0, 1]}
        write_leaf_file(folder / split / "all_data.json", users)
    return folder


def npz_columns(clients: int = 10, channels: int = 0, seed: int = 0) -> dict[str, np.ndarray]:
    """Returns the arrays of a small `npz` data set, the clients' rows mixed."""
    rng = np.random.default_rng(seed)
    count = 6 * clients
    shape = (count, 12, 10) + ((channels,) if channels else ())
    return {
        "pixels": rng.integers(0, 256, shape).astype(np.uint8),
        "label": rng.permutation(np.arange(count) % 4),
        "client": rng.permutation([f"client_{i % clients}" for i in range(count)]),
    }


def write_npz(path: pathlib.Path, **columns: np.ndarray) -> pathlib.Path:
    """Writes an `npz` data set; None leaves an array out."""
    merged = {**npz_columns(), **columns}
    np.savez(path, **{name: value for name, value in merged.items() if value is not None})
    return path


def _bytes(text: str) -> tf.train.Feature:
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=[text.encode("utf-8")]))


def write_shakespeare(folder: pathlib.Path) -> dict[str, dict[str, list[str]]]:
    """Writes shakespeare.sqlite; returns the snippets of each role in each split."""
    lines = {
        split: {f"PLAY_{i}": [f"{split} line {n} of {i}." for n in range(count)] for i in range(8)}
        for split, count in (("train", 3), ("test", 1))
    }
    blobs = {
        split: {
            role: [_example(snippets=_bytes(text)) for text in texts] for role, texts in of.items()
        }
        for split, of in lines.items()
    }
    write_database(folder / "shakespeare.sqlite", blobs)
    return lines


def write_stackoverflow(folder: pathlib.Path) -> dict[str, dict[str, list[str]]]:
    """Writes stackoverflow.sqlite; returns the sentences of each user in each split."""
    sentences = {
        split: {
            f"{split}_{i:03d}": [f"how do i sort the list number {n} of {i}" for n in range(2 + i)]
            for i in range(4)
        }
        for split in ("train", "heldout", "test")
    }
    blobs = {
        split: {
            user: [
                _example(
                    tokens=_bytes(text),
                    title=_bytes("a title"),
                    tags=_bytes("python|list"),
                    type=_bytes("question"),
                    creation_date=_bytes("2017-01-01 00:00:00 UTC"),
                    score=_ints([3]),
                )
                for text in texts
            ]
            for user, texts in of.items()
        }
        for split, of in sentences.items()
    }
    write_database(folder / "stackoverflow.sqlite", blobs)
    return sentences


def write_cifar100(folder: pathlib.Path) -> dict[str, dict[str, tuple[np.ndarray, np.ndarray]]]:
    """Writes cifar100.sqlite; returns images and fine labels of each client in each split."""
    rng = np.random.default_rng(4)
    stored, blobs = {}, {}
    for split, clients in (("train", 6), ("test", 4)):
        stored[split], blobs[split] = {}, {}
        for number in range(clients):
            images = rng.integers(0, 256, (3, 32, 32, 3)).astype(np.uint8)
            labels = rng.integers(0, 100, 3)
            stored[split][str(number)] = (images, labels)
            blobs[split][str(number)] = [
                _example(
                    image=_ints(image.astype(np.int64)),
                    label=_ints([label]),
                    coarse_label=_ints([label // 5]),
                )
                for image, label in zip(images, labels)
            ]
    write_database(folder / "cifar100.sqlite", blobs)
    return stored

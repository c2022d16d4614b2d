"""A folder that LEAF made: `train/*.json` and `test/*.json`, FEMNIST's or CelebA's layout.

S. Caldas et al., "LEAF: A Benchmark for Federated Settings", arXiv 1812.01097. Each file holds
`users`, `num_samples` and `user_data`: for each user `x` and `y`. FEMNIST's `x` are rows of 784
numbers in [0, 1]; CelebA's are names of pictures, which lie in `raw/img_align_celeba/`.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

from tff_autoprune.data.array_client_data import ArrayClientData, from_clients
from tff_autoprune.data.examples import as_bytes, check_images, check_labels
from tff_autoprune.data.federated_data import DataSpec, FederatedData, PixelOptions
from tff_autoprune.data.label_names import CHARACTERS
from tff_autoprune.data.loader import Request
from tff_autoprune.data.splits import split_source
from tff_autoprune.errors import UserError

_SPLITS = ("train", "test")
_PICTURE_FOLDERS = ("raw/img_align_celeba", "img_align_celeba")


@dataclasses.dataclass(frozen=True)
class _Layout:
    """What one of LEAF's image data sets looks like.

    Attributes:
      shape: (height, width, channels) of its images.
      label_names: A name for each label.
      read: From (folder, `x` of a user, the place for messages) to images, float32 [n, h, w, c].
    """

    shape: tuple[int, int, int]
    label_names: tuple[str, ...]
    read: Callable[[pathlib.Path, list[Any], str], np.ndarray]


@dataclasses.dataclass(frozen=True)
class _Split:
    """One of the source's splits, as read.

    Attributes:
      files: The file of each user.
      data: `x` and `y` of each user that has examples.
    """

    files: dict[str, pathlib.Path]
    data: dict[str, dict[str, list[Any]]]


def load(request: Request) -> FederatedData:
    """Reads the folder.

    Args:
      request: Its option `split` is as for `femnist`: "clients" or "examples". Where LEAF itself
        split by user, its test users are shared between validation and test.

    Raises:
      UserError: If a file is missing or damaged, or an image or label is not allowed.
    """
    folder = pathlib.Path(request.path).expanduser()
    splits = {name: _read_split(folder, name) for name in _SPLITS}
    layout = _LAYOUTS[_layout_name(folder, splits["train"])]
    plan = split_source(
        list(splits["train"].data),
        list(splits["test"].data),
        by=request.options["split"],
        validation_fraction=request.options["validation_fraction"],
        test_fraction=request.options["test_fraction"],
        seed=request.seed,
        source=str(folder),
    )
    trained, *held_out = (set(part.client_ids) for part in plan)
    spec = DataSpec.build(
        "leaf",
        layout.shape,
        layout.label_names,
        request.pixels,
        held_out="clients" if trained.isdisjoint(set().union(*held_out)) else "examples",
    )
    sources = {"train": ["train"], "test": ["test"], "both": list(_SPLITS)}
    parts = [
        _clients(
            folder,
            [splits[name] for name in sources[part.of]],
            part.client_ids,
            layout,
            request.pixels,
        )
        for part in plan
    ]
    return FederatedData(*parts, spec=spec)


def _read_split(folder: pathlib.Path, name: str) -> _Split:
    """Reads all files of one split; users without examples are skipped with a count."""
    paths = sorted((folder / name).glob("*.json"))
    if not paths:
        raise UserError(
            f"data.path: `leaf` needs a folder with train/*.json and test/*.json; found no"
            f" {folder / name}/*.json."
        )
    files: dict[str, pathlib.Path] = {}
    data: dict[str, dict[str, list[Any]]] = {}
    empty = 0
    for path in paths:
        for user, examples in _read_file(path).items():
            if not examples["y"]:
                empty += 1
                continue
            if user in data:
                raise UserError(f"{path}: user {user!r} is in {files[user].name} as well.")
            data[user], files[user] = examples, path
    if empty:
        logging.warning("%s: %d users without examples were skipped.", folder / name, empty)
    if not data:
        raise UserError(f"{folder / name}: no user has examples.")
    return _Split(files=files, data=data)


def _read_file(path: pathlib.Path) -> dict[str, dict[str, list[Any]]]:
    """Returns `x` and `y` of each user of a file, as many of each as the file promises."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: expected JSON, found: {error}.") from error
    for key, kind in (("users", list), ("num_samples", list), ("user_data", dict)):
        if not isinstance(content, dict) or not isinstance(content.get(key), kind):
            raise UserError(
                f"{path}: expected LEAF's `users`, `num_samples` and `user_data`;"
                f" `{key}` is missing or of another kind."
            )
    users, counts, user_data = content["users"], content["num_samples"], content["user_data"]
    if len(users) != len(counts):
        raise UserError(f"{path}: {len(users)} users but {len(counts)} num_samples.")
    found = {}
    for user, count in zip(users, counts):
        examples = user_data.get(user)
        if not isinstance(examples, dict) or not {"x", "y"} <= set(examples):
            raise UserError(f"{path}: user {user!r} has no `x` and `y` in user_data.")
        if not len(examples["x"]) == len(examples["y"]) == count:
            raise UserError(
                f"{path}: user {user!r} has {len(examples['x'])} x and {len(examples['y'])} y;"
                f" num_samples says {count}."
            )
        found[user] = examples
    return found


def _layout_name(folder: pathlib.Path, split: _Split) -> str:
    user = next(iter(split.data))
    first = split.data[user]["x"][0]
    if isinstance(first, str):
        return "celeba"
    if isinstance(first, list):
        return "femnist"
    raise UserError(
        f"{split.files[user]}: user {user!r}: expected x to be rows of 784 numbers (FEMNIST) or"
        f" names of pictures (CelebA), found {type(first).__name__}."
    )


def _clients(
    folder: pathlib.Path,
    splits: list[_Split],
    client_ids: list[str],
    layout: _Layout,
    pixels: PixelOptions,
) -> ArrayClientData:
    """Returns the clients with their examples of all the splits."""
    clients = []
    for client_id in client_ids:
        images, labels = [], []
        for split in splits:
            if client_id in split.data:
                where = f"{split.files[client_id]}: user {client_id!r}"
                examples = split.data[client_id]
                labels.append(_labels(examples["y"], len(layout.label_names), where))
                images.append(as_bytes(layout.read(folder, examples["x"], where)))
        clients.append((client_id, np.concatenate(images), np.concatenate(labels)))
    kinds = {images.dtype for _, images, _ in clients}
    if len(kinds) > 1:
        clients = [
            (name, images / np.float32(255) if images.dtype == np.uint8 else images, labels)
            for name, images, labels in clients
        ]
    return from_clients(clients, pixels)


def _labels(values: list[Any], num_classes: int, where: str) -> np.ndarray:
    labels = np.asarray(values)
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise UserError(f"{where}: y must be integers.")
    check_labels(labels, num_classes, where)
    return labels.astype(np.int32)


def _read_characters(folder: pathlib.Path, rows: list[Any], where: str) -> np.ndarray:
    del folder
    side = _LAYOUTS["femnist"].shape[0]
    try:
        images = np.asarray(rows, np.float32).reshape(len(rows), side, side, 1)
    except (TypeError, ValueError) as error:
        raise UserError(f"{where}: x must be rows of {side * side} numbers.") from error
    check_images(images, where)
    return images


def _read_pictures(folder: pathlib.Path, names: list[Any], where: str) -> np.ndarray:
    height, width, _ = _LAYOUTS["celeba"].shape
    images = []
    for name in names:
        paths = [folder / pictures / str(name) for pictures in _PICTURE_FOLDERS]
        path = next((path for path in paths if path.is_file()), None)
        if path is None:
            raise UserError(f"{where}: the picture {paths[0]} is missing.")
        try:
            with Image.open(path) as picture:
                resized = picture.convert("RGB").resize((width, height), Image.Resampling.BILINEAR)
        except (OSError, ValueError) as error:
            raise UserError(f"{path}: expected a picture, found: {error}.") from error
        images.append(np.asarray(resized, np.float32) / 255)
    return np.stack(images)


_LAYOUTS = {
    "femnist": _Layout((28, 28, 1), tuple(CHARACTERS), _read_characters),
    "celeba": _Layout((84, 84, 3), ("negative", "positive"), _read_pictures),
}

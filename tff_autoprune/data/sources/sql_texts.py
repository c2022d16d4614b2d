"""Texts in the SQLite files that TFF publishes, read without `tf.data`."""

from __future__ import annotations

import contextlib
import pathlib
import sqlite3
from collections.abc import Iterator

import tensorflow as tf

from tff_autoprune.errors import UserError


def read_all(file: str, split: str, feature: str) -> dict[str, list[str]]:
    """Returns the texts of all clients of a split.

    Args:
      file: The database.
      split: Name of the split.
      feature: Name of the feature that holds the text.

    Raises:
      UserError: If the file is damaged, or an example has no such feature.
    """
    texts: dict[str, list[str]] = {}
    query = "SELECT client_id, serialized_example_proto FROM examples WHERE split_name = ?"
    with _open(file) as connection:
        for client_id, content in connection.execute(query, (split,)):
            where = f"{file}: client {client_id!r}"
            texts.setdefault(str(client_id), []).append(_text(where, content, feature))
    return texts


def read_client(file: str, split: str, client_id: str, feature: str) -> list[str]:
    """Returns the texts of one client; see `read_all`."""
    query = "SELECT serialized_example_proto FROM examples WHERE split_name = ? AND client_id = ?"
    where = f"{file}: client {client_id!r}"
    with _open(file) as connection:
        rows = connection.execute(query, (split, client_id))
        return [_text(where, content, feature) for (content,) in rows]


@contextlib.contextmanager
def _open(file: str) -> Iterator[sqlite3.Connection]:
    try:
        uri = pathlib.Path(file).resolve().as_uri() + "?mode=ro"
        with contextlib.closing(sqlite3.connect(uri, uri=True)) as connection:
            yield connection
    except sqlite3.Error as error:
        raise UserError(f"{file}: expected a SQLite database of TFF, found: {error}.") from error


def _text(where: str, content: bytes, feature: str) -> str:
    try:
        example = tf.train.Example.FromString(content)
        (value,) = example.features.feature[feature].bytes_list.value
        return value.decode("utf-8", errors="replace")
    except Exception as error:  # Protocol buffers raise a class that they do not publish.
        raise UserError(f"{where}: an example has no text {feature!r}.") from error

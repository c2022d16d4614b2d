"""Atomic writes: a reader sees the old file or the new one, never half of either."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pathlib
import secrets
from collections.abc import Iterator
from typing import Any, Union

PathLike = Union[str, "os.PathLike[str]"]


@contextlib.contextmanager
def replacing(path: PathLike) -> Iterator[pathlib.Path]:
    """Yields a temporary path beside `path`, which becomes `path` if the block succeeds.

    Args:
      path: The file to write. Missing parent folders are made.

    Yields:
      A path in the same folder and with the same suffix (Keras chooses its format by it).

    Raises:
      OSError: If the folder cannot be written. The old file is then untouched.
    """
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{secrets.token_hex(8)}{path.suffix}")
    # Not `tempfile`, whose files are private: a result is as readable as the umask allows, which
    # only the kernel can apply without changing it for the whole process.
    os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
    try:
        yield temporary
        with open(temporary, "rb") as written:
            os.fsync(written.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def locked(path: PathLike) -> Iterator[None]:
    """Holds a lock that one process (and one thread of it) has at a time; waits for it.

    Args:
      path: The lock file, made if it is missing. It stays: removing it would let two in.

    Raises:
      OSError: If the folder cannot be written.
    """
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # Closing the file gives it back, also in a crash.
        yield


def write_text(path: PathLike, text: str) -> None:
    """Writes `text` to `path` atomically, as UTF-8."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_bytes(path: PathLike, content: bytes) -> None:
    """Writes `content` to `path` atomically."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def write_json(path: PathLike, value: Any) -> None:
    """Writes `value` to `path` atomically, as indented JSON that ends with a newline."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")

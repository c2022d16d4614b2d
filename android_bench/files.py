"""Atomic writes: a reader sees the old file or the new one, never half of either."""

from __future__ import annotations

import json
import os
import pathlib
import tempfile
from typing import Any


def write_bytes(path: pathlib.Path, content: bytes) -> None:
    """Writes `content` to `path`; missing folders are made.

    Raises:
      OSError: If the folder cannot be written. An old file is then untouched.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=".", suffix=".tmp", dir=path.parent)
    try:
        with open(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        # mkstemp makes the file private; a result is as readable as the umask allows.
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(name, 0o666 & ~umask)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise


def write_text(path: pathlib.Path, text: str) -> None:
    """Writes `text` as UTF-8."""
    write_bytes(path, text.encode("utf-8", errors="replace"))


def write_json(path: pathlib.Path, value: Any) -> None:
    """Writes `value` as indented JSON that ends with a newline."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")

"""Holds back what native code prints past Python: notes on defaults, which no user can act on."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator

_STDERR = 2


@contextlib.contextmanager
def silenced() -> Iterator[None]:
    """Sends the process's standard error to nowhere for a while; Python's own is flushed before.

    Errors are unaffected: they arrive as exceptions.
    """
    sys.stderr.flush()
    saved = os.dup(_STDERR)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, _STDERR)
        yield
    finally:
        os.dup2(saved, _STDERR)
        os.close(nowhere)
        os.close(saved)

"""Which structure: scores, requests and decisions between rounds, and the methods that decide.

Importing this package does not import TensorFlow: command-line tools read the names of the methods.
"""

from __future__ import annotations

import importlib
from typing import Any

from tff_autoprune.search.methods import create, names

# Looked up when first used: these import TensorFlow.
_PUBLIC = {
    "StructuredPruning": "masking",
    "UpdateMasks": "masking",
    "strip": "masking",
    "importance": "",
}

__all__ = ["create", "names", *_PUBLIC]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if not _PUBLIC[name]:
        return importlib.import_module(f"{__name__}.{name}")
    return getattr(importlib.import_module(f"{__name__}.{_PUBLIC[name]}"), name)

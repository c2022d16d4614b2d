"""The rules of Keras' own layers and TensorFlow's operators, one family a file."""

from __future__ import annotations

import importlib

_FAMILIES = (
    "convolution",
    "dense",
    "normalization",
    "elementwise",
    "spatial",
    "merging",
    "reshaping",
    "operators",
    "moving",
    "picking",
    "contraction",
    "recurrent",
    "attention",
    "wrappers",
    "applications",
)


def load() -> None:
    """Fills the registry."""
    for family in _FAMILIES:
        importlib.import_module(f"{__name__}.{family}")

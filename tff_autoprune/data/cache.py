"""Rendered data sets, kept as one file each; a damaged file is noticed and made anew."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import pathlib
import zipfile
from collections.abc import Callable, Mapping
from typing import Any, Optional

import numpy as np

from tff_autoprune import files
from tff_autoprune.errors import UserError

CACHE_VARIABLE = "TFF_AUTOPRUNE_CACHE"


def folder(cache_dir: Optional[str] = None) -> pathlib.Path:
    """Returns where rendered data sets are kept.

    Args:
      cache_dir: The user's choice; else $TFF_AUTOPRUNE_CACHE, else ~/.cache/tff_autoprune.
    """
    chosen = cache_dir or os.environ.get(CACHE_VARIABLE) or "~/.cache/tff_autoprune"
    return pathlib.Path(chosen).expanduser()


def load_or_build(
    name: str,
    parameters: Mapping[str, Any],
    build: Callable[[], dict[str, np.ndarray]],
    cache_dir: Optional[str] = None,
) -> dict[str, np.ndarray]:
    """Returns the arrays of a rendered data set: from its file, or built and then kept.

    Args:
      name: The data set's name; the file's name begins with it.
      parameters: All that the arrays depend on, as JSON values, a format version among them.
      build: Makes the arrays.
      cache_dir: See `folder`.

    Raises:
      UserError: If the file cannot be written.
    """
    recipe = json.dumps(parameters, sort_keys=True)
    digest = hashlib.sha256(recipe.encode("utf-8")).hexdigest()[:16]
    path = folder(cache_dir) / f"{name}-{digest}.npz"
    arrays = _read(path, recipe)
    if arrays is not None:
        return arrays
    arrays = build()
    try:
        with files.replacing(path) as temporary:
            # Not compressed: reading must be quick, and rendered strokes hardly repeat.
            np.savez(temporary, recipe=np.asarray(recipe), **arrays)
    except OSError as error:
        raise UserError(
            f"data.cache_dir: cannot write {path}: {error.strerror or error}. Name another folder"
            f" with data.cache_dir or ${CACHE_VARIABLE}."
        ) from error
    return arrays


def _read(path: pathlib.Path, recipe: str) -> Optional[dict[str, np.ndarray]]:
    """Returns the arrays of a file that is whole and of this recipe; None otherwise."""
    if not path.exists():
        return None
    try:
        # The zip format keeps a checksum of every member, and reading one verifies it.
        with np.load(path, allow_pickle=False) as stored:
            if str(stored["recipe"]) != recipe:
                raise ValueError("it was made for other parameters")
            return {key: stored[key] for key in stored.files if key != "recipe"}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        reason = " ".join(str(error).split())
        logging.warning("%s is damaged (%s); rendering it again.", path, reason)
        return None

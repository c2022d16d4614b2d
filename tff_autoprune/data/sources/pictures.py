"""A user's own pictures: a folder for each client, in it a folder for each class.

FOLDER/CLIENT/CLASS/anything.png
"""

from __future__ import annotations

import pathlib

import numpy as np
from PIL import Image

from tff_autoprune.data.arrays import from_arrays
from tff_autoprune.data.federated_data import FederatedData
from tff_autoprune.data.loader import Request
from tff_autoprune.errors import UserError

_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp")


def load(request: Request) -> FederatedData:
    """Reads all pictures, as RGB.

    Args:
      request: Its option `size` is the height and width in pixels that pictures are brought to; 0
        keeps theirs, which then must all be the same.

    Raises:
      UserError: If there are no such folders, or a picture does not load or has another size.
    """
    folder = pathlib.Path(request.path).expanduser()
    paths = sorted(path for path in folder.glob("*/*/*") if path.suffix.lower() in _SUFFIXES)
    if not paths:
        raise UserError(
            f"data.path: `pictures` needs FOLDER/CLIENT/CLASS/*.png (or jpg ...), found none in"
            f" {folder}."
        )
    names = sorted({path.parent.name for path in paths})
    size = request.options["size"]
    images = [_read(path, size) for path in paths]
    for path, image in zip(paths, images):
        if image.shape != images[0].shape:
            raise UserError(
                f"{path}: has {image.shape[0]}x{image.shape[1]} pixels, {paths[0].name}"
                f" {images[0].shape[0]}x{images[0].shape[1]}; give data.size=N to bring all to NxN."
            )
    return from_arrays(
        np.stack(images),
        np.asarray([names.index(path.parent.name) for path in paths], np.int32),
        [path.parent.parent.name for path in paths],
        name="pictures",
        label_names=names,
        pixels=request.pixels,
        validation_fraction=request.options["validation_fraction"],
        test_fraction=request.options["test_fraction"],
        seed=request.seed,
    )


def _read(path: pathlib.Path, size: int) -> np.ndarray:
    try:
        with Image.open(path) as picture:
            picture = picture.convert("RGB")
            if size:
                picture = picture.resize((size, size), Image.Resampling.BILINEAR)
            return np.asarray(picture, np.uint8)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: expected a picture, found: {error}.") from error

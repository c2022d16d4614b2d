"""From a font's outlines to the path of a pen: skeletons, and distances to them.

A font's letter and a hand-drawn one differ first of all in the stroke: a hand holds one pen. So
every outline is thinned to its skeleton (T. Y. Zhang and C. Y. Suen, "A Fast Parallel Algorithm for
Thinning Digital Patterns", CACM 27(3), 1984), and what is kept is each pixel's distance to it. Ink
of any width, at any position, is then one comparison with half the width of the pen.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np
from PIL import Image
from scipy import ndimage

# Side of the square that a character is laid in, and of the character's box within it, in pixels:
# more than twice the resolution of the images made of them.
CELL = 64
_BOX = 48
# A thin line covers a pixel only in part; half coverage would break it.
_INK_THRESHOLD = 90
# Distances are kept as bytes, in steps of 1/8 pixel.
DISTANCE_STEPS = 8


class Glyphs(NamedTuple):
    """The characters of one face.

    Attributes:
      distances: uint8 [62, CELL, CELL]: distance to the skeleton in 1/8 pixels, at most 255.
      centres: float32 [62, 2]: (y, x) of the middle of the skeleton's box, in pixels.
      extents: float32 [62]: half the longer side of that box, in pixels.
    """

    distances: np.ndarray
    centres: np.ndarray
    extents: np.ndarray


def trace(inks: list[np.ndarray]) -> Glyphs:
    """Returns the pen's path of each character.

    Args:
      inks: uint8 [h, w] for each character, 255 where there is ink.
    """
    skeletons = thin(np.stack([_fit(ink) for ink in inks]) >= _INK_THRESHOLD)
    distances = np.stack([ndimage.distance_transform_edt(~skeleton) for skeleton in skeletons])
    boxes = np.asarray([_box(skeleton) for skeleton in skeletons], np.float32)
    return Glyphs(
        distances=np.minimum(np.rint(distances * DISTANCE_STEPS), 255).astype(np.uint8),
        centres=boxes.mean(axis=1),
        extents=np.maximum((boxes[:, 1] - boxes[:, 0]).max(axis=1) / 2, 1.0),
    )


def _fit(ink: np.ndarray) -> np.ndarray:
    """Lays a character in the middle of a cell, its longer side as long as the box."""
    height, width = ink.shape
    scale = _BOX / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    how = Image.Resampling.BOX if scale < 1 else Image.Resampling.BICUBIC
    cell = Image.new("L", (CELL, CELL), 0)
    corner = (CELL - size[0]) // 2, (CELL - size[1]) // 2
    cell.paste(Image.fromarray(ink).resize(size, how), corner)
    return np.asarray(cell)


def _box(skeleton: np.ndarray) -> tuple[tuple[int, int], tuple[int, int]]:
    rows, columns = np.flatnonzero(skeleton.any(axis=1)), np.flatnonzero(skeleton.any(axis=0))
    return (rows[0], columns[0]), (rows[-1], columns[-1])


def thin(ink: np.ndarray) -> np.ndarray:
    """Thins shapes to lines one pixel wide, by the algorithm of Zhang and Suen.

    Args:
      ink: bool [n, h, w], with no ink on the border.

    Returns:
      bool [n, h, w], a subset of `ink` that keeps its connections.
    """
    thinned = ink.astype(np.uint8)
    active = np.arange(len(ink))
    while len(active):
        shapes = thinned[active]
        before = shapes.sum(axis=(1, 2), dtype=np.int64)
        for kept in _kept_tables():
            shapes *= kept.take(_neighbourhoods(shapes))
        thinned[active] = shapes
        active = active[shapes.sum(axis=(1, 2), dtype=np.int64) < before]
    return thinned.astype(bool)


# The eight neighbours of a pixel as (down, right), clockwise from the one above.
_RING = ((-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1))


def _neighbourhoods(shapes: np.ndarray) -> np.ndarray:
    """Returns for each pixel a byte whose bit i is the neighbour i of `_RING`, [n, h, w]."""
    height, width = shapes.shape[1:]
    padded = np.pad(shapes, ((0, 0), (1, 1), (1, 1)))
    codes = np.zeros_like(shapes)
    for bit, (down, right) in enumerate(_RING):
        codes |= padded[:, 1 + down : 1 + down + height, 1 + right : 1 + right + width] << bit
    return codes


@functools.lru_cache(maxsize=1)
def _kept_tables() -> tuple[np.ndarray, np.ndarray]:
    """Returns, for the two half-steps, whether a pixel with neighbourhood [256] stays, uint8."""
    ring = (np.arange(256)[:, None] >> np.arange(8)) & 1
    neighbours = ring.sum(axis=1)
    crossings = ((ring == 0) & (np.roll(ring, -1, axis=1) == 1)).sum(axis=1)
    inner = (neighbours >= 2) & (neighbours <= 6) & (crossings == 1)
    north, east, south, west = ring[:, 0::2].T
    first = inner & (north * east * south == 0) & (east * south * west == 0)
    second = inner & (north * east * west == 0) & (north * south * west == 0)
    return (~first).astype(np.uint8), (~second).astype(np.uint8)

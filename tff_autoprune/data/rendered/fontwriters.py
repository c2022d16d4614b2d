"""Rendered writers: 62 characters in FEMNIST's order, one pen and one hand for each client.

    font outlines -> skeletons (glyphs.py) -> a writer's hand -> each time it writes -> 28x28 bytes

A writer starts from one face of one font family and has a slant, width, size, rotation and pen of
its own, and forms each character in its own way (a smooth warp that stays with the writer). Each
time it writes, all of that varies a little. Characters are scaled to the same height, as FEMNIST's
are, so that most capitals and small letters differ in their shape only, and `0`, `O` and `o`, or
`1`, `I` and `l`, hardly differ at all. Writers differ in how much and in what they write.

Whole families are held out: neither validation nor test writers share a font with a writer that
trains. A writer depends on the seed and its own number only.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import functools
from typing import NamedTuple

import numpy as np
import PIL.features

from tff_autoprune.cores import usable_cores
from tff_autoprune.data import cache
from tff_autoprune.data.array_client_data import ArrayClientData
from tff_autoprune.data.federated_data import DataSpec, FederatedData
from tff_autoprune.data.label_names import CHARACTERS
from tff_autoprune.data.loader import Request
from tff_autoprune.data.rendered import font_families, glyphs
from tff_autoprune.data.rendered.font_families import FontFamily
from tff_autoprune.randomness import generator

# To be raised whenever the same parameters would render other images.
_FORMAT_VERSION = 2

SIDE = 28
_PARTS = ("train", "validation", "test")
_HELD_OUT_WRITERS = 0.1
_HELD_OUT_FAMILIES = 0.12
# How many writers start from each kind of font. Written ones are fewer but come first.
_KIND_SHARES = {"script": 0.5, "plain": 0.3, "serif": 0.2}

# Examples of a writer: log-normal, cut off on both sides.
_MEDIAN_EXAMPLES = 140
_EXAMPLES_SIGMA = 0.5
_EXAMPLES_RANGE = (20, 250)
# In NIST Special Database 19, FEMNIST's source, digits are half of all characters.
_DIGIT_SHARE = 0.5
# Dirichlet concentration per label: 1.0 makes some labels frequent and some rare for a writer.
_LABEL_CONCENTRATION = 1.0

# Control points of the smooth warps, along each side of an image.
_KNOTS = 5
# Images warped at a time; few enough for the processor's cache.
_CHUNK = 32
# Over how many pixels ink fades at its edge; 1 would be a perfectly sharp pen.
_EDGE = 1.2


@dataclasses.dataclass(frozen=True)
class _Spread:
    """Standard deviations of what varies from writer to writer, or from time to time.

    Lengths are in units of half a character's height.

    Attributes:
      rotation: In radians.
      slant: Sideways shift per height.
      width: Of the logarithm of width over height.
      size: Of the logarithm of the size.
      shift: Of the position.
      pen: Of the logarithm of the pen's width.
      warp: Of the smooth warp at its control points.
    """

    rotation: float
    slant: float
    width: float
    size: float
    shift: float
    pen: float
    warp: float


_BETWEEN_WRITERS = _Spread(
    rotation=0.06, slant=0.20, width=0.14, size=0.06, shift=0.04, pen=0.22, warp=0.11
)
_BETWEEN_TIMES = _Spread(
    rotation=0.06, slant=0.07, width=0.07, size=0.05, shift=0.06, pen=0.10, warp=0.07
)
# Of the logarithm of a writer's carelessness, which scales all that varies from time to time.
_CARELESSNESS_SIGMA = 0.3
# A typical character's half height and a typical pen's half width, in pixels.
_HALF_HEIGHT = 10.0
_HALF_PEN = 1.25


class _Writer(NamedTuple):
    """A writer before it writes.

    Attributes:
      client_id: Its name.
      part: Its position in `_PARTS`.
      family: The name of the font family that it starts from.
      face: What it starts from.
      labels: uint8 [n]: what it writes.
      seed_path: Names the random stream of its hand.
    """

    client_id: str
    part: int
    family: str
    face: object
    labels: np.ndarray
    seed_path: tuple[object, ...]


def load(request: Request) -> FederatedData:
    """Renders the writers, or reads those that were rendered before.

    Args:
      request: Its option `writers` is the number of writers of all three parts together.

    Raises:
      UserError: If a font is not installed, or the cache cannot be written.
    """
    families = font_families.families()
    spec = DataSpec.build(
        "fontwriters",
        source_shape=(SIDE, SIDE, 1),
        label_names=tuple(CHARACTERS),
        pixels=request.pixels,
    )
    parameters = {
        "format": _FORMAT_VERSION,
        "seed": request.seed,
        "writers": request.options["writers"],
        "fonts": font_families.versions(families),
        "freetype": PIL.features.version("freetype2"),
    }
    arrays = cache.load_or_build(
        "fontwriters",
        parameters,
        functools.partial(render, request.options["writers"], request.seed, families),
        request.cache_dir,
    )
    client_ids, offsets = arrays["client_ids"].tolist(), arrays["offsets"]
    bounds = np.searchsorted(arrays["parts"], range(len(_PARTS) + 1))
    parts = [
        ArrayClientData(
            client_ids[first:last],
            offsets[first : last + 1] - offsets[first],
            arrays["images"][offsets[first] : offsets[last]],
            arrays["labels"][offsets[first] : offsets[last]],
            request.pixels,
        )
        for first, last in zip(bounds, bounds[1:])
    ]
    return FederatedData(*parts, spec=spec)


def render(writers: int, seed: int, families: tuple[FontFamily, ...]) -> dict[str, np.ndarray]:
    """Renders everything that the writers write, on all cores.

    Args:
      writers: Number of writers.
      seed: The user's seed.
      families: What writers can start from; at least three of each kind.

    Returns:
      client_ids [writers] text, parts uint8 [writers] (0 train, 1 validation, 2 test, in this
      order), offsets int64 [writers + 1], images uint8 [n, 28, 28, 1] (background 255, ink 0),
      labels uint8 [n].
    """
    people = _people(writers, seed, families)
    offsets = np.concatenate([[0], np.cumsum([len(person.labels) for person in people])])
    images = np.empty((offsets[-1], SIDE, SIDE, 1), np.uint8)
    faces = list(dict.fromkeys(person.face for person in people))
    with concurrent.futures.ThreadPoolExecutor(usable_cores()) as pool:
        # NumPy and SciPy work outside the interpreter's lock, so threads are enough.
        traced = dict(zip(faces, pool.map(_trace, faces)))

        def write(i: int) -> None:
            person = people[i]
            rng = generator(seed, *person.seed_path, "hand")
            images[offsets[i] : offsets[i + 1], :, :, 0] = _write(
                person.labels, traced[person.face], rng
            )

        for _ in pool.map(write, range(len(people))):
            pass
    return {
        "client_ids": np.asarray([person.client_id for person in people]),
        "parts": np.asarray([person.part for person in people], np.uint8),
        "offsets": offsets.astype(np.int64),
        "images": images,
        "labels": np.concatenate([person.labels for person in people]),
    }


def _trace(face: object) -> glyphs.Glyphs:
    return glyphs.trace(face.draw(CHARACTERS))


def split_families(
    families: tuple[FontFamily, ...], seed: int
) -> tuple[dict[str, list[FontFamily]], ...]:
    """Holds out whole families of each kind.

    Returns:
      For training, validation and test: the families of each kind.
    """
    parts: tuple[dict[str, list[FontFamily]], ...] = ({}, {}, {})
    for kind in _KIND_SHARES:
        of_kind = [family for family in families if family.kind == kind]
        held_out = max(1, round(_HELD_OUT_FAMILIES * len(of_kind)))
        order = [of_kind[i] for i in generator(seed, "families", kind).permutation(len(of_kind))]
        parts[1][kind] = order[:held_out]
        parts[2][kind] = order[held_out : 2 * held_out]
        parts[0][kind] = order[2 * held_out :]
    return parts


def _people(count: int, seed: int, families: tuple[FontFamily, ...]) -> list[_Writer]:
    """Returns the writers, those that train first, then validation, then test."""
    held_out = max(1, round(_HELD_OUT_WRITERS * count))
    sizes = (count - 2 * held_out, held_out, held_out)
    of_part = split_families(families, seed)
    return [
        _person(seed, part, i, sum(sizes[:part]) + i, of_part[part])
        for part in range(len(_PARTS))
        for i in range(sizes[part])
    ]


def _person(
    seed: int, part: int, index: int, number: int, families: dict[str, list[FontFamily]]
) -> _Writer:
    path = ("writer", _PARTS[part], index)
    rng = generator(seed, *path)
    kind = rng.choice(list(_KIND_SHARES), p=list(_KIND_SHARES.values()))
    family = families[kind][rng.integers(len(families[kind]))]
    face = family.faces[rng.integers(len(family.faces))]
    examples = _MEDIAN_EXAMPLES * np.exp(_EXAMPLES_SIGMA * rng.standard_normal())
    examples = int(np.clip(round(examples), *_EXAMPLES_RANGE))
    digits, classes = 10, len(CHARACTERS)
    prior = np.full(classes, (1 - _DIGIT_SHARE) / (classes - digits))
    prior[:digits] = _DIGIT_SHARE / digits
    shares = rng.dirichlet(_LABEL_CONCENTRATION * classes * prior)
    return _Writer(
        client_id=f"writer_{number:04d}_{family.name}",
        part=part,
        family=family.name,
        face=face,
        labels=rng.choice(classes, size=examples, p=shares).astype(np.uint8),
        seed_path=path,
    )


def _write(labels: np.ndarray, face: glyphs.Glyphs, rng: np.random.Generator) -> np.ndarray:
    """Writes characters in one hand.

    Args:
      labels: Integers [n].
      face: The characters that the hand starts from.
      rng: The hand's random stream.

    Returns:
      uint8 [n, 28, 28], background 255, ink 0.
    """
    count = len(labels)
    between, within = _BETWEEN_WRITERS, _BETWEEN_TIMES
    careless = np.exp(_CARELESSNESS_SIGMA * rng.standard_normal())

    def vary(name: str, size: tuple[int, ...] = ()) -> np.ndarray:
        """Draws one of the spreads: a value of the writer plus one for each time."""
        own = getattr(between, name) * rng.standard_normal(size)
        each = careless * getattr(within, name) * rng.standard_normal((count, *size))
        return (own + each).astype(np.float32)

    rotation, slant = vary("rotation"), vary("slant")
    width, size, pen = np.exp(vary("width")), np.exp(vary("size")), np.exp(vary("pen"))
    shift = vary("shift", (2,))
    half_height = _HALF_HEIGHT * size

    # A point of the character is a sum of products of a function of the row and one of the column:
    # one, the pixel's position (the affine part) and smooth bumps (the warp).
    cos, sin = np.cos(rotation), np.sin(rotation)
    points = np.zeros((count, 2, 2 + _KNOTS, 2 + _KNOTS), np.float32)
    points[:, 0, 1, 0], points[:, 0, 0, 1] = cos / half_height, -sin / half_height
    points[:, 1, 1, 0] = sin / (half_height * width) + slant * points[:, 0, 1, 0]
    points[:, 1, 0, 1] = cos / (half_height * width) + slant * points[:, 0, 0, 1]
    points[:, :, 0, 0] = shift
    points[:, :, 2:, 2:] = (
        between.warp * rng.standard_normal((len(face.extents), 2, _KNOTS, _KNOTS))[labels]
    )
    points[:, :, 2:, 2:] += careless * within.warp * rng.standard_normal((count, 2, _KNOTS, _KNOTS))
    extent = face.extents[labels]
    points *= extent[:, None, None, None]
    points[:, :, 0, 0] += face.centres[labels]

    images = np.empty((count, SIDE, SIDE), np.uint8)
    for start in range(0, count, _CHUNK):
        chunk = slice(start, start + _CHUNK)
        basis = _basis()
        y, x = np.moveaxis(basis @ points[chunk] @ basis.T, 1, 0)
        ink = _sample(face.distances, labels[chunk], y, x)
        ink *= (-half_height / extent / _EDGE)[chunk, None, None]
        ink += (_HALF_PEN * pen / _EDGE + 0.5)[chunk, None, None]
        np.clip(ink, 0, 1, out=ink)
        images[chunk] = np.rint(255 - 255 * ink)
    return images


@functools.lru_cache(maxsize=1)
def _basis() -> np.ndarray:
    """Returns the functions of a row or column, float32 [28, 2 + knots]: 1, position, bumps."""
    positions = np.arange(SIDE) - (SIDE - 1) / 2
    knots = np.linspace(0, _KNOTS - 1, SIDE)
    bumps = np.exp(-0.5 * ((knots[:, None] - np.arange(_KNOTS)) / 0.7) ** 2)
    bumps /= bumps.sum(axis=1, keepdims=True)
    return np.concatenate([np.ones((SIDE, 1)), positions[:, None], bumps], 1).astype(np.float32)


def _sample(distances: np.ndarray, labels: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Interpolates distances between the four nearest pixels.

    Args:
      distances: uint8 [62, CELL, CELL], in steps of 1/8 pixel.
      labels: Integers [n].
      y: float32 [n, h, w], in pixels of the cell; outside of the cell its border counts.
      x: As y.

    Returns:
      float32 [n, h, w], in pixels of the cell.
    """
    cell = glyphs.CELL
    y, x = np.clip(y, 0, cell - 1.001), np.clip(x, 0, cell - 1.001)
    top, left = y.astype(np.intp), x.astype(np.intp)
    y -= top
    x -= left
    top *= cell
    top += left
    top += labels.astype(np.intp)[:, None, None] * (cell * cell)
    flat = distances.reshape(-1)
    corners = [
        flat.take(top + offset, mode="clip").astype(np.float32) for offset in (0, 1, cell, cell + 1)
    ]
    upper = corners[0] + x * (corners[1] - corners[0])
    lower = corners[2] + x * (corners[3] - corners[2])
    lower -= upper
    lower *= y
    lower += upper
    lower /= glyphs.DISTANCE_STEPS
    return lower

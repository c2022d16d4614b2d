"""Drawn people, 84x84x3: has this person facial hair? A stand-in for CelebA that can be rendered.

    an SVG per expression (DiceBear, "Open Peeps" by Pablo Stanley, CC0) -> poses, light -> bytes

A client is a person. Hair or hat, skin, colours, glasses and the label stay with the person;
expression, pose, mirror image, background and light change from picture to picture. The label is
a matter of shape: hair, beard, skin, clothes and background have colours that do not depend on it.
"""

from __future__ import annotations

import concurrent.futures
import functools
import importlib.metadata
import importlib.resources
import io
import json
from typing import Any

import numpy as np
from PIL import Image

from tff_autoprune.cores import usable_cores
from tff_autoprune.data import cache
from tff_autoprune.data.array_client_data import ArrayClientData
from tff_autoprune.data.federated_data import DataSpec, FederatedData
from tff_autoprune.data.loader import Request
from tff_autoprune.data.rendered.font_families import INSTALL_HINT
from tff_autoprune.data.splits import split_clients
from tff_autoprune.errors import UserError
from tff_autoprune.randomness import generator

# To be raised whenever the same parameters would render other images.
_FORMAT_VERSION = 1

SIDE = 84
LABEL_NAMES = ("shaven", "facial hair")
_STYLE = "open-peeps"
_PACKAGES = ("dicebear-core", "dicebear-styles", "resvg-py")

# As many as are `male` in CelebA.
_POSITIVE_SHARE = 0.42
_GLASSES_SHARE = 0.25
# Pictures of a person: log-normal, cut off on both sides.
_MEDIAN_PICTURES = 20
_PICTURES_SIGMA = 0.3
_PICTURES_RANGE = (8, 40)
# Drawings of a person, each with another expression; pictures are made of them.
_EXPRESSIONS_PER_PERSON = 3
# Left out: those that no person has.
_UNUSUAL_EXPRESSIONS = frozenset({"cyclops", "monster", "angryWithFang", "hectic"})
# The style's canvas cuts the shoulders off; this one, in its units, holds what any pose shows.
_CANVAS = 1000
_CANVAS_CORNER = (-148, -120)
# What a picture shows of the canvas at its usual size: a square with sides of this share.
_VIEW = 0.72
# Side of a drawing in pixels: 1.5 times the resolution at which pictures are taken of it.
_DRAWING = 176


def load(request: Request) -> FederatedData:
    """Renders the people, or reads those that were rendered before.

    Args:
      request: Its option `identities` is the number of people of all three parts together.

    Raises:
      UserError: If a package is not installed, or the cache cannot be written.
    """
    spec = DataSpec.build(
        "avatars",
        source_shape=(SIDE, SIDE, 3),
        label_names=LABEL_NAMES,
        pixels=request.pixels,
    )
    parameters = {
        "format": _FORMAT_VERSION,
        "seed": request.seed,
        "identities": request.options["identities"],
        "packages": _versions(),
    }
    arrays = cache.load_or_build(
        "avatars",
        parameters,
        functools.partial(render, request.options["identities"], request.seed),
        request.cache_dir,
    )
    everyone = ArrayClientData(
        arrays["client_ids"].tolist(),
        arrays["offsets"],
        arrays["images"],
        arrays["labels"],
        request.pixels,
    )
    split = split_clients(
        everyone.client_ids,
        validation_fraction=request.options["validation_fraction"],
        test_fraction=request.options["test_fraction"],
        seed=request.seed,
        source="avatars",
    )
    return FederatedData(*(everyone.select(part) for part in split), spec=spec)


def _versions() -> dict[str, str]:
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError as error:
            raise UserError(
                f"data.name: `avatars` draws with the package {package}, which is not installed;"
                f" run `{INSTALL_HINT}` (Python 3.10 or newer)."
            ) from error
    return versions


def render(identities: int, seed: int) -> dict[str, np.ndarray]:
    """Renders all pictures of all people.

    Args:
      identities: Number of people.
      seed: The user's seed.

    Returns:
      client_ids [identities] text, offsets int64 [identities + 1], images uint8 [n, 84, 84, 3],
      labels uint8 [n]: 1 for people with facial hair.
    """
    definition = _definition()
    style = _style(definition)
    with concurrent.futures.ThreadPoolExecutor(usable_cores()) as pool:
        person = functools.partial(_person, definition, style, seed)
        people = list(pool.map(person, range(identities)))
    sizes = [len(images) for images, _ in people]
    return {
        "client_ids": np.asarray([f"person_{number:04d}" for number in range(identities)]),
        "offsets": np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
        "images": np.concatenate([images for images, _ in people]),
        "labels": np.repeat(np.asarray([label for _, label in people], np.uint8), sizes),
    }


def _definition() -> dict[str, Any]:
    """Returns the style as its package defines it."""
    file = importlib.resources.files("dicebear_styles").joinpath(f"{_STYLE}.json")
    return json.loads(file.read_text(encoding="utf-8"))


def _style(definition: dict[str, Any]) -> Any:
    """Returns the style on a wider canvas, as DiceBear's `Style`."""
    from dicebear import Style

    x, y = _CANVAS_CORNER
    moved = {
        "type": "element",
        "name": "g",
        "attributes": {"transform": f"translate({-x} {-y})"},
        "children": definition["canvas"]["elements"],
    }
    canvas = {"width": _CANVAS, "height": _CANVAS, "elements": [moved]}
    return Style({**definition, "canvas": canvas})


def _person(
    definition: dict[str, Any], style: Any, seed: int, number: int
) -> tuple[np.ndarray, int]:
    """Returns the pictures of a person, uint8 [n, 84, 84, 3], and the person's label."""
    rng = generator(seed, "avatars", number)
    label = int(rng.random() < _POSITIVE_SHARE)
    variants = {name: list(part["variants"]) for name, part in definition["components"].items()}
    expressions = [name for name in variants["expression"] if name not in _UNUSUAL_EXPRESSIONS]
    look = {
        "seed": str(number),
        "headVariant": [_pick(rng, variants["head"])],
        "facialHairVariant": [_pick(rng, variants["facialHair"])],
        "facialHairProbability": 100 * label,
        "accessoriesVariant": [_pick(rng, variants["accessories"])],
        "accessoriesProbability": 100 * int(rng.random() < _GLASSES_SHARE),
        "maskProbability": 0,
    }
    for part in ("skin", "clothing", "headContrast"):
        look[f"{part}Color"] = [_pick(rng, definition["colors"][part]["values"])]
    chosen = rng.choice(expressions, size=_EXPRESSIONS_PER_PERSON, replace=False)
    drawings = np.stack(
        [_draw(style, {**look, "expressionVariant": [str(name)]}) for name in chosen]
    )
    count = _MEDIAN_PICTURES * np.exp(_PICTURES_SIGMA * rng.standard_normal())
    count = int(np.clip(round(count), *_PICTURES_RANGE))
    return _take_pictures(drawings, count, rng), label


def _pick(rng: np.random.Generator, choices: list[str]) -> str:
    return choices[rng.integers(len(choices))]


def _draw(style: Any, look: dict[str, Any]) -> np.ndarray:
    """Returns a drawing without background, float32 [side, side, 4], colours times opacity."""
    import resvg_py
    from dicebear import Avatar

    png = resvg_py.svg_to_bytes(
        svg_string=Avatar(style, look).to_string(),
        width=_DRAWING,
        height=_DRAWING,
        skip_system_fonts=True,
    )
    with Image.open(io.BytesIO(bytes(png))) as image:
        drawing = np.asarray(image.convert("RGBA"), np.float32) / 255
    drawing[..., :3] *= drawing[..., 3:]
    # The mean of four pixels, at each of them: what a picture's pixel sees of the drawing.
    drawing = (drawing + np.roll(drawing, -1, axis=0)) / 2
    return (drawing + np.roll(drawing, -1, axis=1)) / 2


def _take_pictures(drawings: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Poses the drawings before backgrounds, in changing light.

    Args:
      drawings: float32 [expressions, side, side, 4], colours times opacity.
      count: Number of pictures.
      rng: The person's random stream.

    Returns:
      uint8 [count, 84, 84, 3].
    """
    angle, size = 0.12 * rng.standard_normal(count), np.exp(0.10 * rng.standard_normal(count))
    slant, shift = 0.05 * rng.standard_normal(count), 0.05 * rng.standard_normal((count, 2))
    mirrored = np.where(rng.random(count) < 0.5, -1.0, 1.0)
    which = rng.integers(len(drawings), size=count)
    # From the picture back to the drawing, both with coordinates (y, x) from -1 to 1.
    cos, sin = _VIEW * np.cos(angle) / size, _VIEW * np.sin(angle) / size
    matrices = np.stack(
        [np.stack([cos, -sin], 1), mirrored[:, None] * np.stack([sin + slant, cos], 1)], 1
    )
    axis = np.linspace(-1, 1, SIDE, dtype=np.float32)
    grid = np.stack(np.meshgrid(axis, axis, indexing="ij"))
    posed = np.empty((count, SIDE, SIDE, 4), np.float32)
    for i in range(count):
        places = np.tensordot(matrices[i].astype(np.float32), grid, 1)
        posed[i] = _sample(drawings[which[i]], places + shift[i, :, None, None].astype(np.float32))

    top, bottom = rng.random((2, count, 1, 1, 3), np.float32)
    fade = np.linspace(0, 1, SIDE, dtype=np.float32)[None, :, None, None]
    background = 0.35 + 0.65 * (top * (1 - fade) + bottom * fade)
    pictures = posed[..., :3] + (1 - posed[..., 3:]) * background
    light = np.exp(0.15 * rng.standard_normal((count, 1, 1, 1), np.float32))
    tint = np.exp(0.04 * rng.standard_normal((count, 1, 1, 3), np.float32))
    noise = 0.015 * rng.standard_normal(pictures.shape, np.float32)
    return np.rint(255 * np.clip(pictures * light * tint + noise, 0, 1)).astype(np.uint8)


def _sample(drawing: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Interpolates between the four nearest pixels.

    Args:
      drawing: float32 [side, side, channels].
      places: float32 [2, h, w], from -1 to 1; beyond, the drawing's border counts.

    Returns:
      float32 [h, w, channels].
    """
    side = len(drawing)
    y, x = np.clip((places + 1) * ((side - 1) / 2), 0, side - 1.001)
    top, left = y.astype(np.intp), x.astype(np.intp)
    y, x = (y - top)[..., None], (x - left)[..., None]
    first = top * side + left
    flat = drawing.reshape(side * side, -1)
    corners = [flat.take(first + offset, axis=0) for offset in (0, 1, side, side + 1)]
    upper = corners[0] + x * (corners[1] - corners[0])
    lower = corners[2] + x * (corners[3] - corners[2])
    return upper + y * (lower - upper)

"""The fonts that the rendered writers of `fontwriters` start from.

All are installed from the package index (`requirements-data.txt`), each under an open licence: the
`fontpkg-*` families under OFL-1.1 or Apache-2.0, the Hershey strokes free for any use with
acknowledgement of A. V. Hershey (U.S. National Bureau of Standards). Left out: families with
capitals in place of small letters, with two characters drawn alike, or too heavy to be a pen's.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.metadata
import pathlib
import sys

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from tff_autoprune.errors import UserError

INSTALL_HINT = "pip install -r requirements-data.txt"

# Outlines are drawn at this many pixels to the em, ample for the 72-pixel cells made of them.
_EM_PIXELS = 96
_REGULAR_WEIGHT = 400
_STROKE_SCALE = 3
_STROKE_WIDTH = 4


@dataclasses.dataclass(frozen=True)
class OutlineFace:
    """A face of an installed font: filled outlines.

    Attributes:
      package: The name of the package that holds it.
      style: "normal" or "italic".
    """

    package: str
    style: str = "normal"

    @property
    def requirement(self) -> str:
        """The package to install."""
        return self.package

    def draw(self, characters: str) -> list[np.ndarray]:
        """Returns the ink of each character: uint8 [h, w], 255 where there is ink, no margin."""
        path, variable = self._file()
        font = ImageFont.truetype(str(path), _EM_PIXELS)
        if variable:
            font.set_variation_by_axes([_axis_value(axis) for axis in font.get_variation_axes()])
        masks = [font.getmask(character) for character in characters]
        return [
            np.frombuffer(bytes(mask), np.uint8).reshape(mask.size[1], mask.size[0])
            for mask in masks
        ]

    def _file(self) -> tuple[pathlib.Path, bool]:
        """Returns the file of this style that is nearest to regular weight, and if it varies."""
        import fontpkg

        family = fontpkg.family(self.package[len("fontpkg-") :])
        found = [file for file in family.files if file.style == self.style]
        best = min(
            found, key=lambda file: (not file.variable, abs((file.weight or 0) - _REGULAR_WEIGHT))
        )
        return best.path, best.variable


def _axis_value(axis: dict) -> float:
    name = axis["name"]
    name = name.decode("latin-1") if isinstance(name, bytes) else name
    if name == "Weight":
        return min(max(_REGULAR_WEIGHT, axis["minimum"]), axis["maximum"])
    return axis["default"]


@dataclasses.dataclass(frozen=True)
class StrokeFace:
    """A face of the Hershey collection: the strokes of a pen.

    Attributes:
      name: Its name in the collection.
    """

    name: str

    @property
    def requirement(self) -> str:
        """The package to install."""
        return "hershey-fonts"

    def draw(self, characters: str) -> list[np.ndarray]:
        """Returns the ink of each character: uint8 [h, w], 255 where there is ink, no margin."""
        from HersheyFonts import HersheyFonts

        font = HersheyFonts()
        font.load_default_font(self.name)
        return [
            _draw_strokes([list(stroke) for stroke in font.strokes_for_text(character)])
            for character in characters
        ]


def _draw_strokes(strokes: list[list[tuple[float, float]]]) -> np.ndarray:
    points = np.concatenate([np.asarray(stroke, float) for stroke in strokes if stroke])
    low, high = points.min(axis=0), points.max(axis=0)
    width, height = ((high - low) * _STROKE_SCALE + 2 * _STROKE_WIDTH + 1).astype(int)
    image = Image.new("L", (int(width), int(height)), 0)
    pen = ImageDraw.Draw(image)
    for stroke in strokes:
        path = [
            tuple((np.asarray(point, float) - low) * _STROKE_SCALE + _STROKE_WIDTH)
            for point in stroke
        ]
        pen.line(path, fill=255, width=_STROKE_WIDTH, joint="curve")
    return np.asarray(image.crop(image.getbbox()))


@dataclasses.dataclass(frozen=True)
class FontFamily:
    """Faces of one designer's hand; a family is never cut between training and held-out clients.

    Attributes:
      name: Its name.
      kind: "script" (written), "plain" or "serif" (printed); held-out families are drawn from
        each kind.
      faces: What a writer's characters may start from.
      python: The oldest Python for which its package exists.
    """

    name: str
    kind: str
    faces: tuple[object, ...]
    python: tuple[int, int] = (3, 9)


def _outline(kind: str, *slugs: str, styles: tuple[str, ...] = ("normal",)) -> list[FontFamily]:
    return [
        FontFamily(
            slug,
            kind,
            tuple(OutlineFace(f"fontpkg-{slug}", style) for style in styles),
            python=(3, 10),
        )
        for slug in slugs
    ]


def _strokes(kind: str, name: str, *faces: str) -> FontFamily:
    return FontFamily(name, kind, tuple(StrokeFace(face) for face in faces))


_FAMILIES: tuple[FontFamily, ...] = (
    *_outline("script", "caveat", "dancing-script", "delius", "great-vibes", "indie-flower"),
    *_outline("script", "kalam", "lobster", "oleo-script", "pacifico", "satisfy"),
    *_outline("script", "shadows-into-light", "yellowtail", "zeyada"),
    *_outline("script", "lobster-two", styles=("normal", "italic")),
    _strokes("script", "hershey-script", "scripts", "scriptc"),
    *_outline("plain", "acme", "alegreya-sans", "atkinson-hyperlegible", "baloo-2"),
    *_outline("plain", "bricolage-grotesque", "chakra-petch", "comfortaa", "dosis", "fredoka"),
    *_outline("plain", "hammersmith-one", "inconsolata", "josefin-sans", "maven-pro"),
    *_outline("plain", "quicksand", "rajdhani", "righteous", "share-tech", "signika"),
    *_outline("plain", "syne", "viga", "yanone-kaffeesatz"),
    *_outline("plain", "abeezee", "dm-mono", "exo-2", styles=("normal", "italic")),
    _strokes("plain", "hershey-plain", "futural", "futuram", "rowmans"),
    *_outline("serif", "amiri", "andada-pro", "arvo", "cormorant", styles=("normal", "italic")),
    *_outline("serif", "crimson-pro", "eb-garamond", "fraunces", styles=("normal", "italic")),
    *_outline("serif", "lora", "playfair-display", "vollkorn", styles=("normal", "italic")),
    *_outline("serif", "space-mono", "zilla-slab", styles=("normal", "italic")),
    _strokes("serif", "hershey-serif", "timesr", "timesi"),
)


@functools.lru_cache(maxsize=1)
def families() -> tuple[FontFamily, ...]:
    """Returns the families that exist for this Python.

    Raises:
      UserError: If the package of one of them is not installed.
    """
    existing = tuple(family for family in _FAMILIES if sys.version_info >= family.python)
    missing = [name for name in requirements(existing) if not _version(name)]
    if missing:
        raise UserError(
            f"data.name: `fontwriters` draws with fonts, of which {len(missing)} are not installed"
            f" ({', '.join(missing[:3])}{', ...' if len(missing) > 3 else ''}); run"
            f" `{INSTALL_HINT}`."
        )
    return existing


def requirements(of: tuple[FontFamily, ...]) -> list[str]:
    """Returns the packages that hold the families, without duplicates, in order."""
    return list(dict.fromkeys(face.requirement for family in of for face in family.faces))


def versions(of: tuple[FontFamily, ...]) -> dict[str, str]:
    """Returns the installed version of each package that holds one of the families."""
    return {name: _version(name) for name in requirements(of)}


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""

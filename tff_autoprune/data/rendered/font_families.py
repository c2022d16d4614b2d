"""The fonts that the rendered writers of `fontwriters` start from.

All are installed from the package index (`requirements-data.txt`), each under an open licence:
OFL-1.1 or Apache-2.0, and the Hershey strokes, which are free for any use with acknowledgement of
A. V. Hershey (U.S. National Bureau of Standards). Left out: families with capitals in place of
small letters, with two characters drawn alike (but for `I` and `l`, which are one stroke in many
hands), or too heavy to be a pen's.

The `fontpkg-*` families need Python 3.10; under Python 3.9 there are 11 families of 60.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.metadata
import importlib.resources
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
class FontpkgFace:
    """A face of a family that `fontpkg` packages.

    Attributes:
      requirement: The package that holds it.
      style: "normal" or "italic".
    """

    requirement: str
    style: str = "normal"

    def draw(self, characters: str) -> list[np.ndarray]:
        """Returns the ink of each character: uint8 [h, w], 255 where there is ink, no margin."""
        import fontpkg

        family = fontpkg.family(self.requirement[len("fontpkg-") :])
        found = [file for file in family.files if file.style == self.style]
        best = min(
            found, key=lambda file: (not file.variable, abs((file.weight or 0) - _REGULAR_WEIGHT))
        )
        return _draw_outlines(best.path, characters, best.variable)


@dataclasses.dataclass(frozen=True)
class FileFace:
    """A face in a file of a package that holds nothing else.

    Attributes:
      requirement: The package that holds it.
      file: The file's name.
    """

    requirement: str
    file: str

    def draw(self, characters: str) -> list[np.ndarray]:
        """Returns the ink of each character: uint8 [h, w], 255 where there is ink, no margin."""
        folder = importlib.resources.files(self.requirement.replace("-", "_")) / "files"
        return _draw_outlines(folder / self.file, characters, variable=False)


def _draw_outlines(path: object, characters: str, variable: bool) -> list[np.ndarray]:
    font = ImageFont.truetype(str(path), _EM_PIXELS)
    if variable:
        font.set_variation_by_axes([_axis_value(axis) for axis in font.get_variation_axes()])
    masks = [font.getmask(character) for character in characters]
    return [
        np.frombuffer(bytes(mask), np.uint8).reshape(mask.size[1], mask.size[0]) for mask in masks
    ]


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
      requirement: The package that holds the collection.
    """

    name: str
    requirement: str = "hershey-fonts"

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


def _packaged(kind: str, *slugs: str, styles: tuple[str, ...] = ("normal",)) -> list[FontFamily]:
    return [
        FontFamily(
            slug,
            kind,
            tuple(FontpkgFace(f"fontpkg-{slug}", style) for style in styles),
            python=(3, 10),
        )
        for slug in slugs
    ]


def _files(kind: str, name: str, *files: str) -> FontFamily:
    return FontFamily(name, kind, tuple(FileFace(f"font-{name}", file) for file in files))


def _strokes(kind: str, name: str, *faces: str) -> FontFamily:
    return FontFamily(name, kind, tuple(StrokeFace(face) for face in faces))


_FAMILIES: tuple[FontFamily, ...] = (
    _strokes("script", "hershey-script", "scripts", "scriptc"),
    _strokes("script", "hershey-italic", "timesi", "timesib"),
    _files("script", "intuitive", "Intuitive.ttf"),
    *_packaged("script", "caveat", "dancing-script", "delius", "great-vibes", "indie-flower"),
    *_packaged("script", "kalam", "lobster", "oleo-script", "pacifico", "satisfy"),
    *_packaged("script", "shadows-into-light", "yellowtail", "zeyada"),
    *_packaged("script", "lobster-two", styles=("normal", "italic")),
    _strokes("plain", "hershey-plain", "futural", "futuram", "rowmans"),
    _files("plain", "fredoka-one", "FredokaOne-Regular.ttf"),
    _files("plain", "hanken-grotesk", "HankenGrotesk-Regular.otf", "HankenGrotesk-Italic.otf"),
    _files("plain", "lato", "Lato-Regular.ttf", "Lato-Italic.ttf"),
    _files("plain", "roboto", "Roboto-Regular.ttf", "Roboto-Italic.ttf"),
    *_packaged("plain", "acme", "alegreya-sans", "atkinson-hyperlegible", "baloo-2"),
    *_packaged("plain", "bricolage-grotesque", "chakra-petch", "varela-round", "dosis"),
    *_packaged("plain", "hammersmith-one", "inconsolata", "josefin-sans", "maven-pro"),
    *_packaged("plain", "quicksand", "rajdhani", "righteous", "share-tech", "signika"),
    *_packaged("plain", "syne", "viga", "yanone-kaffeesatz"),
    *_packaged("plain", "abeezee", "dm-mono", "exo-2", styles=("normal", "italic")),
    _strokes("serif", "hershey-serif", "timesr", "timesrb"),
    _files("serif", "caladea", "Caladea-Regular.ttf", "Caladea-Italic.ttf"),
    _files("serif", "source-serif-pro", "SourceSerifPro-Regular.ttf", "SourceSerifPro-It.ttf"),
    *_packaged("serif", "amiri", "andada-pro", "arvo", "cormorant", styles=("normal", "italic")),
    *_packaged("serif", "crimson-pro", "eb-garamond", "fraunces", styles=("normal", "italic")),
    *_packaged("serif", "lora", "playfair-display", "vollkorn", styles=("normal", "italic")),
    *_packaged("serif", "space-mono", "zilla-slab", styles=("normal", "italic")),
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

"""From the name of a data set to its clients."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Mapping
from typing import Any, Optional

from tff_autoprune.data.federated_data import MAX_RESIZE, FederatedData, PixelOptions
from tff_autoprune.data.label_names import CELEBA_ATTRIBUTES
from tff_autoprune.data.options import Option, held_out_fractions, parse_options, parse_pixels
from tff_autoprune.data.splits import SPLIT_CHOICES
from tff_autoprune.errors import UserError


@dataclasses.dataclass(frozen=True)
class Request:
    """What a loader is asked for; checked already.

    Attributes:
      path: The user's copy: a file or folder; None for data sets that need none.
      cache_dir: Where rendered data sets are kept; None for the default.
      seed: Everything random derives from it.
      pixels: What to do to every image.
      options: A value for every option that the data set declares.
    """

    path: Optional[str]
    cache_dir: Optional[str]
    seed: int
    pixels: PixelOptions
    options: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class _Source:
    """A data set: the module whose function (Request) -> FederatedData reads it, and its options.

    Attributes:
      module: Imported when the data set is loaded, because it imports TensorFlow.
      help: What the data set is, in a line.
      options: What can be chosen.
      path: What `path` names; None if the data set takes no path.
      path_required: Whether there is no other place to look.
      function: Name of the function of the module.
    """

    module: str
    help: str
    options: Mapping[str, Option] = dataclasses.field(default_factory=dict)
    path: Optional[str] = None
    path_required: bool = False
    function: str = "load"


_SPLIT = Option(
    str,
    "clients",
    "whether whole clients are held out, or the source's own test examples of all clients",
    choices=SPLIT_CHOICES,
)

_LENGTH = Option(int, 20, "symbols of a text that are read at a time", 2, 1000)

_SOURCES: dict[str, _Source] = {
    "fontwriters": _Source(
        "tff_autoprune.data.rendered.fontwriters",
        "62 handwritten characters, 28x28x1; each client is a writer, drawn from open fonts",
        {"writers": Option(int, 300, "number of writers", 10, 3400)},
    ),
    "avatars": _Source(
        "tff_autoprune.data.rendered.avatars",
        "drawn people with or without facial hair, 84x84x3; each client is a person",
        {
            "identities": Option(int, 200, "number of people", 10, 10_000),
            **held_out_fractions(0.1, 0.1),
        },
    ),
    "digits": _Source(
        "tff_autoprune.data.sources.digits",
        "scikit-learn's handwritten digits, 8x8x1, by their 14 writers",
        held_out_fractions(0.15, 0.15),
    ),
    "femnist": _Source(
        "tff_autoprune.data.sources.femnist",
        "handwritten characters of 3,400 writers, 28x28x1, from TFF's emnist_all.sqlite",
        {
            "only_digits": Option(bool, False, "whether letters are left out"),
            "split": _SPLIT,
            **held_out_fractions(0.1, 0.1),
        },
        path="the folder of emnist_all.sqlite",
    ),
    "celeba": _Source(
        "tff_autoprune.data.sources.celeba",
        "faces of 9,343 people with 40 attributes, 84x84x3, from TFF's celeba.sqlite",
        {
            "label": Option(str, "male", "the attribute to predict", choices=CELEBA_ATTRIBUTES),
            "split": _SPLIT,
            **held_out_fractions(0.1, 0.1),
        },
        path="the folder of celeba.sqlite",
    ),
    "leaf": _Source(
        "tff_autoprune.data.sources.leaf",
        "a folder made by LEAF for FEMNIST or CelebA",
        {"split": _SPLIT, **held_out_fractions(0.1, 0.1)},
        path="a folder with train/*.json and test/*.json",
        path_required=True,
    ),
    "cifar100": _Source(
        "tff_autoprune.data.sources.cifar100",
        "small pictures of 100 classes, 32x32x3, 500 clients, from TFF's cifar100.sqlite",
        {
            "coarse": Option(bool, False, "whether the 20 coarse classes are the labels"),
            **held_out_fractions(0.1, 0.1),
        },
        path="the folder of cifar100.sqlite",
    ),
    "shakespeare": _Source(
        "tff_autoprune.data.sources.texts",
        "lines of 715 roles, the next character, from TFF's shakespeare.sqlite",
        {"length": _LENGTH, "split": _SPLIT, **held_out_fractions(0.1, 0.1)},
        path="the folder of shakespeare.sqlite",
        function="load_shakespeare",
    ),
    "stackoverflow": _Source(
        "tff_autoprune.data.sources.stackoverflow",
        "sentences of 342,477 users, the next word, from TFF's stackoverflow.sqlite",
        {
            "words": Option(int, 10_000, "words told apart", 1, 1_000_000),
            "length": _LENGTH,
            **held_out_fractions(0.1, 0.1),
        },
        path="the folder of stackoverflow.sqlite",
    ),
    "texts": _Source(
        "tff_autoprune.data.sources.texts",
        "your own texts, the next character: a .txt file for each client",
        {"length": _LENGTH, **held_out_fractions(0.1, 0.1)},
        path="a folder of .txt files",
        path_required=True,
    ),
    "table": _Source(
        "tff_autoprune.data.sources.table",
        "your own table: CSV or Parquet with a column that names the client",
        {
            "client_column": Option(str, "client", "the column that names the client"),
            "label_column": Option(str, "label", "the column to be learned"),
            **held_out_fractions(0.1, 0.1),
        },
        path="a .csv or .parquet file",
        path_required=True,
    ),
    "pictures": _Source(
        "tff_autoprune.data.sources.pictures",
        "your own pictures: a folder for each client, in it one for each class",
        {
            "size": Option(
                int, 0, "height and width to bring them to; 0 keeps theirs", 0, MAX_RESIZE
            ),
            **held_out_fractions(0.1, 0.1),
        },
        path="a folder with CLIENT/CLASS/*.png",
        path_required=True,
    ),
    "npz": _Source(
        "tff_autoprune.data.sources.npz",
        "your own images: a NumPy file with pixels, label and client",
        held_out_fractions(0.1, 0.1),
        path="a .npz file with the arrays pixels, label and client",
        path_required=True,
    ),
}


def names() -> tuple[str, ...]:
    """Returns the names of the data sets."""
    return tuple(_SOURCES)


def describe(name: str) -> str:
    """Returns a line about the data set `name`.

    Raises:
      UserError: If there is no such data set.
    """
    source = _source(name)
    return f"{source.help}; path: {source.path}" if source.path else source.help


def option_help(name: str) -> dict[str, str]:
    """Returns a line about each option of the data set `name`.

    Raises:
      UserError: If there is no such data set.
    """
    return {
        key: f"{option.help}: {option.allowed} (default {option.default})"
        for key, option in _source(name).options.items()
    }


def declared_options() -> dict[str, dict[str, Option]]:
    """Returns the options that data sets have of their own: {option: {data set: declaration}}."""
    found: dict[str, dict[str, Option]] = {}
    for name, source in _SOURCES.items():
        for key, option in source.options.items():
            found.setdefault(key, {})[name] = option
    return found


def load(
    name: str,
    *,
    path: Optional[str] = None,
    cache_dir: Optional[str] = None,
    seed: int = 0,
    invert: bool = False,
    crop: Optional[tuple[int, int]] = None,
    resize: Optional[int] = None,
    **options: Any,
) -> FederatedData:
    """Loads a data set, split by client.

    Args:
      name: One of `names()`.
      path: The file or folder of the user's own copy, for the data sets that need one.
      cache_dir: Where rendered data sets are kept; $TFF_AUTOPRUNE_CACHE or
        ~/.cache/tff_autoprune by default.
      seed: Everything random derives from it: the split, and what is rendered.
      invert: Whether pixels become 1 - value (after cropping and resizing).
      crop: `(start, stop)`: rows and columns kept, as in `image[start:stop, start:stop]`.
      resize: Height and width after resizing, in pixels.
      **options: The data set's own options; see `option_help`. None stands for the default.

    Returns:
      The clients for training, validation and test, and what their examples are.

    Raises:
      UserError: If the name, an option or its value is not known or allowed, or if the data is
        missing or damaged. The message names the field or file, what was found and what is allowed.

    Example:
    >>> from tff_autoprune import data
    >>> digits = data.load("digits", invert=True)
    >>> len(digits.train.client_ids), digits.spec.image_shape, digits.spec.num_classes
    (10, (8, 8, 1), 10)
    """
    source = _source(name)
    seed = Option(int, 0, "", 0, 2**63 - 1).parse("data.seed", seed)
    pixels = parse_pixels(invert, crop, resize)
    values = parse_options(name, source.options, options)
    if path and source.path is None:
        raise UserError(f"data.path: `{name}` needs no file, found {path!r}; leave it out.")
    if not path and source.path_required:
        raise UserError(f"data.path: `{name}` needs {source.path}; found none.")
    request = Request(
        path=str(path) if path else None,
        cache_dir=str(cache_dir) if cache_dir else None,
        seed=seed,
        pixels=pixels,
        options=values,
    )
    return getattr(importlib.import_module(source.module), source.function)(request)


def _source(name: str) -> _Source:
    if name not in _SOURCES:
        raise UserError(f"data.name: expected one of {', '.join(_SOURCES)}, found {name!r}.")
    return _SOURCES[name]

"""Texts: a folder of one's own, or TFF's Shakespeare; the next character is the label.

S. Caldas et al., "LEAF: A Benchmark for Federated Settings", arXiv 1812.01097.
"""

from __future__ import annotations

import os
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from tff_autoprune.data import vocabulary
from tff_autoprune.data.array_client_data import ArrayClientData, from_clients
from tff_autoprune.data.federated_data import DataSpec, FederatedData, PixelOptions
from tff_autoprune.data.loader import Request
from tff_autoprune.data.sources import sql_texts
from tff_autoprune.data.sources.sql_client_data import find_file, read_sizes
from tff_autoprune.data.splits import split_clients, split_source
from tff_autoprune.errors import UserError

_SHAKESPEARE = "shakespeare.sqlite"


def load(request: Request) -> FederatedData:
    """Reads a folder with a .txt file for each client.

    Args:
      request: Its option `length` is the number of characters that a model reads at a time.

    Raises:
      UserError: If there are no such files, or one is no text.
    """
    _check_pixels("texts", request.pixels)
    folder = pathlib.Path(request.path).expanduser()
    texts = {}
    for path in sorted(folder.glob("*.txt")):
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{path}: expected a text in UTF-8, found: {error}.") from error
        if text.strip():
            texts[path.stem] = [text]
    if not texts:
        raise UserError(
            f"data.path: `texts` needs a folder with a .txt file for each client; found no text in"
            f" {folder}."
        )
    parts = split_clients(
        list(texts),
        validation_fraction=request.options["validation_fraction"],
        test_fraction=request.options["test_fraction"],
        seed=request.seed,
        source=str(folder),
    )
    length = request.options["length"]
    return FederatedData(
        *(_clients(texts, part, length) for part in parts), spec=_spec("texts", length)
    )


def load_shakespeare(request: Request) -> FederatedData:
    """Opens the user's copy of TFF's file: the lines of 715 roles.

    Args:
      request: Its option `split` is as for FEMNIST, `length` as for `load`.

    Raises:
      UserError: If the file is missing or damaged.
    """
    _check_pixels("shakespeare", request.pixels)
    options = request.options
    file = os.path.join(
        find_file("shakespeare", _SHAKESPEARE, request.path, request.cache_dir), _SHAKESPEARE
    )
    names = ("train", "test")
    sizes = read_sizes(file, names)
    texts = {name: sql_texts.read_all(file, name, "snippets") for name in names}
    plan = split_source(
        list(sizes["train"]),
        list(sizes["test"]),
        by=options["split"],
        validation_fraction=options["validation_fraction"],
        test_fraction=options["test_fraction"],
        seed=request.seed,
        source=file,
    )
    sources = {"train": names[:1], "test": names[1:], "both": names}
    parts = [
        _clients(
            {
                client: [text for name in sources[part.of] for text in texts[name].get(client, ())]
                for client in part.client_ids
            },
            part.client_ids,
            options["length"],
        )
        for part in plan
    ]
    return FederatedData(
        *parts, spec=_spec("shakespeare", options["length"], held_out=options["split"])
    )


def _check_pixels(name: str, pixels: PixelOptions) -> None:
    if not pixels.identity:
        raise UserError(f"data.name: `{name}` has no pixels to invert, crop or resize.")


def _spec(name: str, length: int, held_out: str = "clients") -> DataSpec:
    names = vocabulary.characters().names
    return DataSpec(
        name=name,
        image_shape=(length,),
        source_shape=(length,),
        num_classes=len(names),
        # Line breaks as they are written: labels are lines in exported files.
        label_names=tuple(name.encode("unicode_escape").decode() for name in names),
        pixels=PixelOptions(),
        held_out=held_out,
        dtype="int32",
        ignored_label=vocabulary.PADDING,
    )


def _clients(
    texts: Mapping[str, Sequence[str]], client_ids: Sequence[str], length: int
) -> ArrayClientData:
    numbers = vocabulary.characters()
    clients = []
    for client_id in client_ids:
        cut = [vocabulary.pieces(numbers.encode(text), length) for text in texts[client_id]]
        inputs, labels = (np.concatenate(parts) for parts in zip(*cut))
        clients.append((client_id, inputs, labels))
    return from_clients(clients)

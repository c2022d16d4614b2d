"""A user's own data: one NumPy file of images, labels and the client of each.

The file holds `pixels`, uint8 (or float in [0, 1]) [n, h, w] or [n, h, w, c]; `label`, integers
[n]; `client`, text [n]; and, if wanted, `label_names`, text [classes].
"""

from __future__ import annotations

import pathlib
import zipfile
import zlib

import numpy as np

from tff_autoprune.data.array_client_data import ArrayClientData
from tff_autoprune.data.arrays import warn_of_unread
from tff_autoprune.data.examples import check_images, check_labels
from tff_autoprune.data.federated_data import DataSpec, FederatedData
from tff_autoprune.data.loader import Request
from tff_autoprune.data.splits import split_clients
from tff_autoprune.errors import UserError

_COLUMNS = ("pixels", "label", "client")
# A label as large as this is an accident (an identifier, an overflow), not a class.
_MAX_CLASSES = 100_000


def load(request: Request) -> FederatedData:
    """Reads the file and holds whole clients out.

    Args:
      request: Its options `validation_fraction` and `test_fraction` are shares of the clients.

    Raises:
      UserError: If the file is missing or damaged, or its arrays do not fit what is expected.
    """
    path = pathlib.Path(request.path).expanduser()
    columns = _read(path)
    images, labels, clients = _checked(path, columns)
    if "label_names" in columns:
        label_names = tuple(str(name) for name in columns["label_names"].ravel())
    else:
        label_names = tuple(str(label) for label in range(int(labels.max()) + 1))
    client_ids, positions, counts = np.unique(clients, return_inverse=True, return_counts=True)
    spec = DataSpec.build(
        "npz",
        source_shape=images.shape[1:],
        label_names=label_names,
        pixels=request.pixels,
    )
    # Stable, so that a client's examples stay in the file's order.
    order = np.argsort(positions, kind="stable")
    everyone = ArrayClientData(
        client_ids.tolist(),
        np.concatenate([[0], np.cumsum(counts)]),
        images[order],
        labels[order],
        request.pixels,
    )
    for client_id in everyone.client_ids:
        where = f"{path}: client {client_id!r}"
        client = everyone.select([client_id])
        check_labels(client.labels, len(label_names), where)
        if client.inputs.dtype == np.float32:
            check_images(client.inputs, where)
    split = split_clients(
        everyone.client_ids,
        validation_fraction=request.options["validation_fraction"],
        test_fraction=request.options["test_fraction"],
        seed=request.seed,
        source=str(path),
    )
    return FederatedData(*(everyone.select(part) for part in split), spec=spec)


def _read(path: pathlib.Path) -> dict[str, np.ndarray]:
    if not path.is_file():
        raise UserError(f"data.path: {path} is not a file; `npz` needs a NumPy .npz file.")
    try:
        stored = np.load(path, allow_pickle=False)
        if isinstance(stored, np.ndarray):
            raise ValueError("a single array")
        with stored:
            columns = {name: stored[name] for name in stored.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        if "Object arrays" in str(error):
            raise UserError(
                f"{path}: an array holds Python objects, as columns of pandas do; store text and"
                " numbers: client=frame['client'].to_numpy(str)."
            ) from error
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: expected a NumPy .npz file, found: {reason}.") from error
    missing = [name for name in _COLUMNS if name not in columns]
    if missing:
        raise UserError(
            f"{path}: the array `{missing[0]}` is missing; expected {', '.join(_COLUMNS)}, found"
            f" {', '.join(columns) or 'none'}."
        )
    known = (*_COLUMNS, "label_names")
    warn_of_unread(str(path), sorted(set(columns) - set(known)), known)
    return columns


def _checked(
    path: pathlib.Path, columns: dict[str, np.ndarray]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns images uint8 or float32 [n, h, w, c], labels int32 [n] and clients text [n]."""
    pixels, labels, clients = (columns[name] for name in _COLUMNS)
    if pixels.ndim not in (3, 4) or not all(pixels.shape):
        raise UserError(
            f"{path}: `pixels` must be [n, h, w] or [n, h, w, c], found {list(pixels.shape)}."
        )
    if labels.shape != pixels.shape[:1] or clients.shape != pixels.shape[:1]:
        raise UserError(
            f"{path}: `label` and `client` must be of length {len(pixels)}, like `pixels`; found"
            f" {list(labels.shape)} and {list(clients.shape)}."
        )
    if labels.dtype.kind not in "iu":
        raise UserError(f"{path}: `label` must be integers, found {labels.dtype}.")
    if clients.dtype.kind not in "USiu":
        raise UserError(f"{path}: `client` must be text, found {clients.dtype}.")
    try:
        clients = np.char.decode(clients) if clients.dtype.kind == "S" else clients.astype(str)
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path}: `client` must be text in UTF-8, found {error.object!r}."
        ) from error
    if labels.max() >= _MAX_CLASSES:
        raise UserError(
            f"{path}: client {str(clients[labels.argmax()])!r} has label {labels.max()}; expected"
            f" at most {_MAX_CLASSES - 1}."
        )
    if pixels.ndim == 3:
        pixels = pixels[..., np.newaxis]
    if pixels.dtype.kind == "f":
        pixels = pixels.astype(np.float32)
    elif pixels.dtype != np.uint8:
        raise UserError(
            f"{path}: `pixels` must be uint8 (0 to 255) or floats (0 to 1), found {pixels.dtype}."
        )
    return pixels, labels.astype(np.int32), clients

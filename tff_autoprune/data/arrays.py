"""Plain arrays become clients: by a column that names them, or dealt out by label.

inputs, labels, client of each row ──> train, validation, test clients
inputs, labels ──Dirichlet by label──> clients with unequal labels ──> the same
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Optional

import numpy as np

from tff_autoprune import randomness
from tff_autoprune.data.array_client_data import ArrayClientData
from tff_autoprune.data.examples import check_images, check_labels
from tff_autoprune.data.federated_data import DataSpec, FederatedData, PixelOptions
from tff_autoprune.data.splits import split_clients
from tff_autoprune.errors import UserError


def from_arrays(
    inputs: np.ndarray,
    labels: np.ndarray,
    client: Sequence[object],
    *,
    name: str = "arrays",
    label_names: Optional[Sequence[str]] = None,
    pixels: Optional[PixelOptions] = None,
    ignored_label: Optional[int] = None,
    validation_fraction: float = 0.15,
    test_fraction: float = 0.15,
    seed: int = 0,
) -> FederatedData:
    """Makes a federated data set of arrays; whole clients are held out.

    Args:
      inputs: Images, uint8 (0 to 255) [n, h, w] or [n, h, w, c], or floats (0 to 1) [n, h, w, c];
        or any other floats or integers, [n, ...].
      labels: Numbers of classes, integers [n] (or [n, places]); or floats, to be told themselves.
      client: Whose each row is, [n]; see `deal_out` if nobody's.
      name: What to call it, also in messages.
      label_names: A name for each class.
      pixels: What to do to every image.
      ignored_label: The label of places that do not count.
      validation_fraction: Share of the clients held out for validation.
      test_fraction: Share of the clients held out for the test.
      seed: Decides which clients are held out.

    Raises:
      UserError: If the arrays do not fit each other, or hold values that nothing can learn from.
    """
    inputs, labels = _checked(name, np.asarray(inputs), np.asarray(labels))
    client = np.asarray(client)
    if client.shape != (len(labels),):
        raise UserError(
            f"{name}: expected a client for each of the {len(labels)} rows, found"
            f" {list(client.shape)}."
        )
    if label_names is None:
        several = labels.shape[1] if labels.ndim > 1 else 1
        count = int(labels.max()) + 1 if labels.dtype.kind == "i" else several
        label_names = [str(number) for number in range(count)]
    elif labels.dtype.kind == "i":
        check_labels(labels.reshape(len(labels), -1).max(axis=1), len(label_names), name)
    pixels = pixels or PixelOptions()
    is_image = inputs.ndim == 4 and inputs.dtype != np.int32
    if is_image and inputs.dtype == np.float32:
        check_images(inputs, name)
    if not is_image and not pixels.identity:
        raise UserError(f"{name}: data.invert, data.crop and data.resize are for images.")
    shape = tuple(inputs.shape[1:])
    if is_image:
        pixels.check(shape)
    spec = DataSpec(
        name=name,
        image_shape=pixels.output_shape(shape) if is_image else shape,
        source_shape=shape,
        num_classes=len(label_names),
        label_names=tuple(label_names),
        pixels=pixels,
        dtype="int32" if inputs.dtype == np.int32 else "float32",
        ignored_label=ignored_label,
    )
    client_ids, positions, counts = np.unique(
        client.astype(str), return_inverse=True, return_counts=True
    )
    # Stable, so that a client's examples stay in their order.
    order = np.argsort(positions, kind="stable")
    everyone = ArrayClientData(
        client_ids.tolist(),
        np.concatenate([[0], np.cumsum(counts)]),
        inputs[order],
        labels[order],
        pixels,
    )
    parts = split_clients(
        everyone.client_ids,
        validation_fraction=validation_fraction,
        test_fraction=test_fraction,
        seed=seed,
        source=name,
    )
    return FederatedData(*(everyone.select(part) for part in parts), spec=spec)


def deal_out(labels: np.ndarray, *, clients: int, alpha: float = 0.5, seed: int = 0) -> np.ndarray:
    """Deals rows out to clients whose labels are unequal.

    Each client's mixture of labels is drawn from a Dirichlet distribution around that of all rows
    (Hsu et al., arXiv 1909.06335), and the rows are dealt accordingly, as many to each client.

    Args:
      labels: Numbers of classes, integers [n]; other labels are dealt out evenly.
      clients: How many clients.
      alpha: Concentration: near 0 a client has one label only, large values make all alike.
      seed: Decides who gets what.

    Returns:
      The client of each row, text [n], for `from_arrays`.

    Raises:
      UserError: If there are fewer rows than clients, or a number is not allowed.
    """
    labels = np.asarray(labels)
    if not 1 <= clients <= len(labels):
        raise UserError(
            f"data: expected 1 to {len(labels)} clients, as many as rows, found {clients}."
        )
    if not alpha > 0:
        raise UserError(f"data: alpha must be above 0, found {alpha}.")
    stream = randomness.generator(seed, "partition")
    classes = np.zeros(len(labels), int)
    if labels.ndim == 1 and labels.dtype.kind in "iu":
        classes = np.unique(labels, return_inverse=True)[1]
    shares = np.bincount(classes) / len(classes)
    left = [list(stream.permutation(np.flatnonzero(classes == c))) for c in range(len(shares))]
    sizes = np.full(clients, len(labels) // clients)
    sizes[: len(labels) % clients] += 1
    owner = np.empty(len(labels), int)
    for number, size in enumerate(sizes):
        mixture = stream.dirichlet(alpha * len(shares) * shares + 1e-9)
        for _ in range(size):
            # A label that has run out is no longer in the mixture.
            weights = np.where([bool(rows) for rows in left], mixture + 1e-12, 0.0)
            row = left[stream.choice(len(left), p=weights / weights.sum())].pop()
            owner[row] = number
    digits = len(str(clients - 1))
    return np.asarray([f"client_{number:0{digits}d}" for number in owner])


def columns_of(
    rows: Iterable[Mapping[str, Any]], *, client: str, inputs: str, label: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Collects rows such as those of a Hugging Face data set.

    Args:
      rows: Dicts; inputs may be numbers, arrays or pictures (PIL).
      client: Key of whose a row is.
      inputs: Key of what a model reads.
      label: Key of what it learns.

    Returns:
      Inputs, labels and client of each row, for `from_arrays`.

    Raises:
      UserError: If there are no rows, a key is missing, or inputs differ in shape.
    """
    collected: dict[str, list[Any]] = {inputs: [], label: [], client: []}
    for number, row in enumerate(rows):
        for key, values in collected.items():
            if key not in row:
                raise UserError(
                    f"data: row {number} has no {key!r}; it has {', '.join(map(str, row))}."
                )
            values.append(row[key] if key == client else np.asarray(row[key]))
    if not collected[label]:
        raise UserError("data: there are no rows.")
    shapes = {value.shape for value in collected[inputs]}
    if len(shapes) > 1:
        found = " and ".join(str(list(shape)) for shape in sorted(shapes)[:2])
        raise UserError(f"data: {inputs!r} must be of one shape, found {found}; resize them first.")
    return np.stack(collected[inputs]), np.stack(collected[label]), np.asarray(collected[client])


def _checked(name: str, inputs: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns arrays of the types that are kept."""
    if inputs.ndim < 2 or not all(inputs.shape) or len(labels) != len(inputs):
        raise UserError(
            f"{name}: expected inputs [n, ...] and labels [n, ...] of as many rows, found"
            f" {list(inputs.shape)} and {list(labels.shape)}."
        )
    for what, array in (("inputs", inputs), ("labels", labels)):
        if array.dtype.kind not in "fiub":
            raise UserError(f"{name}: {what} must be numbers, found {array.dtype}.")
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            row = int(np.flatnonzero(~np.isfinite(array.reshape(len(array), -1)).all(axis=1))[0])
            raise UserError(f"{name}: {what} of row {row} are not numbers (NaN or infinity).")
    if inputs.dtype == np.uint8 and inputs.ndim in (3, 4):
        inputs = inputs[..., np.newaxis] if inputs.ndim == 3 else inputs
    else:
        inputs = inputs.astype(np.float32 if inputs.dtype.kind == "f" else np.int32)
    labels = labels.astype(np.float32 if labels.dtype.kind == "f" else np.int32)
    if labels.dtype == np.int32 and labels.min() < 0:
        row = int(np.flatnonzero(labels.reshape(len(labels), -1).min(axis=1) < 0)[0])
        raise UserError(f"{name}: the label of row {row} is {labels.min()}; classes count from 0.")
    return inputs, labels


def warn_of_unread(source: str, unread: Sequence[str], read: Sequence[str]) -> None:
    """Says in one line what a file holds that nobody reads."""
    if unread:
        logging.warning(
            "%s: %s: not read; only %s are.", source, ", ".join(unread), ", ".join(read)
        )

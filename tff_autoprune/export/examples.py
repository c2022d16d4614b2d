"""Held-out images for parity and typical images for calibration, taken from many clients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from tff_autoprune import data, randomness

if TYPE_CHECKING:
    import tensorflow_federated as tff

# More clients with fewer images each say more about unseen people than the reverse, but opening a
# client of a large file costs as much as reading several images.
_PER_CLIENT = 16


def take(
    splits: Sequence[tff.simulation.datasets.ClientData], count: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Takes images from clients in seeded order: a few from each, then more if too few.

    The choice depends on the client ids, the number of their examples and the seed only, so that
    the same data set loaded with other pixel options gives the same examples.

    Args:
      splits: Clients to take from; a later split is used only when the earlier ones run out.
      count: Number of examples wanted.
      seed: Of the order of the clients.

    Returns:
      Images float32 [n, h, w, c] and labels int32 [n], n <= count.
    """
    first: list[tuple[np.ndarray, np.ndarray]] = []
    for split in splits:
        more: list[tuple[np.ndarray, np.ndarray]] = []
        for index in randomness.generator(seed, "export examples").permutation(
            len(split.client_ids)
        ):
            if _size(first) >= count:
                break
            images, labels = data.client_arrays(split, split.client_ids[index])
            first.append((images[:_PER_CLIENT], labels[:_PER_CLIENT]))
            more.append((images[_PER_CLIENT:], labels[_PER_CLIENT:]))
        first += more
    images, labels = (np.concatenate(parts)[:count] for parts in zip(*first))
    return images, labels


def _size(parts: Sequence[tuple[np.ndarray, np.ndarray]]) -> int:
    return sum(len(labels) for _, labels in parts)

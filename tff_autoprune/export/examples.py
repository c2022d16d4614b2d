"""Held-out images for parity and typical images for calibration, taken from many clients."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow_federated as tff

# More clients with fewer images each say more about unseen people than the reverse, but opening a
# client's data set costs as much as reading several images.
_PER_CLIENT = 16


def take(
    clients: Sequence[tff.simulation.datasets.ClientData], count: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Takes images from clients in seeded order: a few from each, then more if too few.

    The choice depends on the client ids, the number of their examples and the seed only, so that
    the same data set loaded with other pixel options gives the same examples.

    Args:
      clients: Splits to take from; a later one is used only when the earlier ones run out.
      count: Number of examples wanted.
      seed: Of the order of the clients.

    Returns:
      Images float32 [n, h, w, c] and labels int32 [n], n <= count.
    """
    images: list[np.ndarray] = []
    labels: list[np.ndarray] = []
    for split in clients:
        order = np.random.default_rng(seed).permutation(len(split.client_ids))
        rest: list[tuple[np.ndarray, np.ndarray]] = []
        for index in order:
            if sum(map(len, labels)) >= count:
                break
            dataset = split.create_tf_dataset_for_client(split.client_ids[index])
            some_images, some_labels = next(iter(dataset.take(count).batch(count)))
            some_images, some_labels = some_images.numpy(), some_labels.numpy()
            images.append(some_images[:_PER_CLIENT])
            labels.append(some_labels[:_PER_CLIENT])
            rest.append((some_images[_PER_CLIENT:], some_labels[_PER_CLIENT:]))
        for more_images, more_labels in rest:
            if sum(map(len, labels)) >= count:
                break
            images.append(more_images)
            labels.append(more_labels)
    return np.concatenate(images)[:count], np.concatenate(labels)[:count]

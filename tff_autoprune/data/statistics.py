"""How much each client has, and how far its labels are from everyone's."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tff_autoprune.errors import UserError

if TYPE_CHECKING:
    import pandas as pd
    import tensorflow_federated as tff

# Examples of a client that are read at a time.
_READ_BATCH = 4096
# Clients whose labels are read where reading them means parsing images from a file.
_MAX_LABEL_READS = 100


def client_sizes(client_data: tff.simulation.datasets.ClientData) -> dict[str, int]:
    """Returns the number of examples of each client.

    Args:
      client_data: Any `ClientData`; those of this package know it without reading examples.
    """
    if hasattr(client_data, "client_sizes"):
        return client_data.client_sizes()
    return {
        client_id: sum(1 for _ in client_data.create_tf_dataset_for_client(client_id))
        for client_id in client_data.client_ids
    }


def client_arrays(
    client_data: tff.simulation.datasets.ClientData, client_id: str
) -> tuple[np.ndarray, np.ndarray]:
    """Returns all examples of a client.

    Args:
      client_data: Any `ClientData` of (image, label) examples.
      client_id: One of its clients.

    Returns:
      Images float32 [n, h, w, c] in [0, 1] and labels int32 [n]. Those of this package need no
      `tf.data` pipeline for it.

    Raises:
      UserError: If the client has no examples.
    """
    if hasattr(client_data, "client_arrays"):
        return client_data.client_arrays(client_id)
    dataset = client_data.create_tf_dataset_for_client(client_id)
    batches = list(dataset.batch(_READ_BATCH).as_numpy_iterator())
    if not batches:
        raise UserError(f"data: client {client_id} has no examples.")
    images, labels = (np.concatenate(parts) for parts in zip(*batches))
    return images.astype(np.float32, copy=False), labels.astype(np.int32, copy=False)


def _labels(client_data: tff.simulation.datasets.ClientData, client_id: str) -> np.ndarray:
    if hasattr(client_data, "client_labels"):
        return client_data.client_labels(client_id)
    return client_arrays(client_data, client_id)[1]


def statistics(client_data: tff.simulation.datasets.ClientData) -> pd.DataFrame:
    """Tells how unequal the clients are.

    Args:
      client_data: Any `ClientData` of (image, label) examples.

    Returns:
      A row for each client, indexed by `client_id`:
        examples: number of examples;
        labels: number of different labels;
        label_entropy: entropy of the client's labels, in bits;
        label_skew: total variation distance between the client's labels and those of all clients
          together, from 0 (the same mixture) to 1 (no label in common).
      Where labels have to be parsed from a file, they are read for 100 clients, evenly spread;
      the last three columns of the others are NaN.
    """
    import pandas as pd

    sizes = client_sizes(client_data)
    client_ids = list(client_data.client_ids)
    table = pd.DataFrame(
        {"examples": [sizes[client_id] for client_id in client_ids]},
        index=pd.Index(client_ids, name="client_id"),
    )
    read = client_ids
    if not hasattr(client_data, "images") and len(client_ids) > _MAX_LABEL_READS:
        chosen = np.linspace(0, len(client_ids) - 1, _MAX_LABEL_READS).astype(int)
        read = [client_ids[i] for i in chosen]
    labels = {client_id: _labels(client_data, client_id) for client_id in read}
    classes = max((int(values.max()) for values in labels.values() if len(values)), default=0) + 1
    counts = np.stack([np.bincount(labels[client_id], minlength=classes) for client_id in read])
    overall = counts.sum(axis=0) / max(counts.sum(), 1)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    logarithms = np.log2(np.where(shares > 0, shares, 1.0))
    measured = pd.DataFrame(
        {
            "labels": (counts > 0).sum(axis=1),
            # Adding zero turns the -0.0 of a client with one label into 0.0.
            "label_entropy": -(shares * logarithms).sum(axis=1) + 0.0,
            "label_skew": np.abs(shares - overall).sum(axis=1) / 2,
        },
        index=pd.Index(read, name="client_id"),
    )
    return table.join(measured)

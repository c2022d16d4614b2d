"""How much each client has, and how far its labels are from everyone's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Union

import numpy as np

if TYPE_CHECKING:
    import pandas as pd
    import tensorflow_federated as tff

    from tff_autoprune.data.client_data import Arrays, ExampleClientData

# Clients whose labels are read where reading them means parsing images from a file.
_MAX_LABEL_READS = 100


def as_examples(
    source: Union[tff.simulation.datasets.ClientData, Mapping[str, Any]],
) -> ExampleClientData:
    """Returns clients whose examples can be had as arrays; see `client_data.as_examples`."""
    from tff_autoprune.data import client_data

    return client_data.as_examples(source)


def client_sizes(client_data: tff.simulation.datasets.ClientData) -> dict[str, int]:
    """Returns the number of examples of each client.

    Args:
      client_data: Any `ClientData`; those of this package know it without reading examples.
    """
    return as_examples(client_data).client_sizes()


def client_arrays(client_data: tff.simulation.datasets.ClientData, client_id: str) -> Arrays:
    """Returns all examples of a client.

    Args:
      client_data: Any `ClientData`; see `client_data.as_examples`.
      client_id: One of its clients.

    Returns:
      Inputs (images are float32 [n, h, w, c]), labels and, if there are any, weights.

    Raises:
      UserError: If the client has no examples, or they are not (inputs, labels).
    """
    return as_examples(client_data).client_arrays(client_id)


def is_guessing(accuracy: float, *, guessing: float, examples: float) -> bool:
    """Returns whether an accuracy is no better than that of guessing.

    Args:
      accuracy: Measured, in [0, 1]; NaN counts as guessing.
      guessing: The accuracy of guessing.
      examples: How many examples it was measured on.
    """
    deviation = (guessing * (1 - guessing) / max(1.0, examples)) ** 0.5
    return not accuracy > guessing + 2 * deviation


def _readable(source: ExampleClientData) -> list[str]:
    """Returns the clients whose labels are read: all, or some, evenly spread."""
    client_ids = list(source.client_ids)
    if source.labels_in_memory or len(client_ids) <= _MAX_LABEL_READS:
        return client_ids
    chosen = np.linspace(0, len(client_ids) - 1, _MAX_LABEL_READS).astype(int)
    return [client_ids[i] for i in chosen]


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
      Where labels are not numbers of classes, the last three columns are NaN. Where they have to
      be parsed from a file, they are read for 100 clients, evenly spread; the columns of the
      others are NaN.
    """
    import pandas as pd

    source = as_examples(client_data)
    sizes = source.client_sizes()
    client_ids = list(source.client_ids)
    table = pd.DataFrame(
        {"examples": [sizes[client_id] for client_id in client_ids]},
        index=pd.Index(client_ids, name="client_id"),
    )
    read = _readable(source)
    labels = {client_id: source.client_labels(client_id) for client_id in read}
    if not all(isinstance(y, np.ndarray) and y.dtype.kind in "iu" for y in labels.values()):
        return table.assign(labels=np.nan, label_entropy=np.nan, label_skew=np.nan)
    labels = {client_id: np.ravel(values) for client_id, values in labels.items()}
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

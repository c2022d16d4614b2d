"""Clients and their examples: real, rendered or the user's own, behind one call.

    from tff_autoprune import data

    digits = data.load("digits", seed=1, resize=28)
    for client_id in digits.train.client_ids:
        images = digits.train.create_tf_dataset_for_client(client_id)

`load` returns a `FederatedData`: three `tff.simulation.datasets.ClientData` (clients that train,
clients for validation, clients for the test) and the `DataSpec` that describes them. Examples of
images are `(image float32 [h, w, c] in [0, 1], label int32 [])`. Everything random derives from the
seed. Data of your own, as arrays or as `{client: tf.data.Dataset}`, come in by `data.arrays` and
`data.as_examples`. Importing this package imports neither TensorFlow nor TFF; loading does.
"""

from __future__ import annotations

from tff_autoprune.data.federated_data import DataSpec, FederatedData, PixelOptions
from tff_autoprune.data.loader import declared_options, describe, load, names, option_help
from tff_autoprune.data.statistics import (
    as_examples,
    client_arrays,
    client_sizes,
    is_guessing,
    statistics,
)

__all__ = [
    "DataSpec",
    "FederatedData",
    "PixelOptions",
    "as_examples",
    "client_arrays",
    "client_sizes",
    "declared_options",
    "describe",
    "is_guessing",
    "load",
    "names",
    "option_help",
    "statistics",
]

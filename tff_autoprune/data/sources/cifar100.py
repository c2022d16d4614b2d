"""CIFAR-100, dealt out to 500 training and 100 test clients, from TFF's file `cifar100.sqlite`.

A. Krizhevsky, 2009, 32x32x3; by the Pachinko allocation of Reddi et al., arXiv 2003.00295.
"""

from __future__ import annotations

import os

import tensorflow as tf
import tensorflow_federated as tff

from tff_autoprune.data.federated_data import DataSpec, FederatedData
from tff_autoprune.data.loader import Request
from tff_autoprune.data.sources.sql_client_data import (
    ExampleReader,
    SqlClientData,
    SqlSplit,
    find_file,
    read_sizes,
)
from tff_autoprune.data.splits import split_source

FILE_NAME = "cifar100.sqlite"
_SIDE = 32


def load(request: Request) -> FederatedData:
    """Opens the user's copy of TFF's file; its test clients are for validation and test.

    Args:
      request: Its option `coarse` takes the 20 coarse labels instead of the 100 fine ones.

    Raises:
      UserError: If the file is missing or damaged.
    """
    options = request.options
    folder = find_file("cifar100", FILE_NAME, request.path, request.cache_dir)
    file = os.path.join(folder, FILE_NAME)
    names = ("train", "test")
    sizes = read_sizes(file, names)
    sources = tff.simulation.datasets.cifar100.load_data(cache_dir=folder)
    label = "coarse_label" if options["coarse"] else "label"
    spec = DataSpec.build(
        "cifar100",
        source_shape=(_SIDE, _SIDE, 3),
        label_names=tuple(str(number) for number in range(20 if options["coarse"] else 100)),
        pixels=request.pixels,
    )
    reader = ExampleReader(
        to_image=lambda example: tf.cast(example["image"], tf.float32) / 255.0,
        to_label=lambda example: tf.cast(example[label], tf.int32),
    )
    # Both splits number their clients from 0; they are other clients.
    splits = {
        name: SqlSplit(file, source, sizes[name], reader, prefix=f"{name}_")
        for name, source in zip(names, sources)
    }
    plan = split_source(
        list(splits["train"].sizes),
        list(splits["test"].sizes),
        by="clients",
        validation_fraction=options["validation_fraction"],
        test_fraction=options["test_fraction"],
        seed=request.seed,
        source=file,
    )
    return FederatedData(
        *(SqlClientData(file, [splits[part.of]], part.client_ids, spec) for part in plan),
        spec=spec,
    )

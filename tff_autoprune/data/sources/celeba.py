"""CelebA, the faces of 9,343 people with 40 attributes, from TFF's file `celeba.sqlite`.

Z. Liu et al., "Deep Learning Face Attributes in the Wild", ICCV 2015, grouped by person as in
S. Caldas et al., "LEAF: A Benchmark for Federated Settings", arXiv 1812.01097. 84x84x3.
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

FILE_NAME = "celeba.sqlite"
_SIDE = 84


def load(request: Request) -> FederatedData:
    """Opens the user's copy of TFF's file.

    Args:
      request: Its option `label` is the attribute to predict. `split` is "clients" (TFF's split by
        people: 8,408 train, 935 are shared between validation and test) or "examples" (TFF's split
        of everyone's pictures; the test pictures of one half of the people are for validation).

    Raises:
      UserError: If the file is missing or damaged.
    """
    options = request.options
    folder = find_file("celeba", FILE_NAME, request.path, request.cache_dir)
    file = os.path.join(folder, FILE_NAME)
    names = tuple(f"split_by_{options['split']}_{part}" for part in ("train", "test"))
    sizes = read_sizes(file, names)
    sources = tff.simulation.datasets.celeba.load_data(
        split_by_clients=options["split"] == "clients", cache_dir=folder
    )
    label = options["label"]
    spec = DataSpec.build(
        "celeba",
        source_shape=(_SIDE, _SIDE, 3),
        label_names=(f"not {label}", label),
        pixels=request.pixels,
        held_out=options["split"],
    )
    reader = ExampleReader(
        to_image=lambda example: tf.cast(example["image"], tf.float32) / 255.0,
        to_label=lambda example: tf.cast(example[label], tf.int32),
    )
    splits = {
        part: SqlSplit(file, source, sizes[name], reader)
        for part, source, name in zip(("train", "test"), sources, names)
    }
    plan = split_source(
        list(sizes[names[0]]),
        list(sizes[names[1]]),
        by=options["split"],
        validation_fraction=options["validation_fraction"],
        test_fraction=options["test_fraction"],
        seed=request.seed,
        source=file,
    )
    return FederatedData(
        *(SqlClientData(file, [splits[part.of]], part.client_ids, spec) for part in plan),
        spec=spec,
    )

"""FEMNIST, the handwritten characters of 3,400 writers, from TFF's file `emnist_all.sqlite`.

S. Caldas et al., "LEAF: A Benchmark for Federated Settings", arXiv 1812.01097. 28x28x1, background
1.0, ink 0.0; 671,585 training and 77,483 test examples.
"""

from __future__ import annotations

import os

import tensorflow as tf
import tensorflow_federated as tff

from tff_autoprune.data.federated_data import DataSpec, FederatedData
from tff_autoprune.data.label_names import CHARACTERS
from tff_autoprune.data.loader import Request
from tff_autoprune.data.sources.sql_client_data import (
    ExampleReader,
    SqlClientData,
    SqlSplit,
    find_file,
    read_sizes,
)
from tff_autoprune.data.splits import split_source

FILE_NAME = "emnist_all.sqlite"
_SIDE = 28
_READER = ExampleReader(
    to_image=lambda example: example["pixels"][..., tf.newaxis],
    to_label=lambda example: example["label"],
)


def load(request: Request) -> FederatedData:
    """Opens the user's copy of TFF's file.

    Args:
      request: Its option `split` is "clients" (whole writers are held out; a writer's training and
        test examples are put together) or "examples" (the source's own: all writers train; the test
        examples of one half of them are for validation, those of the other half for the test).
        `only_digits` leaves the letters out.

    Raises:
      UserError: If the file is missing or damaged, or has too few writers to hold some out.
    """
    options = request.options
    folder = find_file("femnist", FILE_NAME, request.path, request.cache_dir)
    file = os.path.join(folder, FILE_NAME)
    prefix = "digits_only" if options["only_digits"] else "all"
    names = (f"{prefix}_train", f"{prefix}_test")
    sizes = read_sizes(file, names)
    sources = tff.simulation.datasets.emnist.load_data(options["only_digits"], cache_dir=folder)
    spec = DataSpec.build(
        "femnist",
        source_shape=(_SIDE, _SIDE, 1),
        label_names=tuple(CHARACTERS[:10] if options["only_digits"] else CHARACTERS),
        pixels=request.pixels,
        held_out=options["split"],
    )
    train, test = (
        SqlSplit(file, source, sizes[name], _READER) for source, name in zip(sources, names)
    )
    plan = split_source(
        list(sizes[names[0]]),
        list(sizes[names[1]]),
        by=options["split"],
        validation_fraction=options["validation_fraction"],
        test_fraction=options["test_fraction"],
        seed=request.seed,
        source=file,
    )
    parts = {"train": [train], "test": [test], "both": [train, test]}
    return FederatedData(
        *(SqlClientData(file, parts[part.of], part.client_ids, spec) for part in plan),
        spec=spec,
    )

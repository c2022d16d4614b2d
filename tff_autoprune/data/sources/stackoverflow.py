"""Stack Overflow: sentences of its users, from TFF's file; the next word is the label.

The file `stackoverflow.sqlite` (342,477 users train, 38,758 are held out), and, if it lies beside,
`stackoverflow.word_count`: a word and its count in each line, which decides the vocabulary.
"""

from __future__ import annotations

import collections
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tff_autoprune.data import vocabulary
from tff_autoprune.data.client_data import Arrays, ExampleClientData
from tff_autoprune.data.federated_data import DataSpec, FederatedData, PixelOptions
from tff_autoprune.data.loader import Request
from tff_autoprune.data.sources import sql_texts
from tff_autoprune.data.sources.sql_client_data import find_file, read_sizes
from tff_autoprune.data.splits import split_source
from tff_autoprune.errors import UserError

_FILE, _COUNTS = "stackoverflow.sqlite", "stackoverflow.word_count"
# Without the file of counts: how many training clients the words are counted on.
_COUNTED_CLIENTS = 100
_KEPT_CLIENTS = 1000


def load(request: Request) -> FederatedData:
    """Opens the user's copy of TFF's file; clients are read when they are needed.

    Args:
      request: Its option `words` is how many words are told apart, `length` how many of a sentence
        are read.

    Raises:
      UserError: If the file is missing or damaged.
    """
    if not request.pixels.identity:
        raise UserError("data.name: `stackoverflow` has no pixels to invert, crop or resize.")
    options = request.options
    folder = find_file("stackoverflow", _FILE, request.path, request.cache_dir)
    file = os.path.join(folder, _FILE)
    sizes = read_sizes(file, ("train", "heldout"))
    known = _vocabulary(
        file, pathlib.Path(folder) / _COUNTS, list(sizes["train"]), options["words"]
    )
    plan = split_source(
        list(sizes["train"]),
        list(sizes["heldout"]),
        by="clients",
        validation_fraction=options["validation_fraction"],
        test_fraction=options["test_fraction"],
        seed=request.seed,
        source=file,
    )
    spec = DataSpec(
        name="stackoverflow",
        image_shape=(options["length"],),
        source_shape=(options["length"],),
        num_classes=len(known),
        label_names=known.names,
        pixels=PixelOptions(),
        dtype="int32",
        ignored_label=vocabulary.PADDING,
    )
    parts = [
        SentenceClientData(
            file,
            {client: sizes[split][client] for client in part.client_ids},
            split,
            known,
            options["length"],
        )
        for part, split in zip(plan, ("train", "heldout", "heldout"))
    ]
    return FederatedData(*parts, spec=spec)


class SentenceClientData(ExampleClientData):
    """Clients whose examples are the beginnings of their sentences."""

    def __init__(
        self,
        file: str,
        sizes: Mapping[str, int],
        split: str,
        known: vocabulary.Vocabulary,
        length: int,
    ) -> None:
        """Reads nothing yet.

        Args:
          file: The database.
          sizes: The number of sentences of each client.
          split: The clients' split in the database.
          known: The words.
          length: How many words of a sentence are read.
        """
        self._file, self._sizes, self._split = file, dict(sizes), split
        self._known, self._length = known, length
        self._kept: collections.OrderedDict[str, Arrays] = collections.OrderedDict()

    @property
    def client_ids(self) -> list[str]:
        """The clients' names."""
        return list(self._sizes)

    @property
    def element_type_structure(self) -> Any:
        """The type of an example: words and next words, int32 [length] each."""
        spec = tf.TensorSpec((self._length,), tf.int32)
        return spec, spec

    def client_sizes(self) -> dict[str, int]:
        """Returns the number of sentences of each client."""
        return dict(self._sizes)

    def client_arrays(self, client_id: str) -> Arrays:
        """Returns a client's words and next words, int32 [n, length] each."""
        if client_id not in self._sizes:
            raise ValueError(f"{client_id!r} is not a client of this data set; see `client_ids`.")
        if client_id not in self._kept:
            texts = sql_texts.read_client(self._file, self._split, client_id, "tokens")
            cut = [vocabulary.sentence(self._known.encode(t.split()), self._length) for t in texts]
            inputs, labels = (np.stack(parts) for parts in zip(*cut))
            self._kept[client_id] = (inputs, labels)
            while len(self._kept) > _KEPT_CLIENTS:
                self._kept.popitem(last=False)
        return self._kept[client_id]

    def create_tf_dataset_for_client(self, client_id: str) -> tf.data.Dataset:
        """Returns a client's examples."""
        return tf.data.Dataset.from_tensor_slices(self.client_arrays(client_id))

    @property
    def serializable_dataset_fn(self) -> Any:
        """A function from a client's name (a tensor) to its dataset, within this process only."""
        spec = self.element_type_structure

        def read(name: bytes) -> tuple[np.ndarray, ...]:
            return self.client_arrays(name.decode())

        def dataset_fn(client_id: Any) -> tf.data.Dataset:
            inputs, labels = tf.numpy_function(read, [client_id], [one.dtype for one in spec])
            inputs, labels = (
                tf.ensure_shape(array, (None, *one.shape))
                for array, one in zip((inputs, labels), spec)
            )
            return tf.data.Dataset.from_tensor_slices((inputs, labels))

        return dataset_fn


def _vocabulary(
    file: str, counts: pathlib.Path, client_ids: Sequence[str], words: int
) -> vocabulary.Vocabulary:
    """Returns the most frequent words, in the order of their frequency."""
    if counts.is_file():
        lines = counts.read_text(encoding="utf-8").splitlines()
        return vocabulary.Vocabulary([line.split()[0] for line in lines[:words] if line.split()])
    found: collections.Counter[str] = collections.Counter()
    chosen = np.linspace(0, len(client_ids) - 1, min(_COUNTED_CLIENTS, len(client_ids)))
    for index in chosen.astype(int):
        for text in sql_texts.read_client(file, "train", client_ids[index], "tokens"):
            found.update(text.split())
    ranked = sorted(found, key=lambda word: (-found[word], word))
    return vocabulary.Vocabulary(ranked[:words])

"""A `ClientData` over the SQLite files that TFF publishes, read client by client.

TFF's own loaders make the datasets; this module finds and checks the file, turns TFF's examples
into (image, label), checks the values of each client when it is first read, and keeps what was
read lately, as bytes, so that a client that trains again costs nothing.
"""

from __future__ import annotations

import collections
import contextlib
import logging
import pathlib
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple, Optional, Union

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

from tff_autoprune.data import cache
from tff_autoprune.data.array_client_data import ArrayClientData
from tff_autoprune.data.client_data import ExampleClientData
from tff_autoprune.data.examples import as_bytes, check_images, check_labels
from tff_autoprune.data.federated_data import DataSpec
from tff_autoprune.errors import UserError

# More than any client has; all are read at once.
_MAX_EXAMPLES = 2**24
# What was read lately is kept up to this many bytes; all of FEMNIST fits in.
_KEPT_BYTES = 2**30
_COLUMNS = {
    "examples": {"split_name", "client_id", "serialized_example_proto"},
    "client_metadata": {"client_id", "split_name", "num_examples"},
}


class ExampleReader(NamedTuple):
    """How TFF's examples of one data set become (image, label).

    Attributes:
      to_image: From TFF's dictionary to the raw image, float32 [h, w, c] in [0, 1]; traceable.
      to_label: From TFF's dictionary to the label, int32 []; traceable.
    """

    to_image: Callable[[Mapping[str, tf.Tensor]], tf.Tensor]
    to_label: Callable[[Mapping[str, tf.Tensor]], tf.Tensor]


def find_file(name: str, file_name: str, path: Optional[str], cache_dir: Optional[str]) -> str:
    """Returns the folder that holds the user's copy of TFF's file.

    Args:
      name: The data set's name.
      file_name: What TFF calls the file.
      path: The file or its folder; None to look in the cache folder and in ~/.tff.
      cache_dir: The cache folder, see `cache.folder`.

    Raises:
      UserError: If it is not there. Nothing is ever downloaded.
    """
    if path is not None:
        given = pathlib.Path(path).expanduser()
        folders = [given.parent if given.name == file_name else given]
    else:
        folders = [cache.folder(cache_dir), pathlib.Path("~/.tff").expanduser()]
    for folder in folders:
        if (folder / file_name).is_file():
            return str(folder)
    for folder in folders:
        if (folder / f"{file_name}.lzma").is_file():
            raise UserError(
                f"data.path: {folder / file_name}.lzma is still compressed; unpack it with"
                f" `xz --decompress --format=lzma {folder / file_name}.lzma`."
            )
    places = " or ".join(str(folder) for folder in folders)
    raise UserError(
        f"data.path: `{name}` needs TFF's file {file_name}, which is not in {places}; put it there"
        " or name its folder with data.path (it is not downloaded)."
    )


@contextlib.contextmanager
def _reading(file: str) -> Iterator[sqlite3.Connection]:
    """Yields a connection that cannot change the file; database errors name the file."""
    try:
        uri = pathlib.Path(file).resolve().as_uri() + "?mode=ro"
        with contextlib.closing(sqlite3.connect(uri, uri=True)) as connection:
            yield connection
    except sqlite3.Error as error:
        raise UserError(f"{file}: expected a SQLite database of TFF, found: {error}.") from error


def read_sizes(file: str, splits: Sequence[str]) -> dict[str, dict[str, int]]:
    """Returns the number of examples of each client in each of the source's splits.

    Clients without examples are left out; how many is logged.

    Args:
      file: The database.
      splits: The splits that are needed.

    Raises:
      UserError: If the file is no database, or lacks a table, a column or a split.
    """
    with _reading(file) as connection:
        for table, expected in _COLUMNS.items():
            found = {row[1] for row in connection.execute(f"PRAGMA table_info({table})")}
            if not found:
                raise UserError(f"{file}: table `{table}` is missing.")
            if expected - found:
                missing = ", ".join(sorted(expected - found))
                raise UserError(f"{file}: table `{table}` lacks the column {missing}.")
        rows = connection.execute(
            "SELECT split_name, client_id, num_examples FROM client_metadata"
        ).fetchall()
    sizes: dict[str, dict[str, int]] = {split: {} for split in splits}
    empty = 0
    for split, client_id, size in rows:
        if split not in sizes:
            continue
        if not isinstance(size, int) or size < 0:
            raise UserError(
                f"{file}: client {client_id!r}: num_examples must be a count, found {size!r}."
            )
        if size == 0:
            empty += 1
        else:
            sizes[split][str(client_id)] = size
    for split in splits:
        if not sizes[split]:
            present = ", ".join(sorted({str(row[0]) for row in rows})) or "none"
            raise UserError(
                f"{file}: no client has examples in split {split!r}; splits found: {present}."
            )
    if empty:
        logging.warning("%s: %d clients without examples were skipped.", file, empty)
    return sizes


class SqlSplit:
    """One of the source's splits: TFF's `ClientData`, its examples turned into (image, label)."""

    def __init__(
        self,
        file: str,
        source: tff.simulation.datasets.ClientData,
        sizes: Mapping[str, int],
        reader: ExampleReader,
        prefix: str = "",
    ) -> None:
        """Reads nothing yet.

        Args:
          file: The database; for messages.
          source: What TFF's loader returned for this split.
          sizes: The number of examples of each client that has some.
          reader: From TFF's examples to images and labels.
          prefix: Put before the clients' names, where other clients have the same.
        """
        self.sizes = {prefix + client_id: size for client_id, size in sizes.items()}
        self._prefix = prefix
        self._file = file
        self._source = source
        self._reader = reader
        # Traced once for all clients: making TFF's pipeline anew for each costs 0.1 s and more.
        self._read_all = tf.function(
            lambda client_id: self.dataset(client_id).batch(_MAX_EXAMPLES).get_single_element(),
            input_signature=[tf.TensorSpec((), tf.string)],
        )

    def dataset(self, client_id: Union[str, tf.Tensor]) -> tf.data.Dataset:
        """Returns a client's raw images and labels, as a pipeline that reads the file."""
        client_id = tf.strings.substr(client_id, len(self._prefix), -1)
        return self._source.serializable_dataset_fn(client_id).map(
            lambda example: (self._reader.to_image(example), self._reader.to_label(example))
        )

    def read(self, client_id: str) -> tuple[np.ndarray, np.ndarray]:
        """Returns a client's raw images, float32 [n, h, w, c], and labels, int32 [n].

        Raises:
          UserError: If they cannot be read, or are not as many as the metadata says.
        """
        where = f"{self._file}: client {client_id!r}"
        try:
            images, labels = self._read_all(tf.constant(client_id))
        except tf.errors.OpError as error:
            reason = " ".join(str(error.message).split())[:200]
            raise UserError(f"{where}: cannot read its examples: {reason}") from error
        except UnicodeDecodeError as error:
            # TensorFlow quotes a broken example in its message, and then cannot decode the message.
            raise UserError(f"{where}: an example is not a tf.train.Example.") from error
        if len(labels) != self.sizes[client_id]:
            raise UserError(
                f"{where}: expected the {self.sizes[client_id]} examples that client_metadata tells"
                f" of, found {len(labels)}."
            )
        return images.numpy(), labels.numpy()


class SqlClientData(ExampleClientData):
    """Clients of one or more splits of a TFF database; a client has its examples of all of them."""

    def __init__(
        self, file: str, splits: Sequence[SqlSplit], client_ids: Sequence[str], spec: DataSpec
    ) -> None:
        """Reads nothing yet.

        Args:
          file: The database; for messages.
          splits: The source's splits whose examples the clients have.
          client_ids: The clients to have, each in at least one of the splits.
          spec: What the examples are.
        """
        self._file = file
        self._splits = list(splits)
        self._spec = spec
        self._sizes = {
            client_id: sum(split.sizes.get(client_id, 0) for split in self._splits)
            for client_id in client_ids
        }
        self._kept: collections.OrderedDict[str, ArrayClientData] = collections.OrderedDict()

    @property
    def client_ids(self) -> list[str]:
        """The clients' names."""
        return list(self._sizes)

    @property
    def element_type_structure(self) -> tuple[tf.TensorSpec, tf.TensorSpec]:
        """The type of an example: (image float32 [h, w, c], label int32 [])."""
        return (tf.TensorSpec(self._spec.image_shape, tf.float32), tf.TensorSpec((), tf.int32))

    def client_sizes(self) -> dict[str, int]:
        """Returns the number of examples of each client, as the database's metadata has it."""
        return dict(self._sizes)

    def client_labels(self, client_id: str) -> np.ndarray:
        """Returns a client's labels, int32 [n]."""
        return self._client(client_id).client_labels(client_id)

    def client_arrays(self, client_id: str) -> tuple[np.ndarray, np.ndarray]:
        """Returns a client's examples: images float32 [n, h, w, c] in [0, 1], labels int32 [n]."""
        return self._client(client_id).client_arrays(client_id)

    def create_tf_dataset_for_client(self, client_id: str) -> tf.data.Dataset:
        """Returns a client's examples, whose values have been checked.

        Raises:
          UserError: If they cannot be read, or a pixel or label is not allowed.
        """
        return self._client(client_id).create_tf_dataset_for_client(client_id)

    @property
    def serializable_dataset_fn(self):
        """A function from a client's name (a tensor) to its dataset, for use inside a graph.

        It reads the file each time and checks nothing.
        """

        def dataset_fn(client_id: Union[str, tf.Tensor]) -> tf.data.Dataset:
            dataset = self._splits[0].dataset(client_id)
            for split in self._splits[1:]:
                dataset = dataset.concatenate(split.dataset(client_id))
            return dataset.map(lambda image, label: (self._spec.apply(image), label))

        return dataset_fn

    def _client(self, client_id: str) -> ArrayClientData:
        """Returns one client in memory, read now or lately."""
        if client_id not in self._sizes:
            raise ValueError(f"{client_id!r} is not a client of this data set; see `client_ids`.")
        if client_id in self._kept:
            self._kept.move_to_end(client_id)
            return self._kept[client_id]
        read = [split.read(client_id) for split in self._splits if client_id in split.sizes]
        images, labels = (np.concatenate(arrays) for arrays in zip(*read))
        where = f"{self._file}: client {client_id!r}"
        check_labels(labels, self._spec.num_classes, where)
        check_images(images, where)
        client = ArrayClientData(
            [client_id],
            np.asarray([0, len(labels)]),
            as_bytes(images),
            labels,
            self._spec.pixels,
        )
        self._kept[client_id] = client
        while sum(kept.inputs.nbytes for kept in self._kept.values()) > _KEPT_BYTES:
            self._kept.popitem(last=False)
        return client

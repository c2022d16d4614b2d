"""Clients whose examples can be had as arrays: what training, statistics and export read.

    a ClientData, {client: tf.data.Dataset}, {client: (inputs, labels)} ──as_examples──> arrays

TFF's own `ClientData` only gives `tf.data` pipelines, which cost more than a small client's round.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping
from typing import Any, Optional, Union

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

from tff_autoprune.errors import UserError

#: (inputs, labels) or (inputs, labels, weights); each an array with an axis of examples first, or a
#: tuple or dict of such arrays where a model has several inputs or outputs.
Arrays = tuple[Any, ...]

# Examples of a client that are read at a time.
_READ_BATCH = 4096
_KEYS = (("x", "y"), ("inputs", "labels"), ("image", "label"), ("pixels", "label"))


class ExampleClientData(tff.simulation.datasets.ClientData, abc.ABC):
    """A `ClientData` that also gives a client's examples as arrays.

    To bring a source of your own, subclass it; any other `ClientData` is read through `tf.data`.
    """

    @abc.abstractmethod
    def client_arrays(self, client_id: str) -> Arrays:
        """Returns all examples of a client: inputs, labels and, if there are any, weights."""

    @abc.abstractmethod
    def client_sizes(self) -> dict[str, int]:
        """Returns the number of examples of each client, without reading them if possible."""

    def client_labels(self, client_id: str) -> Any:
        """Returns a client's labels."""
        return self.client_arrays(client_id)[1]

    @property
    def labels_in_memory(self) -> bool:
        """Whether labels can be had without reading a file."""
        return False


def as_examples(
    source: Union[tff.simulation.datasets.ClientData, Mapping[str, Any]],
) -> ExampleClientData:
    """Returns clients whose examples can be had as arrays.

    Args:
      source: A `ClientData`; or a `tf.data.Dataset` of examples or batches for each client; or its
        arrays, (inputs, labels). Examples are tuples (inputs, labels[, weights]) or dicts with the
        keys x and y (or image and label).

    Raises:
      UserError: If it is something else.
    """
    if isinstance(source, ExampleClientData):
        return source
    if isinstance(source, tff.simulation.datasets.ClientData):
        return _ReadClientData(source)
    if not isinstance(source, Mapping) or not source:
        raise UserError(
            "data: expected a tff.simulation.datasets.ClientData or a tf.data.Dataset for each"
            f" client, {{client: dataset}}; found {type(source).__name__}."
        )
    return _ReadClientData(
        tff.simulation.datasets.TestClientData(
            {str(client_id): _arrays_of(client_id, part) for client_id, part in source.items()}
        )
    )


class _ReadClientData(ExampleClientData):
    """Any other `ClientData`, read through its pipelines."""

    def __init__(self, source: tff.simulation.datasets.ClientData) -> None:
        self._source = source
        self._sizes: Optional[dict[str, int]] = None

    @property
    def client_ids(self) -> list[str]:
        return self._source.client_ids

    @property
    def element_type_structure(self) -> Any:
        return self._source.element_type_structure

    @property
    def serializable_dataset_fn(self) -> Any:
        return self._source.serializable_dataset_fn

    def create_tf_dataset_for_client(self, client_id: str) -> tf.data.Dataset:
        return self._source.create_tf_dataset_for_client(client_id)

    def client_arrays(self, client_id: str) -> Arrays:
        return _read(client_id, self.create_tf_dataset_for_client(client_id))

    def client_sizes(self) -> dict[str, int]:
        own = getattr(self._source, "client_sizes", None)
        if self._sizes is None:
            self._sizes = own() if own else {i: self._count(i) for i in self.client_ids}
        return dict(self._sizes)

    def _count(self, client_id: str) -> int:
        return sum(1 for _ in self._source.create_tf_dataset_for_client(client_id))


def parts_of_example(where: str, element: Any) -> tuple[Any, ...]:
    """Returns (inputs, labels[, weights]) of an example or batch, given as a tuple or a dict.

    Args:
      where: What to begin the message with.
      element: The example.

    Raises:
      UserError: If it is neither.
    """
    if isinstance(element, Mapping):
        keys = next((pair for pair in _KEYS if set(pair) <= set(element)), None)
        if keys is None:
            raise UserError(
                f"{where}: expected examples (inputs, labels), or dicts with x and y, found the"
                f" keys {', '.join(map(str, element))}."
            )
        weights = [element[key] for key in ("sample_weight", "weight") if key in element]
        return (element[keys[0]], element[keys[1]], *weights[:1])
    if isinstance(element, (tuple, list)) and len(element) in (2, 3):
        return tuple(element)
    raise UserError(
        f"{where}: expected examples (inputs, labels), found"
        f" {len(element) if isinstance(element, (tuple, list)) else type(element).__name__}"
        f"{' parts' if isinstance(element, (tuple, list)) else ''}."
    )


def _read(client_id: object, dataset: tf.data.Dataset) -> Arrays:
    where = f"data: client {client_id}"
    parts_of_example(where, dataset.element_spec)
    batches = list(dataset.batch(_READ_BATCH).as_numpy_iterator())
    if not batches:
        raise UserError(f"{where} has no examples.")
    parts = [parts_of_example(where, batch) for batch in batches]
    return _canonical(tf.nest.map_structure(lambda *arrays: np.concatenate(arrays), *parts))


def _canonical(arrays: Arrays) -> Arrays:
    """Returns arrays of the types that models take: float32 and int32."""

    def narrow(array: np.ndarray) -> np.ndarray:
        if array.dtype == np.float64:
            return array.astype(np.float32)
        if array.dtype == np.int64 or array.dtype == np.bool_:
            return array.astype(np.int32)
        return array

    return tf.nest.map_structure(narrow, arrays)


def _arrays_of(client_id: object, part: Any) -> Arrays:
    where = f"data: client {client_id}"
    if isinstance(part, tf.data.Dataset):
        leading = tf.nest.flatten(part.element_spec)
        if all(spec.shape.rank and spec.shape[0] is None for spec in leading):
            part = part.unbatch()
        return _read(client_id, part)
    arrays = tf.nest.map_structure(np.asarray, parts_of_example(where, part))
    sizes = {len(array) if array.ndim else 0 for array in tf.nest.flatten(arrays)}
    if len(sizes) != 1 or not all(sizes):
        raise UserError(
            f"{where}: expected arrays of as many examples each, at least one, found"
            f" {', '.join(map(str, sorted(sizes)))}."
        )
    return _canonical(arrays)

"""A `ClientData` whose examples lie in memory, as bytes, in one array for all clients.

A client's examples are a slice of that array, so making its dataset costs one small copy, and a
set of 3,400 clients of 28x28 pixels takes a few hundred megabytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Optional, Union

import numpy as np
import tensorflow as tf

from tff_autoprune.data.client_data import ExampleClientData
from tff_autoprune.data.federated_data import PixelOptions

# A graph that holds more than this cannot be serialized as a protocol buffer.
_MAX_GRAPH_BYTES = 2**31 - 2**24


class ArrayClientData(ExampleClientData):
    """Clients whose examples are slices of arrays in memory.

    Attributes:
      inputs: Images, uint8 (0 to 255) or float32 (0 to 1), [n, h, w, c], before the pixel options;
        or anything else, float32 or int32, [n, ...].
      labels: int32 or float32, [n, ...].
      pixels: Applied to every image on its way out.
    """

    def __init__(
        self,
        client_ids: Sequence[str],
        offsets: np.ndarray,
        inputs: np.ndarray,
        labels: np.ndarray,
        pixels: Optional[PixelOptions] = None,
    ) -> None:
        """Wraps the arrays; copies nothing.

        Args:
          client_ids: A name for each client.
          offsets: int64 [clients + 1]; client i has the examples offsets[i] to offsets[i + 1].
          inputs: As the attribute.
          labels: Integers or floats, [n, ...].
          pixels: What to do to every image; None for nothing.

        Raises:
          ValueError: If the arrays do not fit each other.
        """
        pixels = pixels or PixelOptions()
        images = inputs.ndim == 4 and inputs.dtype in (np.uint8, np.float32)
        others = pixels.identity and inputs.ndim > 1 and inputs.dtype in (np.float32, np.int32)
        if not images and not others:
            raise ValueError(
                "`inputs` must be images, uint8 or float32 [n, h, w, c], or float32 or int32"
                f" [n, ...] without pixel options, found {inputs.dtype} {list(inputs.shape)}."
            )
        offsets = np.asarray(offsets, np.int64)
        if len(offsets) != len(client_ids) + 1 or not client_ids or (np.diff(offsets) < 0).any():
            raise ValueError("`offsets` must rise and be one longer than `client_ids`.")
        if len(inputs) != len(labels) or offsets[0] < 0 or offsets[-1] > len(inputs):
            raise ValueError("`inputs`, `labels` and `offsets` must be of the same length.")
        self.inputs = inputs
        labels = np.asarray(labels)
        self.labels = labels.astype(np.float32 if labels.dtype.kind == "f" else np.int32)
        self.pixels = pixels
        self._client_ids = list(client_ids)
        self._offsets = offsets
        self._positions = {client_id: i for i, client_id in enumerate(self._client_ids)}
        if len(self._positions) != len(self._client_ids):
            raise ValueError("`client_ids` must be unique.")
        shape = tuple(inputs.shape[1:])
        if images:
            shape = pixels.output_shape(shape)
        self._element_type_structure = (
            tf.TensorSpec(shape, tf.int32 if inputs.dtype == np.int32 else tf.float32),
            tf.TensorSpec(self.labels.shape[1:], tf.as_dtype(self.labels.dtype)),
        )

    @property
    def client_ids(self) -> list[str]:
        """The clients' names."""
        return self._client_ids

    @property
    def element_type_structure(self) -> tuple[tf.TensorSpec, tf.TensorSpec]:
        """The type of an example, for images (float32 [h, w, c], int32 [])."""
        return self._element_type_structure

    def select(self, client_ids: Sequence[str]) -> ArrayClientData:
        """Returns these clients alone; the arrays are copied, so that the others' can be freed."""
        slices = [self._slice(client_id) for client_id in client_ids]
        return ArrayClientData(
            client_ids,
            np.concatenate([[0], np.cumsum([where.stop - where.start for where in slices])]),
            np.concatenate([self.inputs[where] for where in slices]),
            np.concatenate([self.labels[where] for where in slices]),
            self.pixels,
        )

    def client_sizes(self) -> dict[str, int]:
        """Returns the number of examples of each client."""
        return dict(zip(self._client_ids, np.diff(self._offsets).tolist()))

    def client_labels(self, client_id: str) -> np.ndarray:
        """Returns a client's labels, [n, ...]."""
        return self.labels[self._slice(client_id)]

    def client_arrays(self, client_id: str) -> tuple[np.ndarray, np.ndarray]:
        """Returns a client's examples, images as float32 in [0, 1]."""
        inputs, labels = self._examples(client_id)
        return inputs.numpy(), labels

    @property
    def labels_in_memory(self) -> bool:
        """Yes."""
        return True

    def create_tf_dataset_for_client(self, client_id: str) -> tf.data.Dataset:
        """Returns a client's examples, in the order in which the client made them."""
        # All at once, before slicing: a map over single examples would cost three times as much.
        return tf.data.Dataset.from_tensor_slices(self._examples(client_id))

    def create_tf_dataset_from_all_clients(
        self, seed: Optional[Union[int, Sequence[int]]] = None
    ) -> tf.data.Dataset:
        """Returns all examples, client after client, the clients in an order drawn from `seed`."""
        order = np.random.RandomState(seed).permutation(len(self._client_ids))
        rows = np.concatenate([np.arange(*self._offsets[i : i + 2]) for i in order])
        return self._dataset(self.inputs[rows], self.labels[rows])

    @property
    def serializable_dataset_fn(self):
        """A function from a client's name (a tensor) to its dataset, for use inside a graph.

        The graph holds the data of all clients, so that it can be sent to another process.
        """
        if self.inputs.nbytes > _MAX_GRAPH_BYTES:
            raise ValueError(
                f"A graph cannot hold {self.inputs.nbytes} bytes of examples; use"
                " `create_tf_dataset_for_client`."
            )

        def dataset_fn(client_id: Union[str, tf.Tensor]) -> tf.data.Dataset:
            client_id = tf.convert_to_tensor(client_id, tf.string)
            known = tf.equal(tf.constant(self._client_ids), client_id)
            check = tf.debugging.Assert(tf.reduce_any(known), ["Unknown client:", client_id])
            with tf.control_dependencies([check] if check is not None else []):
                position = tf.argmax(known)
            offsets = tf.constant(self._offsets)
            start, stop = offsets[position], offsets[position + 1]
            return self._dataset(
                tf.constant(self.inputs)[start:stop], tf.constant(self.labels)[start:stop]
            )

        return dataset_fn

    def _slice(self, client_id: str) -> slice:
        if client_id not in self._positions:
            raise ValueError(f"{client_id!r} is not a client of this data set; see `client_ids`.")
        position = self._positions[client_id]
        return slice(int(self._offsets[position]), int(self._offsets[position + 1]))

    def _examples(self, client_id: str) -> tuple[tf.Tensor, np.ndarray]:
        where = self._slice(client_id)
        return self._decode(self.inputs[where]), self.labels[where]

    def _decode(self, inputs: Union[np.ndarray, tf.Tensor]) -> tf.Tensor:
        """Turns what is stored into what an example holds."""
        inputs = tf.convert_to_tensor(inputs)
        if inputs.dtype == tf.uint8:
            inputs = tf.cast(inputs, tf.float32) / 255.0
        return self.pixels.apply(inputs)

    def _dataset(self, inputs: Union[np.ndarray, tf.Tensor], labels: object) -> tf.data.Dataset:
        """Returns examples whose floats are made one by one, when they are read."""
        dataset = tf.data.Dataset.from_tensor_slices((inputs, labels))
        return dataset.map(lambda one, label: (self._decode(one), label))


def from_clients(
    clients: Sequence[tuple[str, np.ndarray, np.ndarray]], pixels: Optional[PixelOptions] = None
) -> ArrayClientData:
    """Lays the arrays of separate clients one after the other.

    Args:
      clients: (name, inputs [n, ...], labels [n, ...]) for each client, at least one.
      pixels: What to do to every image.
    """
    sizes = [len(labels) for _, _, labels in clients]
    return ArrayClientData(
        client_ids=[name for name, _, _ in clients],
        offsets=np.concatenate([[0], np.cumsum(sizes)]),
        inputs=np.concatenate([inputs for _, inputs, _ in clients]),
        labels=np.concatenate([labels for _, _, labels in clients]),
        pixels=pixels,
    )

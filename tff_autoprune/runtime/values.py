"""How values look while a computation runs.

| TFF type | representation |
|---|---|
| tensor | NumPy array or eager `tf.Tensor` |
| sequence | `tf.data.Dataset` |
| structure | tuple, in the order of the type's elements |
| function | callable of one argument (None if it takes none) |
| T@SERVER | `AtServer` |
| T@CLIENTS | `AtClients` |
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff
from tensorflow_federated.python.common_libs import structure
from tensorflow_federated.python.core.impl.utils import tensorflow_utils


@dataclasses.dataclass(frozen=True)
class AtServer:
    """A value placed at the server."""

    value: Any


@dataclasses.dataclass(frozen=True)
class AtClients:
    """A value at each client, in the order of the cohort."""

    values: tuple[Any, ...]


def embed(value: Any, type_spec: tff.Type, num_clients: int) -> Any:
    """Turns an argument of a computation into its representation.

    Args:
      value: What the caller gave, as TFF's contexts take it.
      type_spec: Its type.
      num_clients: Clients in the cohort.

    Returns:
      The representation.

    Raises:
      TypeError: If the value is not of the type.
    """
    if isinstance(type_spec, tff.TensorType):
        return _embed_tensor(value, type_spec)
    if isinstance(type_spec, tff.SequenceType):
        return _embed_sequence(value, type_spec)
    if isinstance(type_spec, tff.StructType):
        elements = structure.to_elements(structure.from_container(value))
        if len(elements) != len(type_spec):
            raise TypeError(f"Expected {len(type_spec)} elements, found {len(elements)}.")
        types = structure.to_elements(type_spec)
        for (name, _), (wanted, _) in zip(elements, types):
            if name not in (wanted, None):
                raise TypeError(f"Expected an element named {wanted!r}, found {name!r}.")
        return tuple(embed(v, t, num_clients) for (_, v), (_, t) in zip(elements, types))
    if isinstance(type_spec, tff.FederatedType):
        return _embed_federated(value, type_spec, num_clients)
    raise TypeError(f"A value of type {type_spec} cannot be an argument.")


def _embed_tensor(value: Any, type_spec: tff.TensorType) -> Any:
    array = value if isinstance(value, tf.Tensor) else np.asarray(value)
    if array.dtype != type_spec.dtype:
        exact = isinstance(value, (int, float, bool, str, bytes, list, tuple))
        if not exact:
            raise TypeError(f"Expected {type_spec}, found {array.dtype}{list(array.shape)}.")
        array = np.asarray(value, object if type_spec.dtype.type is np.str_ else type_spec.dtype)
    wanted = type_spec.shape
    if wanted is not None and not tf.TensorShape(wanted).is_compatible_with(array.shape):
        raise TypeError(f"Expected {type_spec}, found {array.dtype}{list(array.shape)}.")
    return array


def _embed_sequence(value: Any, type_spec: tff.SequenceType) -> tf.data.Dataset:
    if isinstance(value, list):
        value = tensorflow_utils.make_data_set_from_elements(None, value, type_spec.element)
    if not isinstance(value, tf.data.Dataset):
        raise TypeError(f"Expected a tf.data.Dataset of {type_spec}, found {type(value)}.")
    found = tff.SequenceType(tff.types.tensorflow_to_type(value.element_spec))
    type_spec.check_assignable_from(found)
    return value


def _embed_federated(value: Any, type_spec: tff.FederatedType, num_clients: int) -> Any:
    if type_spec.placement is tff.SERVER:
        return AtServer(embed(value, type_spec.member, num_clients))
    if type_spec.all_equal:
        return AtClients((embed(value, type_spec.member, num_clients),) * num_clients)
    if not isinstance(value, Sequence):
        raise TypeError(f"Expected one value for each client, found {type(value)}.")
    return AtClients(tuple(embed(v, type_spec.member, num_clients) for v in value))


def extract(value: Any, type_spec: tff.Type) -> Any:
    """Turns a representation into what TFF's contexts return.

    Args:
      value: The representation.
      type_spec: Its type.

    Returns:
      NumPy arrays, data sets, lists over clients and `tff` structures of them.
    """
    if isinstance(type_spec, tff.TensorType):
        return value.numpy() if isinstance(value, tf.Tensor) else value
    if isinstance(type_spec, tff.StructType):
        types = structure.to_elements(type_spec)
        return structure.Struct([(n, extract(v, t)) for v, (n, t) in zip(value, types)])
    if isinstance(type_spec, tff.FederatedType):
        if isinstance(value, AtServer):
            return extract(value.value, type_spec.member)
        if type_spec.all_equal:
            return extract(value.values[0], type_spec.member)
        return [extract(v, type_spec.member) for v in value.values]
    return value

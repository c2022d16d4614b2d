"""A tensor of a model seen as positions that belong to channels.

A `TracedTensor` has the tensor's static shape (the batch axis included) and *factors*. A factor is
an array of channel numbers that broadcasts against the shape: size 1 along an axis means that the
channel does not depend on the position along that axis. The feature map of a convolution with 32
filters has the one factor of shape [1, 1, 1, 32]; flattened it has [1, 7 * 7 * 32], where every
channel occurs 49 times. A position of the tensor disappears when its channel in any factor does, so
that two factors stand for a tensor whose rows and columns can be removed independently.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, Optional

import numpy as np

from tff_autoprune.surgery.channels import NONE, Channels

Shape = tuple[Optional[int], ...]

#: Tells for an array of channel numbers which positions stay, bool of the same shape.
Kept = Callable[[np.ndarray], np.ndarray]


@dataclasses.dataclass(frozen=True, eq=False)
class TracedTensor:
    """Static shape and channels of a tensor.

    Attributes:
      shape: Sizes with the batch axis, None where unknown.
      factors: int64 arrays of the tensor's rank that broadcast against `shape`.
      dtype: Name of the element type.
      values: Of a small integer tensor the elements that do not depend on the input, such as sizes
        that are known before the model runs; None for each of the others. An object array of the
        tensor's shape, or None if nothing is known.
    """

    shape: Shape
    factors: tuple[np.ndarray, ...] = ()
    dtype: str = "float32"
    values: Optional[np.ndarray] = None

    @property
    def rank(self) -> int:
        """Number of axes, the batch axis included."""
        return len(self.shape)

    def axis(self, axis: int) -> int:
        """Returns `axis` counted from the front."""
        return axis % self.rank if self.rank else axis

    def with_factors(self, factors: Iterable[np.ndarray]) -> TracedTensor:
        """Returns the tensor with other factors."""
        return dataclasses.replace(self, factors=tuple(factors))


def varying(factor: np.ndarray) -> tuple[int, ...]:
    """Returns the axes along which the channel depends on the position."""
    return tuple(axis for axis, size in enumerate(factor.shape) if size > 1)


def compress(channels: Channels, factor: np.ndarray) -> Optional[np.ndarray]:
    """Returns `factor` with size 1 along every axis on which it is constant.

    Args:
      channels: Knows which channels have become one.
      factor: Channel numbers.

    Returns:
      The smaller array with representatives, or None if no position belongs to a channel.
    """
    factor = channels.find(factor)
    if factor.size == 0 or (factor == NONE).all():
        return None
    for axis in varying(factor):
        first = np.take(factor, [0], axis=axis)
        if (factor == first).all():
            factor = first
    return factor


def reshape(
    tensor: TracedTensor, factor: np.ndarray, shape: Sequence[Optional[int]]
) -> Optional[np.ndarray]:
    """Returns `factor` after the tensor took another shape, None where that cannot be told.

    Only the shortest run of trailing axes that holds the channels is looked at, so that unknown
    sizes in front of it (batch, image size) do no harm.
    """
    axes = varying(factor)
    if not axes:
        return factor.reshape([1] * len(shape))
    for start in range(axes[0], -1, -1):
        tail = tensor.shape[start:]
        if None in tail:
            return None
        size = int(np.prod(tail))
        for target in range(len(shape), -1, -1):
            new_tail = shape[target:]
            if None in new_tail or int(np.prod(new_tail)) > size:
                break
            if int(np.prod(new_tail)) == size:
                full = np.broadcast_to(factor.reshape(factor.shape[start:]), tail)
                return full.reshape([1] * target + list(new_tail))
    return None


def size_along(factors: Sequence[np.ndarray], axis: int, size: int, kept: Kept) -> int:
    """Returns how many places along an axis of a tensor stay."""
    mask = np.ones(size, bool)
    for factor in factors:
        # Removals are whole rows or columns: the first of each tells for all.
        line = kept(factor)
        for other in varying(factor):
            if other != axis:
                line = line.any(axis=other, keepdims=True)
        mask &= np.broadcast_to(line.reshape(-1), size) if axis in varying(factor) else True
    return int(mask.sum())


class SizeOf(NamedTuple):
    """A size that a computed number depends on.

    Attributes:
      tensor: The tensor.
      axis: Its axis.
      exact: Whether the number is this size, and not something computed from it.
    """

    tensor: TracedTensor
    axis: int
    exact: bool = True


@dataclasses.dataclass(frozen=True, eq=False)
class TracedSizes(TracedTensor):
    """A tensor that is computed from sizes of other tensors alone, such as `tf.shape(x)[1:3]`.

    Attributes:
      of: For each element the sizes it depends on: an object array of frozensets of `SizeOf` that
        has the tensor's shape, or shape () for all elements together.
    """

    of: np.ndarray = dataclasses.field(default_factory=lambda: object_array((), frozenset()))


def object_array(shape: Sequence[int], element: Any) -> np.ndarray:
    """Returns an object array with the same element everywhere."""
    array = np.empty(tuple(shape), object)
    for index in np.ndindex(array.shape):
        array[index] = element
    return array


def is_computed(value: Any) -> bool:
    """Returns whether an argument is only known when the model runs."""
    return isinstance(value, TracedTensor)


def numbers(value: Any) -> Optional[np.ndarray]:
    """Returns an integer argument of an operator as an object array.

    Args:
      value: A constant, a traced tensor, or a nested list of both.

    Returns:
      Integers, None for each that is only known when the model runs; None if not even the shape of
      the argument is known.
    """
    if isinstance(value, TracedTensor):
        if value.values is not None:
            return value.values
        return None if None in value.shape else object_array(value.shape, None)
    if isinstance(value, (list, tuple)):
        parts = [numbers(part) for part in value]
        if any(part is None for part in parts) or len({part.shape for part in parts}) > 1:
            return None
        return np.stack(parts) if parts else np.zeros(0, object)
    return np.asarray(value).astype(object)

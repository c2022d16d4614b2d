"""Lets the survivors stand in for the channels that go.

A layer that reads the channels is refitted by least squares: what it makes of the survivors x_K
shall be what it made of all of them,

    W_K <- W_K + A^T W_R,    A = argmin E |x_R - A^T x_K|^2  =  (G_KK + damping)^-1 G_KR,

where G is the matrix of second moments of what the layer reads. Clients measure it on held-out
examples; the server learns nothing but its mean over all clients. Near-copies merge into each other
as a special case, and the mean that a removed feature contributed is kept. The damping is the least
with which survivors take over no larger weights than those that go.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from tff_autoprune.surgery.groups import FilterGroup
from tff_autoprune.surgery.roles import Role

if TYPE_CHECKING:
    import tensorflow as tf

# By layer: x x^T summed over the places of an image, float [channels, channels]; of any scale.
Moments = Mapping[str, np.ndarray]

# Bounds of the damping, which is added to correlations (whose diagonal is 1). Without it, weights
# of nearly equal features grow, cancel each other, and are in the way of what is learned next.
_LEAST_DAMPING, _MOST_DAMPING = 1e-3, 1e3
_BISECTIONS = 40
# The same for ranking, as a share of the mean of the diagonal.
_RANKING_DAMPING = 0.02


@dataclasses.dataclass(frozen=True)
class Reader:
    """A layer whose inputs can be measured.

    Attributes:
      layer: Its name.
      position: The index of its kernel in `model.weights`.
      axis: The axis of the kernel that reads channels.
      places: Places of a channel on that axis, in the order (place, channel): 1, but for what reads
        the output of a Flatten.
    """

    layer: str
    position: int
    axis: int
    places: int


def readers(model: tf.keras.Model, groups: Sequence[FilterGroup]) -> list[Reader]:
    """Finds the convolutional and dense layers that read prunable channels.

    Left out are layers in a model within the model, layers that are called several times, and
    layers that do not read their inputs channel by channel.

    Args:
      model: A functional or sequential model.
      groups: Its groups.

    Returns:
      Each layer once, in the order of the groups.
    """
    import tensorflow as tf

    kinds = (tf.keras.layers.Dense, tf.keras.layers.Conv2D, tf.keras.layers.Conv1D)
    kernels = {
        id(layer.kernel): layer
        for layer in model.layers
        if isinstance(layer, kinds) and getattr(layer, "kernel", None) is not None
    }
    trainable = {id(weight) for weight in model.trainable_weights}
    found: dict[int, Reader] = {}
    for group in groups:
        for member in group.members:
            variable = model.weights[member.position]
            layer = kernels.get(id(variable))
            if not group.prunable or member.role != Role.CONSUMER or layer is None:
                continue
            fits = member.axis == len(variable.shape) - 2 and _reads(layer, member.size)
            if fits and id(variable) in trainable and member.position not in found:
                found[member.position] = Reader(
                    layer.name, member.position, member.axis, _places(layer)
                )
    return list(found.values())


def stand_ins(
    groups: Sequence[FilterGroup],
    found: Sequence[Reader],
    selection: Mapping[str, Sequence[int]],
    moments: Moments,
) -> dict[str, np.ndarray]:
    """Returns what readers of the channels that go shall read of those that stay.

    Args:
      groups: Groups of a model.
      found: Its `readers`.
      selection: Channels to remove by group name.
      moments: What the readers read.

    Returns:
      T by layer, float64 [channels, channels], such that rows W of the kernel become T W: the rows
      of those that stay, plus what they take over from those that go, whose rows become 0.
    """
    going: dict[int, list[np.ndarray]] = {}
    for group in groups:
        channels = np.asarray(selection.get(group.name, ()), np.int64)
        for member in group.members:
            if len(channels) and member.role == Role.CONSUMER:
                gone = member.positions[np.isin(member.channel_of, channels)]
                going.setdefault(member.position, []).append(gone)
    return {
        reader.layer: _refit(
            np.concatenate(going[reader.position]), np.asarray(moments[reader.layer], np.float64)
        )
        for reader in found
        if reader.position in going
    }


def compensate(
    found: Sequence[Reader], weights: Sequence[np.ndarray], mixes: Mapping[str, np.ndarray]
) -> list[np.ndarray]:
    """Refits what reads the channels that go to those that stay.

    Args:
      found: The `readers` of a model; others are left as they are.
      weights: Values of `model.weights`; not changed.
      mixes: From `stand_ins`.

    Returns:
      New values of `model.weights`, still of the shapes from before the removal.
    """
    weights = list(weights)
    for reader in found:
        if reader.layer in mixes:
            mix, kernel = mixes[reader.layer], weights[reader.position]
            # A dense layer behind a Flatten reads each place of the image in the same way.
            rows = kernel.reshape(-1, len(mix), kernel.shape[-1])
            new = np.einsum("ij,pjo->pio", mix, rows, optimize=True)
            weights[reader.position] = new.reshape(kernel.shape).astype(kernel.dtype)
    return weights


def unexplained(
    groups: Sequence[FilterGroup],
    found: Sequence[Reader],
    weights: Sequence[np.ndarray],
    moments: Moments,
) -> dict[str, np.ndarray]:
    """Returns how much of what readers compute hangs on each channel alone.

    What a channel adds to its readers' outputs that no mix of all the others can,

        |W_c|^2 E (x_c - best mix of the others)^2,

    as a share of the energy of the outputs, W^T G W.

    Args:
      groups: Groups of a model.
      found: Its `readers`.
      weights: Values of `model.weights`.
      moments: What the readers read.

    Returns:
      float64 [channels] by group name, for the groups that readers read; summed over these.
    """
    shares = {reader.position: _shares(reader, weights, moments) for reader in found}
    scores = {}
    for group in groups:
        members = [m for m in group.members if m.role == Role.CONSUMER and m.position in shares]
        total = np.zeros(group.channels)
        for member in members:
            # A reader behind a Flatten reads a channel in several places.
            share = shares[member.position]
            places = np.asarray(member.positions) % len(share)
            once = np.unique(np.stack([member.channel_of, places]), axis=1)
            np.add.at(total, once[0], share[once[1]])
        if members:
            scores[group.name] = total
    return scores


def _shares(reader: Reader, weights: Sequence[np.ndarray], moments: Moments) -> np.ndarray:
    """Returns `unexplained` of each channel that a reader reads, for that reader."""
    read = np.asarray(moments[reader.layer], np.float64)
    kernel = np.asarray(weights[reader.position], np.float64)
    rows = kernel.reshape(-1, len(read), kernel.shape[-1])
    damping = _RANKING_DAMPING * np.trace(read) / len(read) + np.finfo(np.float64).tiny
    # The diagonal of the inverse tells what is left of each feature when all others explain it.
    left = 1 / np.diag(np.linalg.inv(read + damping * np.eye(len(read)))) - damping
    energy = np.einsum("pio,ij,pjo->", rows, read, rows, optimize=True)
    lost = np.einsum("pio,pio->i", rows, rows) * np.maximum(left, 0.0)
    return lost / max(energy, np.finfo(np.float64).tiny)


def _refit(gone: np.ndarray, moments: np.ndarray) -> np.ndarray:
    channels = len(moments)
    removed = np.unique(gone % channels)
    kept = np.setdiff1d(np.arange(channels), removed)
    # All channels on one scale, on which what is taken over can be compared with what goes.
    scale = np.sqrt(np.maximum(np.diag(moments), 0.0))
    # (The square of the least scale must not vanish: a layer may read nothing but zeros.)
    scale = np.maximum(scale, 1e-6 * scale.max() + np.sqrt(np.finfo(np.float64).tiny))
    correlations = moments / np.outer(scale, scale)
    values, vectors = np.linalg.eigh(correlations[np.ix_(kept, kept)])
    values = np.maximum(values, 0.0)[:, None]
    shared = vectors.T @ correlations[np.ix_(kept, removed)]
    # One damping for each channel that goes, found by bisection of its logarithm.
    low = np.full(len(removed), _LEAST_DAMPING)
    high = np.full(len(removed), _MOST_DAMPING)
    for _ in range(_BISECTIONS):
        damping = np.sqrt(low * high)
        larger = np.linalg.norm(shared / (values + damping), axis=0) > 1.0
        low, high = np.where(larger, damping, low), np.where(larger, high, damping)
    taken_over = vectors @ (shared / (values + high))
    mix = np.zeros((channels, channels))
    mix[kept, kept] = 1.0
    mix[np.ix_(kept, removed)] = taken_over / scale[kept][:, None] * scale[removed]
    return mix


def _places(layer: tf.keras.layers.Layer) -> int:
    """Returns how many places of each channel a layer reads as inputs of their own."""
    import tensorflow as tf

    source = layer.input.node.layer
    while isinstance(source, tf.keras.layers.Dropout):
        source = source.input.node.layer
    if not isinstance(source, tf.keras.layers.Flatten) or len(source.input.shape) < 3:
        return 1
    return layer.input.shape[-1] // source.input.shape[-1]


def _reads(layer: tf.keras.layers.Layer, size: int) -> bool:
    """Whether the last axis of a layer's one input is the axis that its kernel reads."""
    if len(layer.inbound_nodes) != 1:
        return False  # It is called several times.
    shape = getattr(layer.input, "shape", ())
    first = getattr(layer, "data_format", "channels_last") == "channels_first"
    return not first and len(shape) > 1 and shape[-1] == size

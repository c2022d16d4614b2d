"""Lets the survivors stand in for the channels that go, without any data.

What reads the channels is refitted by least squares: the survivors' features x_K shall give what
the removed ones x_R gave,

    W_K <- W_K + W_R A,    A = argmin E |x_R - A x_K|^2  =  G_RK (G_KK + damping)^-1,

where G is the matrix of second moments of the group's features. The server has no data to measure
it, but it has the filters: G is estimated by applying them to random inputs that have the moments
of a ReLU's output and, as images have, likeness between neighbouring places. Near-copies merge into
each other as a special case, and the mean that a removed feature contributed is kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Optional

import numpy as np

from tff_autoprune.pruning.groups import FilterGroup, Member
from tff_autoprune.pruning.roles import Role

# Random inputs that G is estimated from: enough for some hundred features.
_SAMPLES = 4096
_SEED = 0
# Added to the diagonal of G, as a share of its mean: features are not quite what G says.
_DAMPING = 1e-2
# Distance in pixels over which the correlation of a convolution's inputs falls to 1/e.
_CORRELATION_LENGTH = 1.5
# Of a ReLU's output for standard normal input: mean 1 / sqrt(2 pi), variance 1/2 - 1 / (2 pi).
_MEAN_OVER_DEVIATION = 0.68


def compensate(
    groups: Sequence[FilterGroup],
    weights: Sequence[np.ndarray],
    selection: Mapping[str, Sequence[int]],
) -> list[np.ndarray]:
    """Refits what reads the channels that go to those that stay.

    Args:
      groups: Groups of a model.
      weights: Values of `model.weights`; not changed.
      selection: Channels to remove by group name.

    Returns:
      New values of `model.weights`, still of the shapes from before the removal.
    """
    weights = [np.array(value) for value in weights]
    for group in groups:
        removed = np.asarray(selection.get(group.name, ()), np.int64)
        readers = [m for m in group.members if m.role == Role.CONSUMER]
        rows = _filters(group, weights)
        if not len(removed) or rows is None:
            continue
        kept = np.setdiff1d(np.arange(group.channels), removed)
        moments = _relu_moments(rows)
        damping = _DAMPING * np.trace(moments) / len(moments) + np.finfo(np.float64).tiny
        stand_ins = np.linalg.solve(
            moments[np.ix_(kept, kept)] + damping * np.eye(len(kept)),
            moments[np.ix_(kept, removed)],
        )
        for member in readers:
            _refit(member, group.channels, weights, kept, removed, stand_ins)
    return weights


def _relu_moments(rows: np.ndarray) -> np.ndarray:
    """Returns the second moments of ReLU features for random inputs, float64 [n, n].

    Args:
      rows: For each feature the weights of uncorrelated inputs and, last, its mean.
    """
    generator = np.random.default_rng(_SEED)
    inputs = generator.standard_normal((rows.shape[1] - 1, _SAMPLES))
    features = np.maximum(rows[:, :-1] @ inputs + rows[:, -1:], 0.0)
    return features @ features.T / _SAMPLES


def _filters(group: FilterGroup, weights: Sequence[np.ndarray]) -> Optional[np.ndarray]:
    """Returns one row for each channel: its filters, scaled as they act, and its mean.

    None if the group's features are more than filters, a normalization and an activation.
    """
    passengers = [m for m in group.members if m.role == Role.PASSENGER]
    if any(m.kind.endswith("kernel") for m in passengers) or not group.producers:
        return None
    if any(len(m.positions) != group.channels for m in (*group.producers, *passengers)):
        return None
    parts = [_decorrelated(m, weights) for m in group.producers]
    scales = [_by_channel(m, weights) for m in passengers if m.kind == "gamma"]
    if scales:
        # A normalization takes the filters' own scale away and gives them its own.
        if len(scales) != len(parts):
            return None
        parts = [_normalized(part, scale) for part, scale in zip(parts, scales)]
    shifts = [m for m in passengers if m.kind == ("beta" if scales else "bias")]
    mean = sum((_by_channel(m, weights) for m in shifts), np.zeros(group.channels))
    mean = mean + sum(part[:, -1] for part in parts)
    return np.concatenate([*(part[:, :-1] for part in parts), mean[:, None]], axis=1)


def _normalized(part: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Returns filters as a normalization leaves them: of deviation `scale`, without a mean."""
    deviation = np.maximum(np.linalg.norm(part[:, :-1], axis=1), 1e-12)
    part = part * (scale / deviation)[:, None]
    part[:, -1] = 0.0
    return part


def _by_channel(member: Member, weights: Sequence[np.ndarray]) -> np.ndarray:
    values = np.zeros(len(member.positions))
    values[member.channel_of] = np.asarray(weights[member.position], np.float64)[member.positions]
    return values


def _decorrelated(member: Member, weights: Sequence[np.ndarray]) -> np.ndarray:
    """Returns the filters as they act on uncorrelated inputs and, last, on the inputs' mean."""
    kernel = np.moveaxis(np.asarray(weights[member.position], np.float64), member.axis, -1)
    kernel = kernel[..., member.positions][..., np.argsort(member.channel_of)]
    # The inputs' common mean acts through the sum of a filter's weights.
    mean = _MEAN_OVER_DEVIATION * kernel.reshape(-1, kernel.shape[-1]).sum(axis=0)[:, None]
    spatial = kernel.shape[:-2]
    if not spatial:
        return np.concatenate([kernel.reshape(-1, kernel.shape[-1]).T, mean], axis=1)
    places = np.stack(np.meshgrid(*map(np.arange, spatial), indexing="ij"), -1)
    places = places.reshape(-1, len(spatial))
    distances = np.linalg.norm(places[:, None] - places[None], axis=-1)
    root = np.linalg.cholesky(np.exp(-distances / _CORRELATION_LENGTH))
    kernel = kernel.reshape(len(places), kernel.shape[-2], kernel.shape[-1])
    rows = np.einsum("pq,pcf->qcf", root, kernel).reshape(-1, kernel.shape[-1]).T
    return np.concatenate([rows, mean], axis=1)


def _refit(
    member: Member,
    channels: int,
    weights: list[np.ndarray],
    kept: np.ndarray,
    removed: np.ndarray,
    stand_ins: np.ndarray,
) -> None:
    """Adds to the kept inputs of one weight what they stand in for."""
    counts = np.bincount(member.channel_of, minlength=channels)
    if counts.min() != counts.max():
        return
    # After Flatten a channel has several inputs: the n-th of one stands in for the n-th of another.
    places = np.stack(member.indices, axis=1)
    inputs = np.moveaxis(weights[member.position], member.axis, 0)  # A view: written in place.
    for row in places:
        inputs[row[kept]] += np.tensordot(stand_ins, inputs[row[removed]], 1).astype(inputs.dtype)

"""How much each channel of a group matters: one score a channel, larger is more important.

An importance is a callable `(group, weights, *, update=None) -> float64 [group.channels]`; anything
with that signature can stand in for the ones here.

Sources: `L1` Li et al., arXiv 1608.08710, and Nguyen et al., arXiv 2411.01759; `GeometricMedian`
He et al., arXiv 1811.00250; `BatchNormScale` Liu et al., arXiv 1708.06519; `Taylor` Molchanov et
al., arXiv 1906.10771, here with the server's pseudo-gradient in the place of the gradient.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Optional

import numpy as np

from tff_autoprune import randomness
from tff_autoprune.errors import UserError

if TYPE_CHECKING:
    import tensorflow as tf

    from tff_autoprune.surgery.groups import FilterGroup, Member

Weights = Sequence[np.ndarray]
Update = Optional[Sequence[Optional[np.ndarray]]]

_COMBINE = {"mean": np.mean, "max": np.max, "sum": np.sum}
_NORMALIZE = {"mean": np.mean, "max": np.max, "l2": np.linalg.norm}


class Importance(abc.ABC):
    """Scores the channels of a group."""

    @abc.abstractmethod
    def __call__(
        self, group: FilterGroup, weights: Weights, *, update: Update = None
    ) -> np.ndarray:
        """Returns one score for each channel.

        Args:
          group: The group, from `find_filter_groups`.
          weights: Values aligned with `model.weights`.
          update: Pseudo-gradient aligned with `model.weights`, see `align_with_weights`.

        Returns:
          float64 [group.channels].
        """


@dataclasses.dataclass(frozen=True)
class _OverMembers(Importance):
    """Scores every member of the group by itself, then combines.

    Attributes:
      combine: "mean", "max" or "sum" over the members.
      normalize: The scores of each member are divided by their "mean", "max" or "l2" norm first, so
        that layers of different size or scale count the same; None leaves them.
      members: "producers" (the filters themselves) or "all" (also what reads and what follows the
        channels).
    """

    combine: str = "mean"
    normalize: Optional[str] = "mean"
    members: str = "producers"

    def __post_init__(self) -> None:
        allowed = {
            "combine": list(_COMBINE),
            "normalize": [None, *_NORMALIZE],
            "members": ["producers", "all"],
        }
        for name, values in allowed.items():
            if getattr(self, name) not in values:
                raise UserError(
                    f"Importance: {name} must be one of {values}, found {getattr(self, name)!r}."
                )

    def __call__(
        self, group: FilterGroup, weights: Weights, *, update: Update = None
    ) -> np.ndarray:
        scores = []
        for member in self._chosen(group):
            score = self._score(member, group.channels, weights, update)
            if self.normalize is not None:
                unit = _NORMALIZE[self.normalize](np.abs(score))
                score = score / unit if unit > 0 else score
            scores.append(score)
        return _COMBINE[self.combine](np.stack(scores), axis=0)

    def _chosen(self, group: FilterGroup) -> list[Member]:
        if self.members == "producers":
            return group.producers
        # A bias or a moving average says nothing about the size of a filter.
        return [member for member in group.members if member.kind.endswith("kernel")]

    @abc.abstractmethod
    def _score(self, member: Member, channels: int, weights: Weights, update: Update) -> np.ndarray:
        """Returns the scores from one weight axis, float64 [channels]."""


class L1(_OverMembers):
    """Sum of absolute weights of each filter.

    With `normalize=None` and one producer it is the s_i of arXiv 2411.01759.

    Example:
    >>> from tff_autoprune import models, search, surgery
    >>> model = models.build("cnn", input_shape=(28, 28, 1), num_classes=62, filters=(4, 8))
    >>> group = surgery.find_filter_groups(model)[0]
    >>> search.importance.L1()(group, model.get_weights()).shape
    (4,)
    """

    def _score(self, member: Member, channels: int, weights: Weights, update: Update) -> np.ndarray:
        return _by_channel(member, channels, np.abs(_slices(member, weights)).sum(axis=1))


class L2(_OverMembers):
    """Euclidean norm of each filter."""

    def _score(self, member: Member, channels: int, weights: Weights, update: Update) -> np.ndarray:
        squares = np.square(_slices(member, weights)).sum(axis=1)
        return np.sqrt(_by_channel(member, channels, squares))


class GeometricMedian(_OverMembers):
    """Sum of the distances from each filter to all others: the middle ones are replaceable."""

    def _score(self, member: Member, channels: int, weights: Weights, update: Update) -> np.ndarray:
        filters = _slices(member, weights)
        squares = np.square(filters).sum(axis=1)
        distances = squares[:, None] + squares[None, :] - 2 * filters @ filters.T
        total = np.sqrt(np.maximum(distances, 0)).sum(axis=1)
        return _by_channel(member, channels, total)


class BatchNormScale(_OverMembers):
    """Absolute scale (gamma) of the normalizations that the channels pass through."""

    def _chosen(self, group: FilterGroup) -> list[Member]:
        chosen = [member for member in group.members if member.kind == "gamma"]
        if not chosen:
            raise UserError(
                f"BatchNormScale: the filter group '{group.name}' passes through no normalization "
                "with a scale; use L1 or Taylor for this model."
            )
        return chosen

    def _score(self, member: Member, channels: int, weights: Weights, update: Update) -> np.ndarray:
        return _by_channel(member, channels, np.abs(_slices(member, weights)).sum(axis=1))


class Taylor(_OverMembers):
    """Estimated change of the loss when a channel goes: |sum of weight times update|.

    The update of a round of federated averaging is, up to a positive factor, minus the clients'
    mean gradient; no data and no further communication are needed.
    """

    def _chosen(self, group: FilterGroup) -> list[Member]:
        if self.members == "producers":
            return group.producers
        return [member for member in group.members if not member.kind.startswith("moving_")]

    def _score(self, member: Member, channels: int, weights: Weights, update: Update) -> np.ndarray:
        if update is None:
            raise UserError(
                "Taylor: expected `update`, the pseudo-gradient of the last round aligned with "
                "model.weights, found None."
            )
        if update[member.position] is None:
            return np.zeros(channels)
        product = _slices(member, weights) * _slices(member, update)
        return np.abs(_by_channel(member, channels, product.sum(axis=1)))


@dataclasses.dataclass(frozen=True)
class Random(Importance):
    """Uniform scores that depend on the seed, the group's name and its number of channels only.

    Attributes:
      seed: Seed.
    """

    seed: int = 0

    def __call__(
        self, group: FilterGroup, weights: Weights, *, update: Update = None
    ) -> np.ndarray:
        stream = randomness.generator(self.seed, "random importance", group.name, group.channels)
        return stream.random(group.channels)


def align_with_weights(
    model: tf.keras.Model, arrays: Sequence[np.ndarray]
) -> list[Optional[np.ndarray]]:
    """Returns arrays for `model.trainable_weights` in the places of `model.weights`.

    Args:
      model: The model.
      arrays: Aligned with `model.trainable_weights`, e.g. the pseudo-gradient.

    Returns:
      One entry for each of `model.weights`, None for those that are not trained.
    """
    if len(arrays) != len(model.trainable_weights):
        raise UserError(
            f"Expected one array for each of the {len(model.trainable_weights)} trainable weights, "
            f"found {len(arrays)}."
        )
    by_id = {id(weight): array for weight, array in zip(model.trainable_weights, arrays)}
    return [by_id.get(id(weight)) for weight in model.weights]


def _slices(member: Member, weights: Sequence[Optional[np.ndarray]]) -> np.ndarray:
    """Returns the weight as one row for each place of the member, float64 [places, ...]."""
    array = np.asarray(weights[member.position], np.float64)
    rows = np.take(np.moveaxis(array, member.axis, 0), member.positions, axis=0)
    return rows.reshape(len(member.positions), -1)


def _by_channel(member: Member, channels: int, scores: np.ndarray) -> np.ndarray:
    """Adds up the scores of the places that belong to the same channel."""
    return np.bincount(member.channel_of, weights=scores, minlength=channels)

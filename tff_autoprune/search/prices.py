"""What channels cost the held-out loss, so that all layers can be ranked together.

Within a layer, scores tell well which channels matter least; between layers they do not compare.
Clients put a price on them: each layer alone leaves out its weakest channels, and

    price = rise of the held-out loss / share of the layer's score that was left out

Two scores order a layer's channels, their energy (`ranking`) and what the others cannot replace
(`compensation.unexplained`); the one that loses less counts. A channel then costs its share of the
score times the price.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from tff_autoprune.search import ranking
from tff_autoprune.search.trial import Trial
from tff_autoprune.surgery.groups import FilterGroup

# Where a smaller share of the score than about this is left out, the mean price tells more than the
# trial does.
_LITTLE = 1e-3
# A trial is noisy: no layer's price is less than this share of the mean.
_LEAST_PRICE = 0.1


@dataclasses.dataclass(frozen=True)
class _Attempt:
    """A layer without its weakest channels.

    Attributes:
      group: The layer's filter group.
      shares: Each channel's share of the layer's score, float64 [channels].
      channels: Those that are left out.
      rise: Rise of the held-out loss; 0 if it fell.
    """

    group: str
    shares: np.ndarray
    channels: Sequence[int]
    rise: float = 0.0

    @property
    def left_out(self) -> float:
        """Share of the score that is left out."""
        return float(self.shares[list(self.channels)].sum())


def measured(
    trial: Trial,
    groups: Sequence[FilterGroup],
    energies: Mapping[str, np.ndarray],
    savings: Mapping[str, float],
    amount: float,
    *,
    least_left: float,
    layers: int,
) -> dict[str, np.ndarray]:
    """Lets the held-out clients put a price on the channels.

    Args:
      trial: Reaches the clients.
      groups: Prunable groups.
      energies: From `ranking.energies`.
      savings: What removing one channel of each group saves, in any unit.
      amount: What each layer alone shall save, in the same unit.
      least_left: Share of a group's channels that stays at least.
      layers: Layers that are tried, at most: those with the weakest channels for what they save.
        Energy in the others has the mean price.

    Returns:
      What each channel costs, in units of the loss, float64 [channels] by group name; the energies
      if no layer loses anything.
    """

    def weakest_for_savings(group: FilterGroup) -> float:
        return float(energies[group.name].min()) / max(savings[group.name], 1e-12)

    orders = (energies, trial.unexplained())
    planned = [
        attempt
        for group in sorted(groups, key=weakest_for_savings)[:layers]
        for attempt in _attempts(group, orders, savings, amount, least_left)
    ]
    losses = trial.losses([{attempt.group: list(attempt.channels)} for attempt in planned])
    best: dict[str, _Attempt] = {}
    for attempt, loss in zip(planned, losses):
        rise = max(0.0, loss - trial.seen["calibrated_loss"])
        if attempt.group not in best or rise < best[attempt.group].rise:
            best[attempt.group] = dataclasses.replace(attempt, rise=rise)
    left_out = sum(attempt.left_out for attempt in best.values())
    mean = sum(attempt.rise for attempt in best.values()) / (left_out + _LITTLE)
    if mean <= 0:
        return dict(energies)
    costs = {group.name: mean * energies[group.name] for group in groups}
    for name, attempt in best.items():
        price = (attempt.rise + _LITTLE * mean) / (attempt.left_out + _LITTLE)
        costs[name] = max(price, _LEAST_PRICE * mean) * attempt.shares
    return costs


def _attempts(
    group: FilterGroup,
    orders: Sequence[Mapping[str, np.ndarray]],
    savings: Mapping[str, float],
    amount: float,
    least_left: float,
) -> list[_Attempt]:
    """Returns what to try of a layer: its weakest channels in each order, if they differ."""
    attempts: list[_Attempt] = []
    for scores in orders:
        if group.name not in scores:
            continue
        found = ranking.weakest([group], scores, savings, amount, least_left=least_left)
        channels, total = found.get(group.name, []), scores[group.name].sum()
        known = [set(attempt.channels) for attempt in attempts]
        if channels and total > 0 and set(channels) not in known:
            attempts.append(_Attempt(group.name, scores[group.name] / total, channels))
    return attempts

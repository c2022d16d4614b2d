"""The differential privacy guarantee of a run with the "dp" aggregator.

A guarantee for a client: the released models hardly depend on whether one client's data is replaced
by another's. Each round samples a fixed number of clients without replacement; replacing one of
them moves the sum of updates clipped to norm C by at most 2 C, so that noise of standard deviation
z C is z / 2 times the sensitivity. Rounds are composed by Renyi differential privacy
(Mironov, arXiv 1702.07476; sampling without replacement: Wang et al., arXiv 1808.00087).

Pruning reads only released models: post-processing, which costs nothing.
"""

from __future__ import annotations

import dp_accounting
from dp_accounting import rdp

from tff_autoprune.errors import UserError
from tff_autoprune.federated.settings import AggregatorSettings


def epsilon(settings: AggregatorSettings, *, rounds: int, num_clients: int) -> float:
    """Returns epsilon at `settings.delta`.

    Args:
      settings: Of the "dp" aggregator; its `clients_per_round` is the sample of a round.
      rounds: Rounds run so far, counting every attempt whose aggregate was computed.
      num_clients: Clients the samples were drawn from.

    Returns:
      Epsilon; infinite without noise, 0 before the first round.

    Raises:
      UserError: If the aggregator is not "dp", or samples more clients than there are.
    """
    if settings.name != "dp":
        raise UserError(
            f"aggregator.name: only 'dp' has a privacy guarantee, found {settings.name!r}."
        )
    sample = settings.clients_per_round
    if sample > num_clients:
        raise UserError(
            f"federated.clients_per_round: expected at most the {num_clients} training clients that"
            f" there are, found {sample}."
        )
    if rounds == 0:
        return 0.0
    if settings.noise_multiplier == 0:
        return float("inf")
    gaussian = dp_accounting.GaussianDpEvent(settings.noise_multiplier / 2)
    accountant = rdp.RdpAccountant(
        neighboring_relation=dp_accounting.NeighboringRelation.REPLACE_ONE
    )
    if sample == num_clients:
        accountant.compose(gaussian, rounds)
    else:
        event = dp_accounting.SampledWithoutReplacementDpEvent(num_clients, sample, gaussian)
        accountant.compose(event, rounds)
    return float(accountant.get_epsilon(settings.delta))

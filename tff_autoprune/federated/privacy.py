"""The differential privacy guarantee of a run with the "dp" aggregator: replace one client.

Training clients. A round samples a fixed number of clients without replacement and releases two
noised sums: of updates clipped to norm C, which a replaced client moves by at most 2 C, so that
noise of standard deviation z C is z / 2 times the sensitivity; and of reports (`reports.Noised`),
whose multiplier r is over their sensitivity. Two Gaussian mechanisms on the same clients are one
with the multiplier ((z / 2)^-2 + r^-2)^-1/2. Rounds are composed by Renyi differential privacy
(Mironov, arXiv 1702.07476; sampling without replacement: Wang et al., arXiv 1808.00087).

Held-out clients are asked for reports only. Every question counts in full, since the same clients
may be asked each time. Pruning reads what was released, and nothing else: post-processing.
"""

from __future__ import annotations

import dp_accounting
from dp_accounting import rdp

from tff_autoprune.errors import UserError
from tff_autoprune.federated.settings import AggregatorSettings


def epsilon(settings: AggregatorSettings, *, rounds: int, num_clients: int) -> float:
    """Returns epsilon for a training client, at `settings.delta`.

    Args:
      settings: Of the "dp" aggregator; its `clients_per_round` is the sample of a round.
      rounds: Rounds run so far, counting every attempt whose aggregate was computed.
      num_clients: Clients the samples were drawn from.

    Returns:
      Epsilon; infinite without noise, 0 before the first round.

    Raises:
      UserError: If the aggregator is not "dp", or samples more clients than there are.
    """
    _check_name(settings)
    sample = settings.clients_per_round
    if sample > num_clients:
        raise UserError(
            f"federated.clients_per_round: expected at most the {num_clients} training clients that"
            f" there are, found {sample}."
        )
    if rounds == 0:
        return 0.0
    if not settings.noise_multiplier or not settings.report_noise:
        return float("inf")
    update, report = settings.noise_multiplier / 2, settings.report_noise
    gaussian = dp_accounting.GaussianDpEvent((update**-2 + report**-2) ** -0.5)
    if sample < num_clients:
        gaussian = dp_accounting.SampledWithoutReplacementDpEvent(num_clients, sample, gaussian)
    return _composed(settings, gaussian, rounds)


def held_out_epsilon(settings: AggregatorSettings, *, questions: int) -> float:
    """Returns epsilon for a held-out client that only answers questions, at `settings.delta`.

    Args:
      settings: Of the "dp" aggregator.
      questions: Evaluations that the client took part in, at most; public ones
        (`Engine.evaluate(..., public=True)`) have no guarantee and do not count.

    Returns:
      Epsilon; infinite without noise, 0 without questions.

    Raises:
      UserError: If the aggregator is not "dp".
    """
    _check_name(settings)
    if questions == 0:
        return 0.0
    if not settings.report_noise:
        return float("inf")
    return _composed(settings, dp_accounting.GaussianDpEvent(settings.report_noise), questions)


def _check_name(settings: AggregatorSettings) -> None:
    if settings.name != "dp":
        raise UserError(
            f"aggregator.name: only 'dp' has a privacy guarantee, found {settings.name!r}."
        )


def _composed(settings: AggregatorSettings, event: dp_accounting.DpEvent, count: int) -> float:
    accountant = rdp.RdpAccountant(
        neighboring_relation=dp_accounting.NeighboringRelation.REPLACE_ONE
    )
    accountant.compose(event, count)
    return float(accountant.get_epsilon(settings.delta))

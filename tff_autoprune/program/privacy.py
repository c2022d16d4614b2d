"""What a run promises its clients: enough of them in every sum, and a guarantee with noise."""

from __future__ import annotations

from typing import Any, Optional

import ml_collections
import numpy as np

from tff_autoprune import federated
from tff_autoprune.data import FederatedData


def check(
    config: ml_collections.ConfigDict, data: FederatedData, aggregator: federated.AggregatorSettings
) -> None:
    """Checks that the run asks enough clients at a time, before anything is sent.

    Args:
      config: The run's configuration.
      data: Its clients.
      aggregator: How it aggregates.

    Raises:
      UserError: If there are too few clients; says what to set.
    """
    section = config.federated
    train, validation = len(data.train.client_ids), len(data.validation.client_ids)
    aggregator.check_clients(
        "a round (federated.clients_per_round)", min(section.clients_per_round, train)
    )
    asked = min(section.evaluation_clients, section.feedback_clients, validation)
    aggregator.check_clients("an evaluation on validation clients", asked)


def describe(
    aggregator: federated.AggregatorSettings, *, rounds: int, num_clients: int, questions: int
) -> Optional[dict[str, Any]]:
    """Returns what differential privacy clients have; None without it.

    Args:
      aggregator: How the run aggregates.
      rounds: Cohorts that were aggregated, also those that were tried again.
      num_clients: Training clients.
      questions: Evaluations that validation clients took part in.

    Raises:
      UserError: If it cannot be told.
    """
    if aggregator.name != "dp":
        return None
    epsilon = federated.privacy.epsilon(aggregator, rounds=rounds, num_clients=num_clients)
    held_out = federated.privacy.held_out_epsilon(aggregator, questions=questions)
    return {
        "epsilon": _finite(epsilon),
        "delta": aggregator.delta,
        "rounds": rounds,
        "validation_epsilon": _finite(held_out),
        "validation_questions": questions,
    }


def _finite(epsilon: float) -> Optional[float]:
    # JSON has no infinity: without noise there is no guarantee.
    return epsilon if np.isfinite(epsilon) else None

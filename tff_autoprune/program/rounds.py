"""One round of federated averaging: whoever takes part, until a cohort returns something usable.

sample cohort ──> train ──> aggregate ──> learner after the round, and what it cost
      ^             └── no usable update: another cohort
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Optional

import ml_collections
import tensorflow_federated as tff

from tff_autoprune import federated
from tff_autoprune.errors import UserError
from tff_autoprune.program import cohort as cohort_lib
from tff_autoprune.program.learner import Learner


@dataclasses.dataclass(frozen=True)
class Traffic:
    """Bytes that a round moved, failed cohorts included.

    Attributes:
      download: Sent to clients.
      upload: Sent by clients.
      sampled: Clients that received the model.
      trained: Clients that trained it and sent an update.
    """

    download: int = 0
    upload: int = 0
    sampled: int = 0
    trained: int = 0

    def __add__(self, other: Traffic) -> Traffic:
        """Returns the sum."""
        return Traffic(
            self.download + other.download,
            self.upload + other.upload,
            self.sampled + other.sampled,
            self.trained + other.trained,
        )


@dataclasses.dataclass(frozen=True)
class Round:
    """What a round did.

    Attributes:
      round_num: Its number, from 1.
      learner: The learner after it.
      metrics: "loss" and "accuracy" of training, over clients.
      failed_clients: Clients that returned nothing usable.
      retried_cohorts: Cohorts that failed whole before one did not.
      traffic: What was sent.
    """

    round_num: int
    learner: Learner
    metrics: Mapping[str, float]
    failed_clients: int
    retried_cohorts: int
    traffic: Traffic


class Rounds:
    """Runs rounds of any learner; a pure function of the learner and the round's number."""

    def __init__(
        self,
        config: ml_collections.ConfigDict,
        clients: tff.simulation.datasets.ClientData,
        report: Callable[[str], None] = lambda line: None,
    ) -> None:
        """Sets who may take part.

        Args:
          config: The run's configuration.
          clients: The training clients.
          report: Called with a line of text when a cohort failed.
        """
        self._config = config
        self._clients = clients
        self._report = report

    def run(self, learner: Learner, round_num: int, *, penalty: float = 0.0) -> Round:
        """Trains one cohort; another one if all of its clients failed.

        Args:
          learner: The learner before the round.
          round_num: The round, from 1.
          penalty: Strength of the group lasso.

        Raises:
          UserError: If `federated.max_attempts` cohorts in a row return nothing usable.
        """
        settings, traffic = self._config.federated, Traffic()
        learner = learner.with_state(learner.engine.set_penalty(learner.state, penalty))
        for attempt in range(settings.max_attempts):
            cohort = cohort_lib.sample(
                self._clients.client_ids,
                count=settings.clients_per_round,
                dropout_probability=settings.dropout_probability,
                seed=self._config.seed,
                round_num=round_num,
                attempt=attempt,
            )
            if len(cohort.returning) < self._config.aggregator.min_clients:
                # A sum over so few is never made: nobody sends anything.
                cohort = dataclasses.replace(cohort, returning=())
            result = self._train(learner, cohort.returning, round_num)
            traffic += _traffic(learner, cohort, result)
            if result is not None and not result.failed:
                return Round(
                    round_num,
                    learner.with_state(result.state),
                    result.metrics,
                    traffic.sampled - (result.clients - result.failed_clients),
                    attempt,
                    traffic,
                )
            self._report(
                f"round {round_num}: no update of the cohort can be used; sampling another cohort"
            )
        raise UserError(
            f"round {round_num}: {settings.max_attempts} cohorts in a row returned no usable"
            " update (federated.max_attempts); look at federated.client_learning_rate,"
            " federated.dropout_probability, aggregator.min_clients. The last checkpoint is kept."
        )

    def _train(
        self, learner: Learner, client_ids: Any, round_num: int
    ) -> Optional[federated.RoundResult]:
        if not client_ids:
            return None
        datasets = cohort_lib.training_datasets(
            self._clients, client_ids, self._config, round_num=round_num
        )
        seeds = [
            federated.client_seed(client_id, seed=self._config.seed, round_num=round_num)
            for client_id in client_ids
        ]
        return learner.engine.next(learner.state, datasets, seeds)


def _traffic(
    learner: Learner, cohort: cohort_lib.Cohort, result: Optional[federated.RoundResult]
) -> Traffic:
    sampled = len(cohort.sampled)
    if result is None:
        return Traffic(download=sampled * learner.network.cost.bytes, sampled=sampled)
    return Traffic(
        download=result.download_bytes * sampled // result.clients,
        upload=result.upload_bytes,
        sampled=sampled,
        trained=result.clients,
    )

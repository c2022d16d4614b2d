"""Answers what a pruning method asks, and counts the bytes that the answers cost.

method ──race──> learners train side by side ──models──> held-out clients, drawn for each decision
method <──paired differences of accuracy, aggregated over clients──┘
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import ml_collections
import tensorflow as tf
import tensorflow_federated as tff

from tff_autoprune.program import cohort as cohort_lib
from tff_autoprune.program.learner import Learner
from tff_autoprune.program.rounds import Round
from tff_autoprune.search import requests
from tff_autoprune.search.change import Change


@dataclasses.dataclass(frozen=True)
class Race:
    """Learners that trained side by side.

    Attributes:
      stayed: Rounds of the present network.
      raced: Rounds of each structure's network, in the order of the request.
    """

    stayed: Sequence[Round]
    raced: Sequence[Sequence[Round]]

    def other_bytes(self, kept: Sequence[Round]) -> int:
        """Returns the bytes of training all but one of the learners."""
        return _trained_bytes(self._everyone()) - _trained_bytes(kept)

    def other_flops(self, kept: Sequence[Round]) -> int:
        """Returns the operations of the others: those of a forward pass over all examples."""
        return _flops(self._everyone()) - _flops(kept)

    def _everyone(self) -> list[Round]:
        return [*self.stayed, *(one for rounds in self.raced for one in rounds)]


class Feedback:
    """Answers the requests of one decision.

    Attributes:
      bytes: What asking held-out clients has cost.
      race: The race that was run, if there was one.
    """

    def __init__(
        self,
        config: ml_collections.ConfigDict,
        validation: tff.simulation.datasets.ClientData,
        asked: cohort_lib.Validation,
        learner: Learner,
        round_num: int,
        run_round: Callable[[Learner, int], Round],
    ) -> None:
        """Sets what the requests are about.

        Args:
          config: The run's configuration.
          validation: The validation clients.
          asked: Says which of them may be asked.
          learner: The present network.
          round_num: Rounds completed.
          run_round: Runs the next round of a learner.
        """
        self._config = config
        self._validation = validation
        self._asked = asked
        self._learner = learner
        self._round_num = round_num
        self._run_round = run_round
        self.bytes = 0
        self.race: Race | None = None

    def answer(self, request: requests.Race) -> requests.Comparison:
        """Runs a race, and compares its networks on held-out clients."""
        network = self._learner.present()
        entered = [
            self._learner.changed(Change(network, structure)) for structure in request.structures
        ]
        self.race = Race(
            self._train(self._learner, request.rounds),
            [self._train(learner, request.rounds) for learner in entered],
        )
        stayed = self.race.stayed[-1].learner
        models = [rounds[-1].learner.present().model for rounds in self.race.raced]
        datasets = self._clients()
        found = stayed.engine.compare(stayed.state, datasets, models)
        sizes = [
            stayed.network.cost.bytes,
            *(r[-1].learner.network.cost.bytes for r in self.race.raced),
        ]
        self.bytes += len(datasets) * sum(sizes)
        return found

    def _train(self, learner: Learner, count: int) -> list[Round]:
        rounds: list[Round] = []
        for number in range(count):
            done = self._run_round(learner, self._round_num + 1 + number)
            rounds.append(done)
            learner = done.learner
        return rounds

    def _clients(self) -> list[tf.data.Dataset]:
        chosen = self._asked.ask(
            count=self._config.federated.feedback_clients,
            seed=self._config.seed,
            round_num=self._round_num,
        )
        return cohort_lib.evaluation_datasets(self._validation, chosen)


def _trained_bytes(rounds: Sequence[Round]) -> int:
    return sum(one.traffic.download + one.traffic.upload for one in rounds)


def _flops(rounds: Sequence[Round]) -> int:
    return sum(int(one.learner.network.cost.flops * one.metrics["num_examples"]) for one in rounds)

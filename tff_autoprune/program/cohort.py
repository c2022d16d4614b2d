"""Who takes part in a round.

Everything here is a pure function of the seed, the round and the attempt.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tff_autoprune import federated, randomness

if TYPE_CHECKING:
    import tensorflow as tf
    import tensorflow_federated as tff

# Larger batches than in training: evaluation keeps no activations.
_EVALUATION_BATCH = 256


@dataclasses.dataclass(frozen=True)
class Cohort:
    """The clients of one round.

    Attributes:
      sampled: Clients that receive the model.
      returning: Those of them that send an update back.
    """

    sampled: Sequence[str]
    returning: Sequence[str]


def sample(
    client_ids: Sequence[str],
    *,
    count: int,
    dropout_probability: float,
    seed: int,
    round_num: int,
    attempt: int = 0,
) -> Cohort:
    """Samples a cohort and who of it drops out or is too slow to be waited for.

    Args:
      client_ids: All training clients.
      count: Clients to sample, without replacement.
      dropout_probability: Probability that a client returns nothing.
      seed: The run's seed.
      round_num: The round.
      attempt: How often this round was tried before.

    Returns:
      The cohort; `returning` may be empty.
    """
    sampled = federated.sample_clients(
        client_ids, count=count, seed=seed, round_num=round_num, attempt=attempt
    )
    generator = randomness.generator(seed, "dropout", round_num, attempt)
    stays = generator.random(len(sampled)) >= dropout_probability
    return Cohort(sampled, [c for c, stay in zip(sampled, stays) if stay])


@dataclasses.dataclass(frozen=True)
class Validation:
    """The validation clients, dealt out so that no decision is judged by those it asked.

    Attributes:
      evaluation: Clients that accuracy is reported on: a third of them.
      feedback: Clients that pruning methods may ask. Where there are too few clients for both, all
        of them are both.
    """

    evaluation: Sequence[str]
    feedback: Sequence[str]

    @classmethod
    def of(cls, client_ids: Sequence[str], *, seed: int, least: int) -> Validation:
        """Deals the validation clients out.

        Args:
          client_ids: All of them.
          seed: The run's seed.
          least: Clients over which anything may be summed, at least.
        """
        ordered = sorted(client_ids)
        places = randomness.generator(seed, "validation").permutation(len(ordered))
        shuffled = [ordered[place] for place in places]
        reserved = max(len(shuffled) // 3, least)
        if len(shuffled) - reserved < least:
            return cls(ordered, ordered)
        return cls(sorted(shuffled[:reserved]), sorted(shuffled[reserved:]))

    def ask(self, *, count: int, seed: int, round_num: int) -> list[str]:
        """Returns the feedback clients of one decision, drawn afresh for it.

        Args:
          count: How many at most.
          seed: The run's seed.
          round_num: The round of the decision.
        """
        generator = randomness.generator(seed, "feedback", round_num)
        return sorted(self.feedback[i] for i in generator.permutation(len(self.feedback))[:count])


def evaluation_datasets(
    client_data: tff.simulation.datasets.ClientData, client_ids: Sequence[str]
) -> list[tf.data.Dataset]:
    """Returns the batches on which clients evaluate a model."""
    return [
        client_data.create_tf_dataset_for_client(client_id).batch(_EVALUATION_BATCH)
        for client_id in client_ids
    ]


def training_datasets(
    client_data: tff.simulation.datasets.ClientData,
    client_ids: Sequence[str],
    config: Mapping[str, Any],
    *,
    round_num: int,
) -> list[tf.data.Dataset]:
    """Returns what clients train on in a round.

    Args:
      client_data: The training clients.
      client_ids: Those of the cohort.
      config: The run's configuration.
      round_num: The round.

    Returns:
      For each client its batches (float32 [b, h, w, c], int32 [b]) of all local epochs.
    """
    settings = config["federated"]
    return [
        federated.client_dataset(
            client_data,
            client_id,
            batch_size=settings["batch_size"],
            epochs=settings["local_epochs"],
            seed=config["seed"],
            round_num=round_num,
            max_examples=settings["max_examples"],
        )
        for client_id in client_ids
    ]

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


def sample_feedback_clients(client_ids: Sequence[str], *, count: int, seed: int) -> list[str]:
    """Returns the held-out clients that evaluate models; the same in every round.

    The same clients see a model before and after a cut: their differences are then no sampling
    noise.
    """
    ordered = sorted(client_ids)
    generator = randomness.generator(seed, "feedback", 0)
    chosen = generator.permutation(len(ordered))[:count]
    return [ordered[i] for i in sorted(chosen)]


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

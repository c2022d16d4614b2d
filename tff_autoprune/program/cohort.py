"""Who takes part in a round.

Everything here is a pure function of the seed, the round and the attempt.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Optional

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


def evaluation_clients(
    client_ids: Sequence[str], *, seed: int, count: Optional[int] = None
) -> list[str]:
    """Returns the validation clients that accuracy is reported on; no decision ever asks them.

    Args:
      client_ids: All validation clients.
      seed: The run's seed.
      count: How many at most; all of them by default.

    Returns:
      The same clients in every round, so that a curve shows the model and not the sample.
    """
    return sorted(_shuffled(client_ids, seed)[: _reserved(len(client_ids))][:count])


def feedback_clients(
    client_ids: Sequence[str], *, count: int, seed: int, round_num: int
) -> list[str]:
    """Returns the validation clients that one decision asks, drawn afresh for it.

    Args:
      client_ids: All validation clients.
      count: How many at most.
      seed: The run's seed.
      round_num: The round of the decision.

    Returns:
      A sample of those that are no `evaluation_clients`. A lone validation client is both.
    """
    pool = _shuffled(client_ids, seed)
    pool = sorted(pool[_reserved(len(pool)) :] or pool)
    generator = randomness.generator(seed, "feedback", round_num)
    return sorted(pool[i] for i in generator.permutation(len(pool))[:count])


def _shuffled(client_ids: Sequence[str], seed: int) -> list[str]:
    ordered = sorted(client_ids)
    return [ordered[i] for i in randomness.generator(seed, "validation").permutation(len(ordered))]


def _reserved(clients: int) -> int:
    """Returns how many of the validation clients no decision asks: a third, at least one."""
    return max(1, clients // 3)


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

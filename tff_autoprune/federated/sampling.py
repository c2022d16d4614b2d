"""Which clients train in a round, and in what order they see their examples.

Both are pure functions of the seed, the round and the client: a resumed run repeats them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Optional

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

from tff_autoprune import data, randomness
from tff_autoprune.errors import UserError


def sample_clients(
    client_ids: Sequence[str], *, count: int, seed: int, round_num: int, attempt: int = 0
) -> list[str]:
    """Samples clients without replacement.

    Args:
      client_ids: All clients.
      count: How many to sample; all of them if there are fewer.
      seed: Seed of the run.
      round_num: The round.
      attempt: 0, then 1, 2, ... when the cohort of the attempt before failed whole.

    Returns:
      Sampled ids in random order; the same for the same arguments, whatever the order of
      `client_ids`.

    Raises:
      UserError: If there are no clients.
    """
    if not len(client_ids):
        raise UserError("data: there are no clients to sample from.")
    ids = sorted(client_ids)
    generator = randomness.generator(seed, "cohort", round_num, attempt)
    picked = generator.choice(len(ids), size=min(count, len(ids)), replace=False)
    return [ids[i] for i in picked]


def client_dataset(
    client_data: tff.simulation.datasets.ClientData,
    client_id: str,
    *,
    batch_size: int,
    epochs: int,
    seed: int,
    round_num: int,
    max_examples: Optional[int] = None,
) -> tf.data.Dataset:
    """Returns a client's shuffled batches for a round.

    Args:
      client_data: Yields (inputs, label); see `data.as_examples`.
      client_id: One of its clients.
      batch_size: Examples in a batch; the last batch may be smaller.
      epochs: Passes over the examples, each in a new order.
      seed: Seed of the run.
      round_num: The round.
      max_examples: Examples used, at most: the same random ones in every round.

    Returns:
      A data set of (inputs [b, ...], labels [b, ...]); it gives the same batches every time.
    """
    arrays = data.client_arrays(client_data, client_id)
    size = len(tf.nest.flatten(arrays)[0])
    chosen = randomness.generator(seed, "examples", client_id).permutation(size)
    chosen = chosen[:max_examples]
    generator = randomness.generator(seed, "order", client_id, round_num)
    order = np.concatenate([generator.permutation(chosen) for _ in range(epochs)])
    shuffled = tf.nest.map_structure(lambda array: array[order], arrays)
    return tf.data.Dataset.from_tensor_slices(shuffled).batch(batch_size)


def client_seed(client_id: str, *, seed: int, round_num: int) -> tuple[int, int]:
    """Returns what a client's dropout and augmentation derive from in a round.

    Args:
      client_id: The client.
      seed: Seed of the run.
      round_num: The round.
    """
    first, second = randomness.integers(seed, "augmentation", client_id, round_num, count=2)
    return int(first), int(second)

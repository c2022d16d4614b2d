"""Which clients train, which validate and which test; a client does only one of the three."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from tff_autoprune.data.randomness import generator
from tff_autoprune.errors import UserError


class ClientSplit(NamedTuple):
    """The clients of each part, each in the source's order."""

    train: list[str]
    validation: list[str]
    test: list[str]


def split_clients(
    client_ids: Sequence[str],
    *,
    validation_fraction: float,
    test_fraction: float,
    seed: int,
    source: str,
) -> ClientSplit:
    """Holds out whole clients, drawn by the seed.

    Each part has at least one client, and the shares are rounded to whole clients.

    Args:
      client_ids: All clients.
      validation_fraction: Share held out for validation, 0 to 1.
      test_fraction: Share held out for the test, 0 to 1.
      seed: The user's seed.
      source: The file or data set, for the error message.

    Raises:
      UserError: If there are too few clients for three parts.
    """
    count = len(client_ids)
    validation = max(1, round(validation_fraction * count))
    test = max(1, round(test_fraction * count))
    if validation + test >= count:
        raise UserError(
            f"{source}: {count} clients with examples are too few for validation_fraction="
            f"{validation_fraction:g} and test_fraction={test_fraction:g}: {validation} would"
            f" validate, {test} would test and none would train."
        )
    order = generator(seed, "split").permutation(count)
    parts = order[:validation], order[validation : validation + test], order[validation + test :]
    held_for_validation, held_for_test, kept = (
        [client_ids[i] for i in sorted(part)] for part in parts
    )
    return ClientSplit(train=kept, validation=held_for_validation, test=held_for_test)

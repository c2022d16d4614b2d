"""Which clients train, which validate and which test; a client does only one of the three."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from tff_autoprune.errors import UserError
from tff_autoprune.randomness import generator


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


class SourcePart(NamedTuple):
    """The clients of one part, where the source has splits of its own.

    Attributes:
      of: Which of the source's examples they have: those of its "train" split, of its "test" split,
        or "both".
      client_ids: The clients, in the source's order.
    """

    of: str
    client_ids: list[str]


SPLIT_CHOICES = ("clients", "examples")


def split_source(
    train_ids: Sequence[str],
    test_ids: Sequence[str],
    *,
    by: str,
    validation_fraction: float,
    test_fraction: float,
    seed: int,
    source: str,
) -> tuple[SourcePart, SourcePart, SourcePart]:
    """Makes three parts of a source that has a training and a test split of its own.

    By "clients": if the source's splits have no client in common, its training clients train, and
    its test clients are shared between validation and test in the ratio of the two fractions. If
    they have, a client's examples of both splits are put together, and whole clients are held out.

    By "examples": the source's training examples of all clients train; the clients' test examples
    are shared between validation and test, client by client, in the ratio of the two fractions.
    Held-out examples then come from clients that train.

    Args:
      train_ids: Clients of the source's training split.
      test_ids: Clients of its test split.
      by: One of `SPLIT_CHOICES`.
      validation_fraction: Share held out for validation, 0 to 1.
      test_fraction: Share held out for the test, 0 to 1.
      seed: The user's seed.
      source: The file, for the error message.

    Raises:
      UserError: If there are too few clients.
    """
    if by == "clients" and not set(train_ids).isdisjoint(test_ids):
        split = split_clients(
            list(dict.fromkeys([*train_ids, *test_ids])),
            validation_fraction=validation_fraction,
            test_fraction=test_fraction,
            seed=seed,
            source=source,
        )
        train, validation, test = (SourcePart("both", client_ids) for client_ids in split)
        return train, validation, test
    if len(test_ids) < 2:
        raise UserError(
            f"{source}: its test split has {len(test_ids)} clients with examples; expected at least"
            " 2, one for validation and one for the test."
        )
    both = validation_fraction + test_fraction
    share = validation_fraction / both if both > 0 else 0.5
    first = min(max(1, round(share * len(test_ids))), len(test_ids) - 1)
    order = generator(seed, "split").permutation(len(test_ids))
    validation_ids, held_ids = (
        [test_ids[i] for i in sorted(part)] for part in (order[:first], order[first:])
    )
    return (
        SourcePart("train", list(train_ids)),
        SourcePart("test", validation_ids),
        SourcePart("test", held_ids),
    )

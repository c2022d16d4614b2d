"""Who trains, on what, in which order: pure functions."""

from __future__ import annotations

import collections

import numpy as np
import pytest
import tensorflow_federated as tff
from federated_doubles import make_arrays

from tff_autoprune import federated
from tff_autoprune.errors import UserError

_IDS = [f"writer_{i}" for i in range(20)]


@pytest.fixture(scope="module")
def clients():
    return tff.simulation.datasets.TestClientData(
        {name: make_arrays(count, seed=count) for name, count in {"a": 10, "b": 1, "c": 7}.items()}
    )


def _batches(dataset):
    return [(x.tobytes(), y.tobytes()) for x, y in dataset.as_numpy_iterator()]


def test_a_sample_depends_only_on_seed_round_and_attempt():
    first = federated.sample_clients(_IDS, count=5, seed=1, round_num=2)
    assert first == federated.sample_clients(_IDS[::-1], count=5, seed=1, round_num=2)
    assert len(set(first)) == 5 and set(first) <= set(_IDS)
    others = [
        federated.sample_clients(_IDS, count=5, seed=2, round_num=2),
        federated.sample_clients(_IDS, count=5, seed=1, round_num=3),
        federated.sample_clients(_IDS, count=5, seed=1, round_num=2, attempt=1),
    ]
    assert first not in others and len({tuple(o) for o in others}) == 3


def test_samples_are_fair():
    counts = collections.Counter()
    for round_num in range(2000):
        counts.update(federated.sample_clients(_IDS, count=5, seed=0, round_num=round_num))
    # 500 expected; 5 standard deviations of a binomial.
    assert min(counts.values()) > 500 - 97 and max(counts.values()) < 500 + 97


def test_more_clients_than_there_are_gives_all():
    assert sorted(federated.sample_clients(_IDS, count=99, seed=0, round_num=0)) == sorted(_IDS)


def test_no_clients_is_an_error():
    with pytest.raises(UserError, match="no clients"):
        federated.sample_clients([], count=1, seed=0, round_num=0)


def test_a_clients_batches_are_the_same_every_time(clients):
    options = {"batch_size": 4, "epochs": 2, "seed": 3}
    dataset = federated.client_dataset(clients, "a", round_num=1, **options)
    assert _batches(dataset) == _batches(dataset)
    again = federated.client_dataset(clients, "a", round_num=1, **options)
    assert _batches(dataset) == _batches(again)
    other = federated.client_dataset(clients, "a", round_num=2, **options)
    assert _batches(dataset) != _batches(other)


def test_every_epoch_has_every_example_in_a_new_order(clients):
    dataset = federated.client_dataset(clients, "a", batch_size=5, epochs=3, seed=0, round_num=0)
    images = np.concatenate([x for x, _ in dataset.as_numpy_iterator()])
    epochs = [[x.tobytes() for x in images[i : i + 10]] for i in (0, 10, 20)]
    expected = sorted(x.tobytes() for x in make_arrays(10, seed=10)[0])
    assert all(sorted(epoch) == expected for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]


def test_a_client_is_cut_to_the_same_examples_in_every_round(clients):
    def used(round_num):
        dataset = federated.client_dataset(
            clients, "a", batch_size=5, epochs=1, seed=0, round_num=round_num, max_examples=4
        )
        return {x.tobytes() for batch, _ in dataset.as_numpy_iterator() for x in batch}

    assert len(used(0)) == 4 and used(0) == used(1)

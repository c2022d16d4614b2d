from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tff_autoprune.data.splits import split_clients, split_source
from tff_autoprune.errors import UserError

IDS = [f"client_{i}" for i in range(40)]


@given(
    count=st.integers(3, 40),
    validation=st.floats(0, 0.3),
    test=st.floats(0, 0.3),
    seed=st.integers(0, 2**40),
)
def test_every_client_is_in_one_part(count, validation, test, seed):
    split = split_clients(
        IDS[:count],
        validation_fraction=validation,
        test_fraction=test,
        seed=seed,
        source="here",
    )
    assert sorted(itertools.chain(*split)) == sorted(IDS[:count])
    assert all(split)
    assert abs(len(split.validation) - validation * count) <= 1
    assert abs(len(split.test) - test * count) <= 1


@pytest.mark.parametrize("count", [0, 1, 2])
def test_too_few_clients_are_refused(count):
    with pytest.raises(UserError, match=f"here: {count} clients with examples are too few"):
        split_clients(
            IDS[:count], validation_fraction=0.1, test_fraction=0.1, seed=0, source="here"
        )


def _split(by, train=IDS[:30], test=IDS[20:], validation=0.1, seed=0):
    return split_source(
        train,
        test,
        by=by,
        validation_fraction=validation,
        test_fraction=0.1,
        seed=seed,
        source="here",
    )


def test_clients_of_both_splits_are_put_together_and_held_out_whole():
    train, validation, test = _split("clients")
    assert [part.of for part in (train, validation, test)] == ["both"] * 3
    ids = train.client_ids + validation.client_ids + test.client_ids
    assert sorted(ids) == sorted(IDS)
    assert len(validation.client_ids) == len(test.client_ids) == 4


def test_a_source_split_by_client_keeps_its_training_clients():
    train, validation, test = _split("clients", IDS[:30], IDS[30:])
    assert train == ("train", IDS[:30])
    assert sorted(validation.client_ids + test.client_ids) == sorted(IDS[30:])
    assert len(validation.client_ids) == len(test.client_ids) == 5


def test_the_sources_own_examples_split_has_every_client_train():
    train, validation, test = _split("examples")
    assert train == ("train", IDS[:30])
    assert {validation.of, test.of} == {"test"}
    assert sorted(validation.client_ids + test.client_ids) == IDS[20:]


def test_held_out_clients_are_shared_in_the_ratio_of_the_fractions():
    _, validation, test = _split("clients", IDS[:20], IDS[20:], validation=0.3)
    assert (len(validation.client_ids), len(test.client_ids)) == (15, 5)


def test_one_test_client_is_not_enough():
    with pytest.raises(UserError, match="its test split has 1 clients"):
        _split("clients", IDS[:20], IDS[20:21])

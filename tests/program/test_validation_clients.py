"""Who judges: clients that decisions ask, and clients that accuracy is reported on."""

import pytest

from tff_autoprune.program.cohort import Validation

CLIENTS = [f"client_{number}" for number in range(30)]


def deal(clients=CLIENTS, seed=0, least=3):
    return Validation.of(clients, seed=seed, least=least)


def test_nobody_is_both_and_everybody_is_one():
    dealt = deal()
    assert not set(dealt.evaluation) & set(dealt.feedback)
    assert sorted([*dealt.evaluation, *dealt.feedback]) == sorted(CLIENTS)
    assert len(dealt.evaluation) == 10
    assert deal(CLIENTS[::-1]) == dealt != deal(seed=1)


def test_each_decision_draws_its_clients_afresh():
    dealt = deal()
    draws = [dealt.ask(count=8, seed=0, round_num=number) for number in range(20)]
    assert draws[3] == dealt.ask(count=8, seed=0, round_num=3)
    assert len({tuple(draw) for draw in draws}) == 20
    assert all(set(draw) <= set(dealt.feedback) and len(set(draw)) == 8 for draw in draws)
    assert set().union(*draws) == set(dealt.feedback)


@pytest.mark.parametrize(("clients", "shared"), [(1, True), (5, True), (6, False), (7, False)])
def test_too_few_clients_do_both_jobs_rather_than_one_alone(clients, shared):
    dealt = deal(CLIENTS[:clients])
    assert (dealt.evaluation == dealt.feedback) == shared
    assert min(len(dealt.evaluation), len(dealt.feedback)) >= min(3, clients)

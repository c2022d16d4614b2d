"""The order in which models take turns."""

from __future__ import annotations

import pathlib

import pytest

from android_bench import plan
from android_bench.plan import Configuration, Model

MODELS = [Model(name, pathlib.Path(name)) for name in ("a", "b", "c")]
CONFIGURATIONS = [Configuration(threads, "cpu", "all") for threads in (1, 4)]


@pytest.mark.parametrize("seed", range(5))
def test_every_round_has_every_pair_once_and_is_the_last_one_reversed(seed):
    rounds = plan.order(MODELS, CONFIGURATIONS, 4, seed)
    every = {(c, m) for c in CONFIGURATIONS for m in MODELS}
    for number, sequence in enumerate(rounds):
        assert len(sequence) == len(every) and set(sequence) == every
        if number:
            assert sequence == rounds[number - 1][::-1]


def test_models_of_a_configuration_are_neighbours():
    for sequence in plan.order(MODELS, CONFIGURATIONS, 2, 0):
        configurations = [configuration for configuration, _ in sequence]
        assert configurations == sorted(configurations, key=configurations.index)


def test_the_start_is_drawn_and_can_be_drawn_again():
    starts = {plan.order(MODELS[:2], CONFIGURATIONS[:1], 1, seed)[0][0] for seed in range(20)}
    assert len(starts) == 2
    assert plan.order(MODELS, CONFIGURATIONS, 3, 7) == plan.order(MODELS, CONFIGURATIONS, 3, 7)


def test_names():
    assert str(Configuration(1, "gpu", "f0")) == "gpu, 1 thread, f0 cores"
    assert str(Configuration(4, "xnnpack", "big")) == "xnnpack, 4 threads, big cores"

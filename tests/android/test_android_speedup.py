"""The ratio, and whether its interval keeps its promise."""

from __future__ import annotations

import random

import pytest

from android_bench import speedup


def test_ratio_of_medians():
    ratio = speedup.ratio_of_medians([30, 20, 100], [10, 10, 10], seed=0)
    assert ratio.ratio == 3
    assert ratio.low == 2 and ratio.high == 10
    assert ratio.rounds == 3 and ratio.verdict == "faster"


def test_equal_rounds_have_no_width():
    ratio = speedup.ratio_of_medians([8.0] * 5, [4.0] * 5, seed=0)
    assert (ratio.low, ratio.ratio, ratio.high) == (2, 2, 2)


@pytest.mark.parametrize("factor, verdict", [(0.5, "slower"), (2.0, "faster")])
def test_what_rounds_share_cancels(factor, verdict):
    # A device that slows down by half from one round to the next: the ratio stays.
    baseline = [10.0 * 1.5**i for i in range(7)]
    ratio = speedup.ratio_of_medians(baseline, [b / factor for b in baseline], seed=0)
    assert ratio.low == pytest.approx(factor) and ratio.high == pytest.approx(factor)
    assert ratio.verdict == verdict


@pytest.mark.parametrize("rounds", [1, 2])
def test_too_few_rounds_for_an_interval(rounds):
    ratio = speedup.ratio_of_medians([2.0] * rounds, [1.0] * rounds, seed=0)
    assert (ratio.ratio, ratio.low, ratio.high) == (2, None, None)
    assert ratio.verdict.startswith("too few")


def test_unpaired_values_are_refused():
    with pytest.raises(ValueError, match="pairs"):
        speedup.ratio_of_medians([1.0, 2.0], [1.0], seed=0)


def test_the_interval_holds_the_true_ratio_about_as_often_as_it_says():
    rng = random.Random(0)
    held = 0
    for trial in range(40):
        baseline = [20 * rng.lognormvariate(0, 0.03) for _ in range(7)]
        model = [10 * rng.lognormvariate(0, 0.03) for _ in range(7)]
        ratio = speedup.ratio_of_medians(baseline, model, seed=trial)
        held += ratio.low <= 2.0 <= ratio.high
    # 38 of 40 on average at 95 %; the bootstrap of a median of seven is a little short of that.
    assert held >= 33

"""The ratio, and whether its interval keeps its promise."""

from __future__ import annotations

import random

import pytest
from scipy import stats

from android_bench import speedup, validity

MAX_DRIFT = 0.10


def test_estimate_and_interval():
    ratio = speedup.paired_ratio([20, 20, 22, 24, 20, 40], [10] * 6)
    assert (ratio.low, ratio.high) == pytest.approx((2, 4)), "with six pairs, the extremes"
    assert 2 < ratio.ratio < 2.4 and ratio.rounds == 6
    assert ratio.verdict == "faster"


def test_equal_rounds_have_no_width():
    ratio = speedup.paired_ratio([8.0] * 7, [4.0] * 7)
    assert (ratio.low, ratio.ratio, ratio.high) == pytest.approx((2, 2, 2))


@pytest.mark.parametrize("factor, verdict", [(0.5, "slower"), (2.0, "faster")])
def test_what_rounds_share_cancels(factor, verdict):
    # A device that slows down by half from one round to the next: the ratio stays.
    baseline = [10.0 * 1.5**i for i in range(7)]
    ratio = speedup.paired_ratio(baseline, [b / factor for b in baseline])
    assert ratio.low == pytest.approx(factor) and ratio.high == pytest.approx(factor)
    assert ratio.verdict == verdict


@pytest.mark.parametrize("rounds", [1, 2, 5])
def test_too_few_rounds_for_an_interval(rounds):
    ratio = speedup.paired_ratio([2.0] * rounds, [1.0] * rounds)
    assert ratio.ratio == pytest.approx(2) and (ratio.low, ratio.high) == (None, None)
    assert ratio.verdict == f"too few rounds for an interval ({rounds}, at least 6)"


def test_unpaired_values_are_refused():
    with pytest.raises(ValueError, match="pairs"):
        speedup.paired_ratio([1.0, 2.0], [1.0])


@pytest.mark.parametrize("rounds", [6, 7, 12, 20])
def test_the_verdict_is_that_of_wilcoxons_test(rounds):
    rng = random.Random(rounds)
    verdicts = set()
    for _ in range(100):
        logs = [rng.gauss(0.4, 1) for _ in range(rounds)]
        ratio = speedup.paired_ratio([2.0**log for log in logs], [1.0] * rounds)
        p_value = stats.wilcoxon(logs, mode="exact").pvalue
        assert (ratio.verdict != "no difference shown") == (p_value <= 0.05)
        verdicts.add(ratio.verdict)
    assert len(verdicts) > 1


def session(rng, rounds, scatter, spikes, slope):
    """Times of one model: noise, now and then a slow round, and a trend over the session."""
    return [
        10
        * rng.lognormvariate(0, scatter)
        * (1 + slope * number / rounds)
        * (1.5 if rng.random() < spikes else 1)
        for number in range(rounds)
    ]


@pytest.mark.parametrize("rounds", [7, 15, 31])
@pytest.mark.parametrize(
    "scatter, spikes, slope",
    [(0.01, 0, 0), (0.04, 0, 0), (0.12, 0, 0), (0.04, 0.1, 0), (0.02, 0, 0.2)],
    ids=["calm", "scatter", "wild", "spikes", "trend"],
)
def test_two_equal_models(rounds, scatter, spikes, slope):
    """Simulates sessions that compare a model with itself, by the rules of a real one."""
    rng = random.Random(0)
    sessions, false, without_result = 45_000 // rounds, 0, 0
    for _ in range(sessions):
        times = [session(rng, rounds, scatter, spikes, slope) for _ in range(2)]
        dropped = [validity.drift(each, MAX_DRIFT) for each in times]
        pairs = [pair for *pair, one, two in zip(*times, *dropped) if one is None and two is None]
        if len(pairs) < speedup.MIN_PAIRS or 2 * len(pairs) <= rounds:
            without_result += 1
            continue
        false += speedup.paired_ratio(*zip(*pairs)).verdict in ("faster", "slower")
    # The level is 5 %.
    assert false / sessions <= 0.06
    # Of seven rounds with many spikes, sometimes fewer than six pairs are left.
    assert without_result / sessions <= {7: 0.4 if spikes else 0.04}.get(rounds, 0.005)

"""Sustained runs and energy: what the figures are made of."""

from __future__ import annotations

import pytest

from android_bench import energy, sustained
from android_bench.sustained import Point


def points(*times):
    return [Point(10.0 * (i + 1), us, 30.0, 50.0, 0) for i, us in enumerate(times)]


def test_a_phone_that_throttles():
    found = sustained.analyse(points(100, 101, 99, 100, 130, 131, 129, 130))
    assert found == {
        "initial_us": 100,
        "final_us": 130,
        "slowdown": 1.3,
        "throttled_after_s": 50.0,
    }


def test_one_slow_start_is_no_throttling():
    found = sustained.analyse(points(100, 101, 99, 180, 100, 101))
    assert found["throttled_after_s"] is None and found["slowdown"] == 1.01


def test_too_short_for_two_states():
    assert set(sustained.analyse(points(1, 2, 3)).values()) == {None}


@pytest.mark.parametrize(
    "line, watts",
    [
        ("-350000 4000000", [1.4]),  # Microamperes, drawn.
        ("350 4000000", [1.4]),  # Milliamperes.
        ("0 4000000", []),
        ("350000 400", []),  # No battery has such a voltage.
        (" 4000000", []),
        ("cat: Permission denied", []),
    ],
)
def test_gauges(line, watts):
    assert energy.parse(f"{line}\n") == pytest.approx(watts)


def test_estimate():
    found = energy.estimate("m", {}, [1.0] * 9, [3.0] * 9, mean_us=500.0)
    assert found.reasons == [] and found.millijoules == pytest.approx(1.0)  # 2 W for half a ms.
    assert energy.estimate("m", {}, [1.0], [3.0] * 9, 500.0).reasons
    assert energy.estimate("m", {}, [3.0] * 9, [1.0] * 9, 500.0).millijoules is None

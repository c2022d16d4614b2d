"""Every rule by which a measurement does not count."""

from __future__ import annotations

import dataclasses

import pytest

from android_bench import device, validity
from android_bench.device import DeviceState
from android_bench.parse import BenchmarkRun, Delegation, Statistics
from android_bench.plan import Configuration, Settings

INFO = device.parse_info(
    "S",
    "ro.product.model=P\n" + "".join(f"cpu {c} {k} schedutil\n" for c, k in ((0, 1000), (1, 2000))),
)
SETTINGS = Settings((Configuration(1, "xnnpack", "all"),))
GOOD = DeviceState(
    battery_percent=80,
    battery_c=30.0,
    skin_c=31.0,
    thermal_status=0,
    power_save=False,
    screen_on=True,
    max_khz={0: 1000, 1: 2000},
    free_kib=10_000,
)
RUN = BenchmarkRun(
    complete=True,
    inference_us=100.0,
    inference=Statistics(50, 1.0, 1.0, 90.0, 120.0, 100.0, 5.0),
    delegations=(Delegation("XNNPACK", "complete"),),
)


def preflight(**changes):
    state = dataclasses.replace(GOOD, **changes)
    return validity.preflight(INFO, state, SETTINGS, (0, 1), need_kib=100)


def test_a_fit_device():
    assert preflight() == []


def test_a_device_that_hides_everything_is_not_accused_of_anything():
    assert validity.preflight(INFO, DeviceState(), SETTINGS, (0, 1), need_kib=100) == []


@pytest.mark.parametrize(
    "changes, reason",
    [
        ({"skin_c": 40.0}, "40.0 °C, above 38.0 °C"),
        ({"skin_c": None, "battery_c": 40.0}, "40.0 °C, above 38.0 °C"),
        ({"thermal_status": 2}, "thermal status 2"),
        ({"battery_percent": 12.0}, "battery is at 12 %"),
        ({"power_save": True}, "battery saver"),
        ({"screen_on": False}, "screen"),
        ({"max_khz": {0: 1000, 1: 1500}}, "cores 1 are capped"),
        ({"free_kib": 99}, "99 KiB are free, 100 KiB are needed"),
    ],
)
def test_an_unfit_device(changes, reason):
    (found,) = preflight(**changes)
    assert reason in found


def test_a_cap_on_cores_that_are_not_used_does_not_matter():
    state = dataclasses.replace(GOOD, max_khz={0: 500, 1: 2000})
    assert validity.preflight(INFO, state, SETTINGS, (1,), need_kib=1) == []


def test_a_governor_that_holds_cores_down():
    slow = device.parse_info("S", "ro.product.model=P\ncpu 0 1000 powersave\n")
    (found,) = validity.preflight(slow, GOOD, SETTINGS, (0,), need_kib=1)
    assert "powersave" in found


def test_a_good_run():
    assert validity.run(RUN, 0, "xnnpack", 50) == []
    more = dataclasses.replace(RUN, inference=dataclasses.replace(RUN.inference, count=900))
    assert validity.run(more, 0, "xnnpack", 50) == [], "the binary may make more runs"


@pytest.mark.parametrize(
    "run, code, delegate, reason",
    [
        (RUN, 139, "xnnpack", "exit code 139"),
        (None, 0, "xnnpack", "no summary"),
        (dataclasses.replace(RUN, complete=False), 0, "xnnpack", "no summary"),
        (
            dataclasses.replace(RUN, complete=False, errors=("Failed to load model",)),
            1,
            "xnnpack",
            "exit code 1: Failed to load model",
        ),
        (
            dataclasses.replace(RUN, delegations=(Delegation("XNNPACK", "none"),)),
            0,
            "xnnpack",
            "fell back to the CPU",
        ),
        (RUN, 0, "gpu", "does not say that GPU took the model"),
        (RUN, 0, "cpu", "plain kernels were asked for, XNNPACK ran"),
        (
            dataclasses.replace(RUN, inference=dataclasses.replace(RUN.inference, count=49)),
            0,
            "xnnpack",
            "49 inferences instead of 50",
        ),
        (
            dataclasses.replace(RUN, unconsumed_flags="--use_xnnpack=true"),
            0,
            "xnnpack",
            "does not know --use_xnnpack=true",
        ),
        (dataclasses.replace(RUN, errors=("Benchmarking failed.",)), 0, "xnnpack", "failed"),
    ],
)
def test_a_bad_run(run, code, delegate, reason):
    (found,) = validity.run(run, code, delegate, 50)
    assert reason in found


def test_partial_delegation():
    partial = dataclasses.replace(RUN, delegations=(Delegation("GPU", "partial"),))
    assert validity.run(partial, 0, "gpu", 50) == [], "valid, but said"
    assert validity.is_partial(partial, "gpu")
    assert not validity.is_partial(RUN, "xnnpack")


def test_throttling_during_a_run():
    hot = dataclasses.replace(GOOD, thermal_status=3)
    assert "thermal status 3" in validity.throttling(INFO, GOOD, hot, (0, 1))[0]
    capped = dataclasses.replace(GOOD, max_khz={0: 1000, 1: 1000})
    assert "capped" in validity.throttling(INFO, GOOD, capped, (0, 1))[0]
    assert validity.throttling(INFO, GOOD, GOOD, (0, 1)) == []


@pytest.mark.parametrize(
    "latencies, wrong",
    [
        ([10.0, 10.5, 10.9], []),
        ([10.0, 10.5, 11.1], [2]),
        # Half of the session throttled: the slow half goes, although it has the median.
        ([10.0, 10.1, 13.0, 13.1, 13.2], [2, 3, 4]),
        ([], []),
    ],
)
def test_drift(latencies, wrong):
    reasons = validity.drift(latencies, 0.10)
    assert [i for i, reason in enumerate(reasons) if reason] == wrong

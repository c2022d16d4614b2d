"""Every rule by which a measurement does not count."""

from __future__ import annotations

import dataclasses

import pytest

from android_bench import device, validity
from android_bench.delegation import Delegation, Execution
from android_bench.device import DeviceState
from android_bench.parse import BenchmarkRun, Statistics
from android_bench.plan import Configuration, Settings
from android_bench.tools import ANY_OTHER, BENCHMARK_MODEL, logged_name

INFO = device.parse_info(
    "S",
    "ro.product.model=P\nsys.boot_completed=1\n"
    + "".join(f"cpu {c} {k} schedutil -\n" for c, k in ((0, 1000), (1, 2000))),
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
    execution=Execution((Delegation("XNNPACK", "complete"),)),
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
    text = "ro.product.model=P\nsys.boot_completed=1\ncpu 0 1000 powersave -\n"
    slow = device.parse_info("S", text)
    (found,) = validity.preflight(slow, GOOD, SETTINGS, (0,), need_kib=1)
    assert "powersave" in found


def test_a_good_run():
    assert validity.run(RUN, 0, "", "XNNPACK", 50) == []
    more = dataclasses.replace(RUN, inference=dataclasses.replace(RUN.inference, count=900))
    assert validity.run(more, 0, "", "XNNPACK", 50) == [], "the binary may make more runs"


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
            dataclasses.replace(RUN, execution=Execution((Delegation("XNNPACK", "none"),))),
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
    text = "\n".join(run.errors) if run else ""
    (found,) = validity.run(run, code, text, logged_name(BENCHMARK_MODEL, delegate, ()), 50)
    assert reason in found


def test_any_delegate_but_the_default_one():
    npu = dataclasses.replace(RUN, execution=Execution((Delegation("TFLITEQNN", "partial"),)))
    assert validity.run(npu, 0, "", ANY_OTHER, 50) == []
    (found,) = validity.run(RUN, 0, "", ANY_OTHER, 50)
    assert "does not say that a delegate other than XNNPACK took the model" in found


def test_remarks_about_a_valid_run():
    execution = Execution((Delegation("GPU", "partial", 3, 9),), "OpenGL", "OpenCL")
    run = dataclasses.replace(RUN, execution=execution, errors=("ModifyGraph is disallowed.",))
    assert validity.run(run, 0, "", "GPU", 50) == [], "valid, but said"
    assert validity.remarks(run) == [
        "an error in a completed run: ModifyGraph is disallowed.",
        "GPU took only a part of the model",
        "OpenGL ran, because OpenCL failed",
    ]
    assert str(execution) == "GPU (OpenGL, because OpenCL failed), 3 of 9 nodes"
    assert validity.remarks(RUN) == []


def test_cores_that_are_switched_off():
    off = dataclasses.replace(GOOD, online=(0,))
    assert validity.preflight(INFO, off, SETTINGS, (1,), need_kib=1) == ["cores 1 are switched off"]
    on = dataclasses.replace(GOOD, online=(0, 1))
    assert validity.throttling(INFO, on, off, (0, 1)) == ["cores 1 are switched off"]
    assert validity.throttling(INFO, on, off, (0,)) == []


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
        ([10.0, 10.1, 9.9, 10.0, 11.5], [4]),
        # A fast round does not make the others slow.
        ([10.0, 10.1, 8.0, 10.0, 10.2], []),
        # Within the scatter.
        ([8.0, 9.0, 10.0, 11.0, 12.0], []),
        ([10.0, 10.1, 10.0, 10.2, 13.0, 13.1, 13.2], [4, 5, 6]),
        ([], []),
    ],
)
def test_drift(latencies, wrong):
    reasons = validity.drift(latencies, 0.10)
    assert [i for i, reason in enumerate(reasons) if reason] == wrong


def test_trend():
    assert validity.trend([10.0, 10.1, 9.9, 10.2, 10.0, 10.1], 0.10) is None
    slower = validity.trend([10.0, 10.1, 13.0, 13.1, 13.2], 0.10)
    assert slower == "its second half is 31 % slower than its first"
    assert validity.trend([10.0, 20.0], 0.10) is None, "too few to say"

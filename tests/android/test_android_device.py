"""What is read from a device's own words, and which cores runs are bound to."""

from __future__ import annotations

import pytest

from android_bench import cores, device
from android_bench.adb import AdbError
from android_bench.cores import Cluster
from android_bench.errors import UserError

INFO = """\
ro.product.manufacturer=Google
ro.product.model=Pixel 6
ro.soc.manufacturer=Google
ro.soc.model=Tensor
ro.product.cpu.abilist=arm64-v8a,armeabi-v7a
ro.build.version.release=14
ro.build.version.sdk=34
ro.kernel.qemu=
sys.boot_completed=1
cpu 0 1803000 sched_pixel -
cpu 1 1803000 sched_pixel -
cpu 2 2802000 sched_pixel -
cpu 3 2253000 sched_pixel -
cpu 10 1803000 sched_pixel -
online=0-3,10
taskset=yes
"""

OFFLINE = INFO.replace("cpu 2 2802000 sched_pixel", "cpu 2 - -").replace("0-3,", "0-1,3,")

STATE = """\
@battery
Current Battery Service state:
  USB powered: true
  level: 40
  scale: 50
  temperature: 297
@thermal
IsStatusOverride: false
Thermal Status: 1
Cached temperatures:
\tTemperature{mValue=99.0, mType=3, mName=skin, mStatus=0}
Current temperatures from HAL:
\tTemperature{mValue=48.25, mType=0, mName=CPU0, mStatus=0}
\tTemperature{mValue=51.5, mType=0, mName=CPU1, mStatus=0}
\tTemperature{mValue=33.5, mType=3, mName=skin, mStatus=0}
\tTemperature{mValue=0.0, mType=3, mName=VIRTUAL-UI, mStatus=0}
Current cooling devices from HAL:
@zones
battery 29000
cpu-0-0 70000
@power
low_power=0
  mWakefulness=Awake
Display Power: state=ON
@cpus
0 1803000
2 2000000
3
@space
Filesystem     1K-blocks     Used Available Use% Mounted on
/dev/block/dm-50 113179628 41179628  72000000  37% /data
"""


def test_info():
    info = device.parse_info("S", INFO)
    assert (info.manufacturer, info.model, info.soc) == ("Google", "Pixel 6", "Google Tensor")
    assert info.abis == ("arm64-v8a", "armeabi-v7a")
    assert (info.android_version, info.sdk, info.backend) == ("14", 34, "phone")
    assert info.clusters == (
        Cluster((0, 1, 10), 1803000, "sched_pixel"),
        Cluster((3,), 2253000, "sched_pixel"),
        Cluster((2,), 2802000, "sched_pixel"),
    )
    assert info.clusters_text == "3x1.80 + 1x2.25 + 1x2.80 GHz"


def test_backends():
    emulator = INFO.replace("ro.kernel.qemu=", "ro.kernel.qemu=1")
    assert device.parse_info("S", emulator).backend == "emulator"
    double = INFO + f"{device.BACKEND_PROPERTY}=loopback double\n"
    assert device.parse_info("S", double).backend == "loopback double"


def test_text_of_a_device_cannot_steer_the_terminal():
    info = device.parse_info("S", INFO.replace("Pixel 6", "Pixel\x1b[2J\x076"))
    assert info.model == "Pixel\\x1b[2J\\x076"


def test_a_device_that_is_still_booting():
    with pytest.raises(AdbError, match="booting"):
        device.parse_info("S", "sh: getprop: not found\n")
    with pytest.raises(AdbError, match="still booting"):
        device.parse_info("S", INFO.replace("sys.boot_completed=1", "sys.boot_completed="))


def test_state():
    state = device.parse_state(STATE)
    assert (state.battery_percent, state.battery_c) == (80, 29.7)
    assert (state.skin_c, state.cpu_c, state.body_c) == (33.5, 51.5, 33.5)
    assert (state.thermal_status, state.power_save, state.screen_on) == (1, False, True)
    assert state.max_khz == {0: 1803000, 2: 2000000}
    assert state.free_kib == 72000000


def test_state_of_an_old_device():
    text = STATE[: STATE.index("@thermal")] + STATE[STATE.index("@zones") :].replace(
        "low_power=0", "low_power=null"
    ).replace("Awake", "Dozing")
    state = device.parse_state(text)
    assert (state.thermal_status, state.skin_c, state.power_save) == (None, None, None)
    assert state.cpu_c == 70, "from the kernel's zones"
    assert state.body_c == 29.7, "the battery's"
    assert state.screen_on is False


@pytest.mark.parametrize(
    "which, threads, mask",
    [
        ("big", 1, "4"),  # The fastest core.
        ("big", 2, "c"),  # With the next cluster.
        ("big", 3, "40f"),
        ("little", 3, "403"),
        ("all", 4, None),
        ("c", 2, "c"),
        ("0c", 2, "c"),
    ],
)
def test_core_masks(which, threads, mask):
    info = device.parse_info("S", INFO)
    assert cores.core_mask(info, which, threads) == mask


@pytest.mark.parametrize(
    "which, threads, text, message",
    [
        ("little", 4, INFO, "only 3 such cores"),
        ("big", 6, INFO, "only 5 such cores"),
        ("4", 2, INFO, "only 1 such cores"),
        ("big", 1, INFO.replace("1803000", "-"), "hides"),
        ("big", 1, INFO.replace("taskset=yes\n", ""), "no taskset"),
        ("40000000000", 1, INFO, "has 5 cores"),
        ("big", 1, OFFLINE, "cores 2 are switched off"),
        ("c", 1, OFFLINE, "cores 2 are switched off"),
    ],
)
def test_masks_that_are_not_to_be_had(which, threads, text, message):
    with pytest.raises(UserError, match=message):
        cores.core_mask(device.parse_info("S", text), which, threads)


def test_without_binding_a_device_needs_no_taskset():
    info = device.parse_info("S", INFO.replace("taskset=yes\n", "").replace("1803000", "-"))
    assert cores.core_mask(info, "all", 2) is None


def test_cores_that_are_switched_off():
    info = device.parse_info("S", OFFLINE)
    assert info.offline == (2,)
    assert info.clusters_text == "3x1.80 + 1x2.25 GHz"
    assert cores.core_mask(info, "little", 1) == "403"
    assert cores.core_mask(info, "all", 1) is None


def test_clusters_of_one_frequency_are_told_apart_by_their_capacity():
    # Helio P60: four A53 and four A73, all up to 2.0 GHz.
    lines = [f"cpu {n} 2001000 schedutil {381 if n < 4 else 1024}\n" for n in range(8)]
    head = "ro.product.model=P60\nsys.boot_completed=1\ntaskset=yes\n"
    info = device.parse_info("S", head + "".join(lines))
    assert [c.cores for c in info.clusters] == [(0, 1, 2, 3), (4, 5, 6, 7)]
    assert cores.core_mask(info, "big", 4) == "f0"
    assert cores.core_mask(info, "little", 1) == "f"


@pytest.mark.parametrize(
    "battery, percent, celsius",
    [
        ("  level: 40\n  scale: 0\n  temperature: 297", None, 29.7),
        ("  level: 140\n  scale: 100\n  temperature: 31000", None, 31),  # Thousandths.
        ("  level: 40\n  temperature: 30", 40, None),  # 3 degrees, or 30?
        ("  level: -1\n  scale: 100\n  temperature: -2147483648", None, None),
        ("  present: false\n  level: 0\n  scale: 100\n  temperature: 250", None, None),  # A TV box.
        ("Can't find service: battery", None, None),
    ],
)
def test_batteries(battery, percent, celsius):
    state = device.parse_state(STATE.replace(STATE[9 : STATE.index("@thermal")], battery + "\n"))
    assert (state.battery_percent, state.battery_c) == (percent, celsius)
    assert state.thermal_status == 1, "the rest is read all the same"


@pytest.mark.parametrize("usb, charging", [("true", True), ("false", False)])
def test_whether_it_is_being_charged(usb, charging):
    assert device.parse_state(
        STATE.replace("USB powered: true", f"USB powered: {usb}")
    ).charging is (charging)


def test_core_lists():
    assert cores.parse_core_list("0-2,6\n") == (0, 1, 2, 6)
    assert cores.parse_core_list("") == ()

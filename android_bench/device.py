"""What a phone is (`DeviceInfo`) and what state it is in (`DeviceState`).

Sources: Android's properties, `dumpsys battery`, `dumpsys thermalservice` (Android 10 and later),
`dumpsys power`, and the kernel's sysfs (Documentation/admin-guide/pm/cpufreq.rst,
Documentation/driver-api/thermal/sysfs-api.rst). What a device hides is None, never guessed.
"""

from __future__ import annotations

import dataclasses
import re
from typing import Optional

from android_bench.adb import AdbError, DeviceConnection, printable
from android_bench.cores import Cluster, Core, clusters_text, find_clusters, parse_core_list

REMOTE_ROOT = "/data/local/tmp"

# The backend that a result names. A stand-in for a phone says so by this property; it can never
# pass as one.
BACKEND_PROPERTY = "ro.android_bench.backend"
BACKEND_PHONE = "phone"
BACKEND_EMULATOR = "emulator"

_PROBE_TIMEOUT_S = 60.0

_PROPERTIES = (
    "ro.product.manufacturer",
    "ro.product.model",
    "ro.soc.manufacturer",
    "ro.soc.model",
    "ro.board.platform",
    "ro.hardware",
    "ro.product.cpu.abilist",
    "ro.product.cpu.abi",
    "ro.build.version.release",
    "ro.build.version.sdk",
    "ro.build.fingerprint",
    "ro.kernel.qemu",
    "ro.boot.qemu",
    "sys.boot_completed",
    BACKEND_PROPERTY,
)
_CPUS = "/sys/devices/system/cpu/cpu[0-9]*"
_ONLINE = "/sys/devices/system/cpu/online"
_INFO_SCRIPT = f"""
for p in {" ".join(_PROPERTIES)}; do echo "$p=$(getprop $p)"; done
for c in {_CPUS}; do
echo "cpu ${{c##*cpu}} $(cat $c/cpufreq/cpuinfo_max_freq 2>/dev/null || echo -)\
 $(cat $c/cpufreq/scaling_governor 2>/dev/null || echo -)\
 $(cat $c/cpu_capacity 2>/dev/null || echo -)"
done
echo "online=$(cat {_ONLINE} 2>/dev/null)"
command -v taskset >/dev/null && echo taskset=yes"""
_STATE_SCRIPT = f"""
echo @battery; dumpsys battery
echo @thermal; dumpsys thermalservice 2>/dev/null
echo @zones
for z in /sys/class/thermal/thermal_zone*; do
echo "$(cat $z/type 2>/dev/null) $(cat $z/temp 2>/dev/null)"
done
echo @power; echo "low_power=$(settings get global low_power)"
dumpsys power | grep -E 'mWakefulness=|Display Power: state='
echo @cpus
for c in {_CPUS}; do
echo "${{c##*cpu}} $(cat $c/cpufreq/scaling_max_freq 2>/dev/null)"
done
echo @online; cat {_ONLINE} 2>/dev/null
echo @space; df -k {REMOTE_ROOT}"""

# Temperature types of android.hardware.thermal.
_HAL_CPU, _HAL_SKIN = 0, 3
_CPU_ZONE = re.compile(r"cpu|soc|big|little|cluster", re.IGNORECASE)
# Zones without a sensor behind them read as 0, negative, or absurd values.
_PLAUSIBLE_C = (1.0, 125.0)


@dataclasses.dataclass(frozen=True)
class DeviceInfo:
    """What does not change while the device runs.

    Attributes:
      serial: As adb names it.
      backend: "phone", "emulator", or what a stand-in calls itself.
      manufacturer: E.g. "Google".
      model: E.g. "Pixel 6".
      soc: E.g. "Google Tensor"; the board's platform before Android 12.
      abis: Supported ABIs, preferred first.
      android_version: E.g. "14".
      sdk: API level; None if unreadable.
      fingerprint: The build.
      clusters: Slowest first.
      offline: Cores that are switched off at present; about them nothing else is known.
      has_taskset: Whether runs can be bound to cores.
    """

    serial: str
    backend: str
    manufacturer: str
    model: str
    soc: str
    abis: tuple[str, ...]
    android_version: str
    sdk: Optional[int]
    fingerprint: str
    clusters: tuple[Cluster, ...]
    has_taskset: bool
    offline: tuple[int, ...] = ()

    @property
    def clusters_text(self) -> str:
        """E.g. "4x1.80 + 2x2.25 + 2x2.80 GHz"."""
        return clusters_text(self.clusters)


@dataclasses.dataclass(frozen=True)
class DeviceState:
    """What changes while it runs; None where the device does not tell.

    Attributes:
      battery_percent: Charge.
      battery_c: Temperature of the battery, degrees Celsius.
      skin_c: Temperature of the case, as Android's thermal service estimates it.
      cpu_c: The hottest CPU sensor.
      thermal_status: Android's: 0 none, 1 light, 2 moderate, 3 severe, 4 critical and above.
      power_save: Whether battery saver is on.
      screen_on: Whether the screen is on and the device awake.
      charging: Whether power comes in by a cable or a charging pad.
      max_khz: Core -> highest frequency that the kernel allows at present.
      online: Cores that are switched on; empty if the device does not tell.
      free_kib: Free space where the files go.
    """

    battery_percent: Optional[float] = None
    battery_c: Optional[float] = None
    skin_c: Optional[float] = None
    cpu_c: Optional[float] = None
    thermal_status: Optional[int] = None
    power_save: Optional[bool] = None
    screen_on: Optional[bool] = None
    charging: Optional[bool] = None
    max_khz: dict[int, int] = dataclasses.field(default_factory=dict)
    online: tuple[int, ...] = ()
    free_kib: Optional[int] = None

    @property
    def body_c(self) -> Optional[float]:
        """The temperature that decides about throttling: the case's, else the battery's.

        The CPU's own follows the load within a second, so it does not tell a cool phone.
        """
        return self.battery_c if self.skin_c is None else self.skin_c


def read_info(connection: DeviceConnection) -> DeviceInfo:
    """Asks the device what it is.

    Raises:
      AdbError: If it does not answer.
    """
    result = connection.shell(_INFO_SCRIPT, _PROBE_TIMEOUT_S)
    return parse_info(connection.serial, result.output)


def read_state(connection: DeviceConnection) -> DeviceState:
    """Asks the device how it is.

    Raises:
      AdbError: If it does not answer.
    """
    return parse_state(connection.shell(_STATE_SCRIPT, _PROBE_TIMEOUT_S).output)


def parse_info(serial: str, text: str) -> DeviceInfo:
    """Reads the output of the script that asks for properties and cores.

    Raises:
      AdbError: If the device is still booting, or does not tell its properties.
    """
    properties: dict[str, str] = {}
    cores: dict[int, Core] = {}
    online: tuple[int, ...] = ()
    has_taskset = False
    for line in text.splitlines():
        key, equals, value = line.partition("=")
        if equals and key in _PROPERTIES:
            properties.setdefault(key, printable(value.strip()))
        elif line == "taskset=yes":
            has_taskset = True
        elif key == "online":
            online = parse_core_list(value)
        elif match := re.fullmatch(r"cpu (\d+) (\d+|-) (\S+) (\d+|-)", line):
            cores[int(match[1])] = Core(
                None if match[2] == "-" else int(match[2]),
                None if match[3] == "-" else printable(match[3]),
                None if match[4] == "-" else int(match[4]),
            )
    if not properties:
        raise AdbError(f"{printable(serial)}: it does not tell its properties; is it booting?")
    if properties.get("sys.boot_completed") != "1":
        raise AdbError(f"{printable(serial)}: it is still booting; try again in a minute.")
    offline = sorted(set(cores) - set(online)) if online else []
    emulated = "1" in (properties.get("ro.kernel.qemu"), properties.get("ro.boot.qemu"))
    soc = " ".join(filter(None, map(properties.get, ("ro.soc.manufacturer", "ro.soc.model"))))
    abis = properties.get("ro.product.cpu.abilist") or properties.get("ro.product.cpu.abi", "")
    sdk = properties.get("ro.build.version.sdk", "")
    return DeviceInfo(
        serial=serial,
        backend=properties.get(BACKEND_PROPERTY)
        or (BACKEND_EMULATOR if emulated else BACKEND_PHONE),
        manufacturer=properties.get("ro.product.manufacturer", ""),
        model=properties.get("ro.product.model", ""),
        soc=soc or properties.get("ro.board.platform") or properties.get("ro.hardware", ""),
        abis=tuple(filter(None, abis.split(","))),
        android_version=properties.get("ro.build.version.release", ""),
        sdk=int(sdk) if sdk.isdigit() else None,
        fingerprint=properties.get("ro.build.fingerprint", ""),
        clusters=find_clusters({n: core for n, core in cores.items() if n not in offline}),
        has_taskset=has_taskset,
        offline=tuple(offline),
    )


def parse_state(text: str) -> DeviceState:
    """Reads the output of the script that asks for battery, temperatures, power and space."""
    sections: dict[str, str] = {}
    for part in re.split(r"^@", text, flags=re.MULTILINE)[1:]:
        name, _, body = part.partition("\n")
        sections[name.strip()] = body
    battery = _battery(sections.get("battery", ""))
    thermal = sections.get("thermal", "")
    status = re.search(r"Thermal Status: (\d+)", thermal)
    hal = _hal_temperatures(thermal)
    power = sections.get("power", "")
    saver = re.search(r"^low_power=([01])\s*$", power, re.MULTILINE)
    awake = re.search(r"mWakefulness=(\w+)", power)
    display = re.search(r"Display Power: state=(\w+)", power)
    caps = re.findall(r"^(\d+) (\d+)\s*$", sections.get("cpus", ""), re.MULTILINE)
    return DeviceState(
        battery_percent=battery.percent,
        battery_c=battery.celsius,
        skin_c=max(hal.get(_HAL_SKIN, []), default=None),
        cpu_c=max(hal.get(_HAL_CPU, []) or _cpu_zones(sections.get("zones", "")), default=None),
        thermal_status=int(status[1]) if status else None,
        power_save=saver[1] == "1" if saver else None,
        screen_on=_screen_on(awake and awake[1], display and display[1]),
        charging=battery.charging,
        max_khz={int(core): int(khz) for core, khz in caps},
        online=parse_core_list(sections.get("online", "")),
        free_kib=_free_kib(sections.get("space", "")),
    )


@dataclasses.dataclass(frozen=True)
class _Battery:
    percent: Optional[float] = None
    celsius: Optional[float] = None
    charging: Optional[bool] = None


def _battery(text: str) -> _Battery:
    """Reads `dumpsys battery`; what cannot be is None, as all of it without a battery."""
    values = dict(re.findall(r"^\s+(level|scale|temperature|present): (\S+)", text, re.MULTILINE))
    if values.get("present") == "false":
        return _Battery()
    powered = re.findall(r"^\s+(?:AC|USB|Wireless|Dock) powered: (\w+)", text, re.MULTILINE)
    level, scale = _integer(values.get("level")), _integer(values.get("scale", "100"))
    percent = 100.0 * level / scale if level is not None and scale else None
    return _Battery(
        percent if percent is not None and 0 <= percent <= 100 else None,
        _battery_celsius(_integer(values.get("temperature"))),
        "true" in powered if powered else None,
    )


def _battery_celsius(value: Optional[int]) -> Optional[float]:
    """Tenths of a degree, as documented, or the thousandths of some devices.

    Between 0 and 10 degrees in tenths is what others give in whole degrees; which is not known.
    """
    if value is None:
        return None
    if 100 <= value <= 1000:
        return value / 10
    return value / 1000 if 10_000 <= value <= 100_000 else None


def _integer(text: Optional[str]) -> Optional[int]:
    return int(text) if text and re.fullmatch(r"-?\d+", text) else None


def _hal_temperatures(thermal: str) -> dict[int, list[float]]:
    """Type -> degrees, from the current readings; the cached ones above them may be old."""
    _, found, current = thermal.partition("Current temperatures from HAL")
    temperatures: dict[int, list[float]] = {}
    for value, kind in re.findall(
        r"Temperature\{mValue=(-?[\d.]+), mType=(-?\d+)", current if found else thermal
    ):
        if _PLAUSIBLE_C[0] <= float(value) <= _PLAUSIBLE_C[1]:
            temperatures.setdefault(int(kind), []).append(float(value))
    return temperatures


def _cpu_zones(zones: str) -> list[float]:
    """Degrees of the zones that are named after a CPU; the kernel gives thousandths."""
    degrees = []
    for line in zones.splitlines():
        match = re.fullmatch(r"(\S.*?) (-?\d+)", line.strip())
        if match and _CPU_ZONE.search(match[1]):
            celsius = int(match[2]) / 1000
            if _PLAUSIBLE_C[0] <= celsius <= _PLAUSIBLE_C[1]:
                degrees.append(celsius)
    return degrees


def _screen_on(wakefulness: Optional[str], display: Optional[str]) -> Optional[bool]:
    if wakefulness is None and display is None:
        return None
    return wakefulness in (None, "Awake") and display in (None, "ON")


def _free_kib(df: str) -> Optional[int]:
    """The column "Available" (toybox) of `df -k`; a long device name may wrap the row."""
    lines = df.split()
    numbers = [word for word in lines if word.isdigit()]
    return int(numbers[2]) if "Available" in lines and len(numbers) >= 3 else None

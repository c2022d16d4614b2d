"""The phone behind `AdbdDouble`: its files, its text, its commands, and what goes wrong with it.

Scripts run in a real POSIX shell, so quoting errors and injections are real ones. Only paths are
mapped: /data and /sys lie below the phone's own folder, and what the scripts `exec` from there goes
through `benchmark_double.py`, which stands in for the kernel's loader and for `benchmark_model`.
"""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from typing import Any, Optional

BACKEND = "loopback double"
_BENCHMARK = pathlib.Path(__file__).with_name("benchmark_double.py")

# What a phone's shell finds on its PATH, of that which the host has, too.
_TOYBOX = (
    *("cat", "chmod", "date", "echo", "grep", "ls", "mkdir", "rm", "sh", "sleep", "test"),
    "printf",
)
# TensorFlow's benchmark app.
APP = "org.tensorflow.lite.benchmark"
_SETTLE_S = 0.05


@dataclasses.dataclass(frozen=True)
class PhoneText:
    """What a model of phone says about itself.

    Attributes:
      properties: As `getprop` has them.
      core_khz: Core -> (top frequency, governor).
      capacity: Core -> cpu_capacity; empty if the kernel does not tell.
      thermalservice: Output of `dumpsys thermalservice`; empty before Android 10.
      zones: (type, thousandths of a degree) of the kernel's thermal zones.
      features: Of its adbd.
      extra_commands: Besides the common ones.
    """

    properties: dict[str, str]
    core_khz: dict[int, tuple[int, str]]
    thermalservice: str
    zones: tuple[tuple[str, int], ...]
    capacity: dict[int, int] = dataclasses.field(default_factory=dict)
    features: tuple[str, ...] = ("shell_v2", "cmd")
    extra_commands: tuple[str, ...] = ("sha256sum", "taskset")


MODERN = PhoneText(
    properties={
        "ro.product.manufacturer": "Google",
        "ro.product.model": "Pixel 6",
        "ro.soc.manufacturer": "Google",
        "ro.soc.model": "Tensor",
        "ro.product.cpu.abilist": "arm64-v8a,armeabi-v7a,armeabi",
        "ro.build.version.release": "14",
        "ro.build.version.sdk": "34",
        "ro.build.fingerprint": "google/oriole/oriole:14/DOUBLE/1:user/release-keys",
    },
    core_khz={
        **{core: (1803000, "sched_pixel") for core in range(4)},
        **{core: (2253000, "sched_pixel") for core in (4, 5)},
        **{core: (2802000, "sched_pixel") for core in (6, 7)},
    },
    thermalservice=(
        "IsStatusOverride: false\nThermal Status: {status}\nCached temperatures:\n"
        "\tTemperature{{mValue=77.0, mType=0, mName=BIG, mStatus=0}}\n"
        "HAL Ready: true\nCurrent temperatures from HAL:\n"
        "\tTemperature{{mValue=41.5, mType=0, mName=BIG, mStatus=0}}\n"
        "\tTemperature{{mValue={body:.1f}, mType=3, mName=VIRTUAL-SKIN, mStatus=0}}\n"
    ),
    zones=(("BIG", 41500), ("battery", 29000)),
)

OLD = PhoneText(
    properties={
        "ro.product.manufacturer": "motorola",
        "ro.product.model": "Moto G (2nd Gen)",
        "ro.board.platform": "msm8226",
        "ro.product.cpu.abilist": "armeabi-v7a,armeabi",
        "ro.build.version.release": "5.1.1",
        "ro.build.version.sdk": "22",
    },
    core_khz={core: (1190400, "interactive") for core in range(4)},
    thermalservice="",
    zones=(("tsens_tz_sensor0", 43000), ("cpu0-therm", 45000), ("pm8226_tz", -5)),
    features=(),
    extra_commands=(),
)


class Phone:
    """A phone that can be switched between states while it is connected.

    Attributes:
      features: Of its adbd.
      authorized: Whether it accepts the host's key.
      answers: Whether it greets a host at all; if not, the host calls it offline.
      unreachable: Whether new connections are refused.
      body_c: Temperature of case and battery.
      cools_by_c: How much cooler it is at each look.
      free_bytes: What still fits; pushing more fails.
      quota_bytes: A file larger than this fails, whatever `df` says.
      behaviour: What its benchmark_model does wrong; see `benchmark_double.py`.
      executes: Whether its shell may execute what was pushed.
      offline: Cores that are switched off.
      charging: Whether a cable gives power.
      gauge: (current_now, voltage_now) of the battery; None if hidden.
      installed: Whether the benchmark app is there.
      on_unplug: Breaks the connection.
      after_output: Called when a host has taken a part of a command's output.
    """

    def __init__(self, text: PhoneText = MODERN, **behaviour: Any) -> None:
        """Lays out its files below a temporary folder; `remove` takes it away."""
        self.text = text
        self.features = text.features
        self.authorized = True
        self.answers = True
        self.unreachable = False
        self.body_c = 29.0
        self.cools_by_c = 0.0
        self.battery_percent = 80
        self.power_save = False
        self.screen_on = True
        self.thermal_status = 0
        self.free_bytes = 1 << 32
        self.quota_bytes: Optional[int] = None
        self.capped_khz: dict[int, int] = {}
        self.executes = True
        self.offline: tuple[int, ...] = ()
        self.charging = True
        self.booted = True
        self.battery_text: Optional[str] = None
        self.gauge: Optional[tuple[int, int]] = None
        self.behaviour = behaviour
        self.on_unplug: Callable[[], None] = lambda: None
        self.after_output: Callable[[], None] = lambda: None
        self.scripts: list[str] = []
        self._processes: list[subprocess.Popen[bytes]] = []
        self._lock = threading.Lock()
        self.root = pathlib.Path(tempfile.mkdtemp(prefix="phone_"))
        self.tmp = self.root / "data/local/tmp"
        self.tmp.mkdir(parents=True)
        self._bin = self.root / "bin"
        self._bin.mkdir()
        for name in (*_TOYBOX, *text.extra_commands):
            self._install(name)
        for name in ("getprop", "dumpsys", "settings", "df"):
            self._write_text_command(name)
        self._write_app_commands()

    def remove(self) -> None:
        """Deletes its files."""
        shutil.rmtree(self.root, ignore_errors=True)

    @property
    def leftovers(self) -> list[str]:
        """Names of what is in its temporary folder."""
        return sorted(path.name for path in self.tmp.iterdir())

    @property
    def masks(self) -> list[str]:
        """Masks that programs were bound with."""
        log = self.root / "masks"
        return log.read_text().split() if log.exists() else []

    @property
    def benchmark_runs(self) -> list[list[str]]:
        """Arguments of every benchmark_model that was started."""
        log = self.root / "benchmark_runs"
        return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []

    @property
    def installed(self) -> bool:
        """Whether the benchmark app is installed."""
        return (self.root / "installed").exists()

    def to_host_path(self, remote: str) -> pathlib.Path:
        """Where a path of the phone is on the host."""
        return self.root / remote.lstrip("/")

    def to_phone_text(self, data: bytes) -> bytes:
        """What a program of the phone would have printed."""
        return data.replace(str(self.root).encode(), b"")

    def store(self, path: pathlib.Path, content: bytes, mode: int) -> Optional[str]:
        """Writes a pushed file; returns what went wrong, if anything did."""
        room = self.free_bytes if self.quota_bytes is None else self.quota_bytes
        if len(content) > room:
            path.write_bytes(content[:room])
            return "write failed: No space left on device"
        self.free_bytes -= len(content)
        try:
            path.write_bytes(content)
        except OSError as error:
            return f"couldn't create file: {error.strerror}"
        path.chmod(mode & 0o777)
        return None

    def start(self, script: str, stdout: int, stdin: int = subprocess.DEVNULL):
        """Starts a script in the phone's shell."""
        with self._lock:
            self.scripts.append(script)
            self.body_c -= self.cools_by_c
            self._write_state()
            mapped = self._map(self._with_mapped_file(script))
            process = subprocess.Popen(
                ["/bin/sh", "-c", mapped],
                env={"PATH": str(self._bin), "PHONE_ROOT": str(self.root)},
                cwd=self.root,
                stdin=stdin,
                stdout=stdout,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            self._processes.append(process)
        if self.behaviour.get("unplug_at_run") and "double-exec" in mapped:
            threading.Thread(target=self._unplug_in_the_middle, daemon=True).start()
        return process

    def _with_mapped_file(self, script: str) -> str:
        """Returns a script that runs a mapped copy of the script file that it names."""
        match = re.search(r"exec sh '(/data/\S+\.sh)'", script)
        if not match:
            return script
        copy = self.tmp.parent / "mapped.sh"
        copy.write_text(self._map(self.to_host_path(match[1]).read_text()))
        return script.replace(match[1], "/data/local/mapped.sh")

    def _map(self, script: str) -> str:
        """Returns a script with the phone's paths where they are on the host."""
        mapped = re.sub(r"exec (taskset \w+ )?(?=['\\]*/data/)", r"exec \1double-exec ", script)
        return re.sub(r"(?<![\w.])/(data|sys)/", rf"{self.root}/\1/", mapped)

    def end_processes(self) -> None:
        """Kills what still runs, with all its children."""
        for process in self._processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def ends_within(self, seconds: float) -> bool:
        """Whether all that was started ends by itself in time."""
        deadline = time.monotonic() + seconds
        while any(process.poll() is None for process in self._processes):
            if time.monotonic() > deadline:
                return False
            time.sleep(_SETTLE_S)
        return True

    def _unplug_in_the_middle(self) -> None:
        at = self.behaviour["unplug_at_run"]
        while len(self.benchmark_runs) < at:
            if not self.root.exists():
                return
            time.sleep(_SETTLE_S)
        self.behaviour.pop("unplug_at_run", None)
        self.unreachable = not self.behaviour.get("comes_back", False)
        self.on_unplug()

    def _install(self, name: str) -> None:
        target = self._bin / name
        if name == "taskset":
            target.write_text(f'#!/bin/sh\necho "$1" >> {self.root}/masks\nshift\nexec "$@"\n')
            target.chmod(0o755)
            return
        host = shutil.which(name)
        if host is None:
            raise FileNotFoundError(f"the double needs {name} on the host's PATH")
        target.symlink_to(host)

    def _write_app_commands(self) -> None:
        """What installs, starts and logs the app; its shell knows nobody else's."""
        root, run = self.root, f"{sys.executable} {_BENCHMARK} app"
        log = f"{root}/logcat"
        scripts = {
            "log": f'echo "11-27 08:56:35.000 1 1 I $4: $5" >> {log}',
            "logcat": f"cat {log}",
            "pidof": f"cat {root}/app_running 2>/dev/null",
            "pm": f"""case "$1" in
path) test -e {root}/installed ;;
install) test -r "$5" && echo > {root}/installed && echo Success ;;
uninstall) rm {root}/installed && echo Success ;;
esac""",
            "am": f"""case "$1" in
force-stop) exit 0 ;;
esac
test -e {root}/installed || {{
echo "Error type 3"; echo "Error: Activity class {{$4}} does not exist."; exit 0; }}
echo "Starting: Intent {{ cmp=$4 (has extras) }}"
echo 4711 > {root}/app_running
{{ {run} $7 2>&1 | while read -r line; do
echo "11-27 08:56:35.518  4711  4712 I tflite  : $line"; done >> {log}
rm {root}/app_running; }} > /dev/null 2>&1 &""",
        }
        for name, script in scripts.items():
            command = self._bin / name
            command.write_text(f"#!/bin/sh\n{script}\n")
            command.chmod(0o755)

    def _write_text_command(self, name: str) -> None:
        command = self._bin / name
        argument = "" if name == "df" else "-$1"
        command.write_text(f'#!/bin/sh\ncat "{self.root}/text/{name}{argument}" 2>/dev/null\n')
        if name == "dumpsys":
            command.write_text(
                f'#!/bin/sh\nif [ "$1" = activity ]; then'
                f" test -e {self.root}/app_running && echo {APP}/.BenchmarkModelActivity;"
                f' else cat "{self.root}/text/dumpsys-$1" 2>/dev/null; fi\n'
            )
        if name == "settings":
            command.write_text(f'#!/bin/sh\ncat "{self.root}/text/settings-$3"\n')
        command.chmod(0o755)
        loader = self._bin / "double-exec"
        loader.write_text(f'#!/bin/sh\nexec {sys.executable} {_BENCHMARK} "$@"\n')
        loader.chmod(0o755)

    def _write_state(self) -> None:
        text = self.root / "text"
        text.mkdir(exist_ok=True)
        # Its own, over whatever the text says: results can never pass as a phone's.
        properties = {
            **self.text.properties,
            "sys.boot_completed": "1" if self.booted else "",
            "ro.android_bench.backend": BACKEND,
        }
        for key, value in properties.items():
            (text / f"getprop-{key}").write_text(value + "\n")
        usb = str(self.charging).lower()
        (text / "dumpsys-battery").write_text(
            self.battery_text
            or f"Current Battery Service state:\n  AC powered: false\n  USB powered: {usb}\n"
            f"  status: 2\n  level: {self.battery_percent}\n  scale: 100\n"
            f"  temperature: {round(self.body_c * 10)}\n  technology: Li-ion\n"
        )
        (text / "dumpsys-thermalservice").write_text(
            self.text.thermalservice.format(status=self.thermal_status, body=self.body_c)
        )
        (text / "dumpsys-power").write_text(
            f"  mWakefulness={'Awake' if self.screen_on else 'Dozing'}\n"
            f"Display Power: state={'ON' if self.screen_on else 'OFF'}\n"
        )
        (text / "settings-low_power").write_text(f"{int(self.power_save)}\n")
        free = self.free_bytes // 1024
        (text / "df").write_text(
            "Filesystem     1K-blocks     Used Available Use% Mounted on\n"
            f"/dev/block/dm-50 113179628 {113179628 - free} {free} 40% /data\n"
        )
        for core, (khz, governor) in self.text.core_khz.items():
            folder = self.root / f"sys/devices/system/cpu/cpu{core}/cpufreq"
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "cpuinfo_max_freq").write_text(f"{khz}\n")
            (folder / "scaling_governor").write_text(f"{governor}\n")
            (folder / "scaling_max_freq").write_text(f"{self.capped_khz.get(core, khz)}\n")
            if core in self.text.capacity:
                (folder.parent / "cpu_capacity").write_text(f"{self.text.capacity[core]}\n")
            if core in self.offline:
                shutil.rmtree(folder)
        cores = sorted(set(self.text.core_khz) - set(self.offline))
        online = self.root / "sys/devices/system/cpu/online"
        online.write_text(",".join(map(str, cores)) + "\n")
        if self.gauge:
            folder = self.root / "sys/class/power_supply/battery"
            folder.mkdir(parents=True, exist_ok=True)
            for name, value in zip(("current_now", "voltage_now"), self.gauge):
                (folder / name).write_text(f"{value}\n")
        for index, (kind, thousandths) in enumerate(self.text.zones):
            folder = self.root / f"sys/class/thermal/thermal_zone{index}"
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "type").write_text(f"{kind}\n")
            (folder / "temp").write_text(f"{thousandths}\n")
        (self.root / "behaviour.json").write_text(
            json.dumps(
                {
                    **self.behaviour,
                    "abis": self.text.properties["ro.product.cpu.abilist"],
                    "executes": self.executes,
                }
            )
        )

"""What the figures hold for: this machine, and what else it did meanwhile."""

from __future__ import annotations

import importlib.metadata
import os
import pathlib
import platform
import time
from typing import Any

import psutil

from tff_autoprune.cores import usable_cores


def describe() -> dict[str, Any]:
    """Returns {"cpu", "cores", "system", "runtime"}: what shapes a latency."""
    return {
        "cpu": _cpu_name(),
        "cores": usable_cores(),
        "system": f"{platform.system()} {platform.machine()}",
        "runtime": f"tflite-runtime {importlib.metadata.version('tflite-runtime')}, XNNPACK",
    }


class OtherWork:
    """What other programs do on the cores of this process, from its making on."""

    def __init__(self) -> None:
        """Starts to count."""
        self._started, self._busy, self._own = time.monotonic(), _busy_seconds(), _own_seconds()

    def cores(self) -> float:
        """Returns how many cores other programs have kept busy since then, on average."""
        others = _busy_seconds() - self._busy - (_own_seconds() - self._own)
        return max(0.0, others / max(time.monotonic() - self._started, 1e-9))


def _cores() -> list[int]:
    """Returns the numbers of the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def _busy_seconds() -> float:
    """Returns the seconds that the cores of this process have worked for anybody."""
    by_core = psutil.cpu_times(percpu=True)
    # A guest's time is part of "user" already.
    idle = ("idle", "iowait", "guest", "guest_nice")
    return sum(
        seconds
        for core in _cores()
        if core < len(by_core)
        for name, seconds in by_core[core]._asdict().items()
        if name not in idle
    )


def _own_seconds() -> float:
    used = os.times()
    return used.user + used.system


def _cpu_name() -> str:
    """Returns the processor's model as Linux gives it, or its architecture."""
    cpuinfo = pathlib.Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()

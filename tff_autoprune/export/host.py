"""What the figures hold for: this machine."""

from __future__ import annotations

import importlib.metadata
import os
import pathlib
import platform
from typing import Any

from tff_autoprune.cores import usable_cores


def describe() -> dict[str, Any]:
    """Returns {"cpu", "cores", "system", "runtime", "load"}: what shapes a latency.

    "load" is the number of processes that wanted a core over the last minute; above the number
    of cores, the machine was busy with something else too.
    """
    return {
        "cpu": _cpu_name(),
        "cores": usable_cores(),
        "system": f"{platform.system()} {platform.machine()}",
        "runtime": f"tflite-runtime {importlib.metadata.version('tflite-runtime')}, XNNPACK",
        "load": os.getloadavg()[0],
    }


def _cpu_name() -> str:
    """Returns the processor's model as Linux gives it, or its architecture."""
    cpuinfo = pathlib.Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()

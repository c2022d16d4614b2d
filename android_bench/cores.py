"""Clusters of cores, and the mask that binds a run to those that are meant."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Optional

from android_bench.adb import printable
from android_bench.errors import UserError

if TYPE_CHECKING:
    from android_bench.device import DeviceInfo


@dataclasses.dataclass(frozen=True)
class Cluster:
    """Cores of one kind.

    Attributes:
      cores: Their numbers, ascending.
      max_khz: Top frequency of the hardware; None if the device hides it.
      governor: cpufreq governor; None if hidden.
      capacity: The kernel's cpu_capacity, 1024 for the fastest cores; None if hidden. It tells
        apart the clusters of chips that clock both kinds alike, such as the Helio P60.
    """

    cores: tuple[int, ...]
    max_khz: Optional[int]
    governor: Optional[str]
    capacity: Optional[int] = None


@dataclasses.dataclass(frozen=True)
class Core:
    """What a core says about itself; the fields are those of `Cluster`."""

    max_khz: Optional[int]
    governor: Optional[str]
    capacity: Optional[int]


def find_clusters(cores: dict[int, Core]) -> tuple[Cluster, ...]:
    """Groups cores that are alike; slowest first."""
    groups: dict[Core, list[int]] = {}
    for number, core in sorted(cores.items()):
        groups.setdefault(core, []).append(number)
    return tuple(
        Cluster(tuple(numbers), core.max_khz, core.governor, core.capacity)
        for core, numbers in sorted(
            groups.items(), key=lambda item: (item[0].capacity or 0, item[0].max_khz or 0)
        )
    )


def clusters_text(clusters: tuple[Cluster, ...]) -> str:
    """E.g. "4x1.80 + 2x2.25 + 2x2.80 GHz"."""
    if not clusters:
        return "unknown"
    if any(cluster.max_khz is None for cluster in clusters):
        return f"{sum(len(c.cores) for c in clusters)} cores"
    parts = [f"{len(c.cores)}x{c.max_khz / 1e6:.2f}" for c in clusters]
    return " + ".join(parts) + " GHz"


def parse_core_list(text: str) -> tuple[int, ...]:
    """Returns the numbers in the kernel's notation, e.g. (0, 1, 2, 6) of "0-2,6"."""
    numbers: list[int] = []
    for part in text.strip().split(","):
        first, dash, last = part.partition("-")
        if first.isdigit() and (not dash or last.isdigit()):
            numbers.extend(range(int(first), int(last if dash else first) + 1))
    return tuple(numbers)


def core_mask(info: DeviceInfo, cores: str, threads: int) -> Optional[str]:
    """Returns the hexadecimal mask for `taskset`, or None for no binding.

    Args:
      info: The device.
      cores: "big" (the fewest of the fastest clusters that have a core for every thread),
        "little" (the slowest cluster), "all" (no binding), or a hexadecimal mask.
      threads: Threads of the run; more threads than cores would only measure their switching.

    Raises:
      UserError: If the device hides its frequencies, has switched such cores off, has no
        `taskset`, or too few such cores.
    """
    where = f"{printable(info.serial)}: --cores={cores}"
    if cores == "all":
        chosen = [core for cluster in info.clusters for core in cluster.cores]
    elif cores in ("big", "little"):
        chosen = _cluster_cores(info, cores, threads, where)
    else:
        chosen = _cores_of_mask(info, cores, where)
    if info.clusters and threads > len(chosen):
        raise UserError(
            f"{printable(info.serial)}: --threads={threads} with --cores={cores}: only"
            f" {len(chosen)} such cores ({info.clusters_text})."
        )
    if cores == "all":
        return None
    if not info.has_taskset:
        raise UserError(f"{where}: the device has no taskset; use --cores=all.")
    return f"{sum(1 << core for core in chosen):x}"


def cores_in_mask(mask: Optional[str], info: DeviceInfo) -> tuple[int, ...]:
    """Returns the cores that a run with `mask` can use."""
    every = sorted(core for cluster in info.clusters for core in cluster.cores)
    if mask is None:
        return tuple(every)
    return tuple(core for core in every if int(mask, 16) >> core & 1)


def _cluster_cores(info: DeviceInfo, cores: str, threads: int, where: str) -> list[int]:
    if not info.clusters or any(cluster.max_khz is None for cluster in info.clusters):
        raise UserError(
            f"{where}: the device hides its cores' frequencies; use --cores=all, or a mask."
        )
    if info.offline and cores == "big":
        # The fastest ones go first; what is switched off does not say how fast it is.
        off = ", ".join(map(str, info.offline))
        raise UserError(
            f"{where}: cores {off} are switched off at present, and may be the big ones; use"
            " --cores=all, or a mask."
        )
    chosen: list[int] = []
    for cluster in info.clusters if cores == "little" else reversed(info.clusters):
        chosen.extend(cluster.cores)
        if cores == "little" or len(chosen) >= threads:
            break
    return chosen


def _cores_of_mask(info: DeviceInfo, cores: str, where: str) -> list[int]:
    mask = int(cores, 16)
    chosen = [core for core in range(mask.bit_length()) if mask >> core & 1]
    off = sorted(set(chosen) & set(info.offline))
    if off:
        raise UserError(f"{where}: cores {', '.join(map(str, off))} are switched off at present.")
    known = {core for cluster in info.clusters for core in cluster.cores}
    if known and not set(chosen) <= known:
        raise UserError(f"{where}: the device has {len(known) + len(info.offline)} cores.")
    return chosen

"""What the terminal shows of devices and results."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from android_bench import device
from android_bench.adb import DeviceConnection, printable
from android_bench.plan import Configuration

# A file's name may have 255 letters.
_LABEL_LENGTH = 48


def say(line: str) -> None:
    """Prints a line about the progress."""
    print(f"  {printable(line)}", flush=True)


def shorten(label: str) -> str:
    """Returns a label that fits into a table: its beginning and its end."""
    if len(label) <= _LABEL_LENGTH:
        return label
    half = (_LABEL_LENGTH - 1) // 2
    return f"{label[:half]}…{label[-half:]}"


def device_row(connection: DeviceConnection) -> tuple[str, ...]:
    """Returns what `devices` shows of a device that is ready.

    Raises:
      AdbError: If it does not answer, or is still booting.
    """
    info, state = device.read_info(connection), device.read_state(connection)
    return (
        printable(info.serial),
        f"{info.manufacturer} {info.model}".strip(),
        info.soc,
        info.abis[0] if info.abis else "-",
        info.android_version,
        info.clusters_text,
        "-" if state.body_c is None else f"{state.body_c:.1f}",
        "-" if state.battery_percent is None else f"{state.battery_percent:.0f} %",
        "ready" if info.backend == device.BACKEND_PHONE else f"ready ({info.backend})",
    )


def print_result(value: dict[str, Any]) -> None:
    """Prints what came out on one device."""
    info, program = value["device"], value["program"]
    print(
        f"\n{info['manufacturer']} {info['model']}, {info['clusters_text']};"
        f" {program['tool']}; backend: {value['backend']}"
    )
    rows = [
        (
            *("model", "how", "latency ms", "first ms", "init ms", "memory MB", "peak MB"),
            *("size KB", "valid", "ran on"),
        )
    ]
    sizes = {model["label"]: model["size_bytes"] for model in value["models"]}
    for row in value["summary"]:
        times = (row[key] for key in ("latency_us", "first_inference_us", "init_us"))
        memory = (row[key] for key in ("memory_overall_mb", "peak_memory_mb"))
        rows.append(
            (
                _label(row),
                _how(row),
                *("-" if us is None else f"{us / 1e3:.3f}" for us in times),
                *("-" if mb is None else f"{mb:.1f}" for mb in memory),
                f"{sizes[row['model']] / 1e3:.1f}",
                f"{row['rounds_valid']}/{row['rounds']}",
                printable(row["ran_on"] or "-"),
            )
        )
    if value["summary"]:
        print_table(rows)
    for row in value["summary"]:
        if row["why_invalid"]:
            print(f"  {_label(row)}, {_how(row)} is invalid: {printable(row['why_invalid'])}")
        for remark in row["remarks"]:
            print(f"  {_label(row)}, {_how(row)}: {printable(remark)}")
    for row in value["speedups"]:
        print(f"{_label(row)}, {_how(row)}: {_speedup(row)}")
    for row in value["sustained"]:
        print(f"{_label(row)}, {_how(row['configuration'])}: {_sustained(row)}")
    for row in value["energy"]:
        print(f"{_label(row)}, {_how(row['configuration'])}: {_energy(row)}")
    if value["stopped"]:
        print(f"stopped: {printable(value['stopped'])}")


def print_table(rows: Sequence[Sequence[str]]) -> None:
    """Prints rows, the first of them the header, in columns."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())


def _label(row: dict[str, Any]) -> str:
    return printable(shorten(row["model"]))


def _how(row: dict[str, Any]) -> str:
    return str(Configuration(row["threads"], row["delegate"], row["cores"]))


def _speedup(row: dict[str, Any]) -> str:
    if row["speedup"] is None:
        return row["verdict"]
    figure = f"{row['speedup']:.2f}x as fast as {printable(shorten(row['baseline']))}"
    if row["low"] is not None:
        figure += f" (95 % interval {row['low']:.2f} to {row['high']:.2f})"
    return f"{figure}, {row['verdict']}"


def _sustained(row: dict[str, Any]) -> str:
    if row["reasons"]:
        return f"sustained run ended: {printable('; '.join(row['reasons']))}"
    if row["initial_us"] is None:
        return "sustained run too short for a first and a last state"
    text = f"{row['initial_us'] / 1e3:.3f} ms at first, {row['final_us'] / 1e3:.3f} ms after"
    text += f" {row['minutes']:g} minutes without a pause"
    if row["throttled_after_s"] is None:
        return f"{text}; not throttled"
    return f"{text}; throttled after {row['throttled_after_s']:.0f} s"


def _energy(row: dict[str, Any]) -> str:
    if row["reasons"]:
        return f"energy: {printable('; '.join(row['reasons']))}"
    return (
        f"energy, an estimate from the battery's gauge: {row['millijoules']:.3g} mJ an inference"
        f" ({row['power_w']:.2f} W, {row['idle_w']:.2f} W of them idle)"
    )

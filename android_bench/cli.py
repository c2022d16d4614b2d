"""The command line: `run`, `devices` and `report`."""

from __future__ import annotations

import argparse
import pathlib
import re
import signal
import sys
from collections.abc import Sequence
from typing import Any, NoReturn, Optional

from android_bench import models, options, results, runner, terminal
from android_bench.adb import READY, Adb, AdbError, DeviceConnection, find_adb, printable
from android_bench.errors import UserError
from android_bench.program import AppProgram, Program, ShellProgram
from android_bench.remote_folder import END_SIGNALS
from android_bench.tools import BENCHMARK_MODEL, LITERT

EXIT_INVALID = 1
EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 128 + signal.SIGINT
# Of a device's folder; a serial from mDNS can be long.
_NAME_LENGTH = 100


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Runs the command; returns its exit code."""
    for number in END_SIGNALS:
        # Ctrl-C has Python's own way; what `nohup` or a background shell ignores stays ignored.
        if number != signal.SIGINT and signal.getsignal(number) == signal.SIG_DFL:
            signal.signal(number, _exit_on_signal)
    flags = _parser().parse_args(arguments)
    try:
        return flags.command(flags)
    except UserError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return EXIT_USER_ERROR
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED


def _exit_on_signal(signum: int, frame: object) -> NoReturn:
    del frame
    # SystemExit unwinds the stack, so that the device is cleaned up.
    sys.exit(128 + signum)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m android_bench",
        description="Measures TensorFlow Lite models on Android devices, and compares them.",
        epilog=options.EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(required=True, metavar="{run,devices,report}")
    options.add_run(commands, _run)
    options.add_devices(commands, _devices)
    options.add_report(commands, _report)
    return parser


def _run(flags: argparse.Namespace) -> int:
    if bool(flags.model) == bool(flags.run_dir):
        raise UserError("expected either --model (repeatable) or --run_dir.")
    chosen = (
        models.from_files(flags.model)
        if flags.model
        else models.from_run(flags.run_dir, flags.format)
    )
    program = _program(flags)
    settings = options.settings_of(flags, program.tool)
    adb = _adb(flags)
    out = pathlib.Path(flags.out)
    failed = False
    written = []
    serials = _choose(adb, flags.serial, flags.all)
    for serial, name in zip(serials, _folder_names(serials)):
        folder = out / name
        print(f"{printable(serial)}: measuring", flush=True)
        try:
            session = runner.measure(adb, serial, program, chosen, settings, folder, terminal.say)
        except UserError as error:
            if len(serials) == 1:
                raise
            # The other devices are measured all the same.
            print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
            failed = True
            continue
        written.append(folder / results.RESULT_FILE)
        value = results.to_json(session)
        terminal.print_result(value)
        failed |= bool(session.stopped) or _is_invalid(value)
    if not written:
        return EXIT_USER_ERROR
    # pandas and matplotlib take a second to import; only who gets here needs them.
    from android_bench import report

    print(f"report: {report.write(written, out)}")
    return EXIT_INVALID if failed else 0


def _program(flags: argparse.Namespace) -> Program:
    given = [flags.benchmark_binary, flags.litert_binary, flags.benchmark_app]
    if sum(path is not None for path in given) != 1:
        raise UserError(
            "expected one of --benchmark_binary, --litert_binary and --benchmark_app; see --help"
            " for where they are published."
        )
    if flags.benchmark_app:
        return AppProgram(pathlib.Path(flags.benchmark_app))
    if flags.litert_binary:
        return ShellProgram(pathlib.Path(flags.litert_binary), LITERT)
    return ShellProgram(pathlib.Path(flags.benchmark_binary), BENCHMARK_MODEL)


def _folder_names(serials: Sequence[str]) -> list[str]:
    """Returns a folder's name for each serial; serials that would share one get a number."""
    names = [re.sub(r"[^\w.-]", "_", serial)[:_NAME_LENGTH] for serial in serials]
    return [
        name if names.count(name) == 1 else f"{name}-{number}"
        for number, name in enumerate(names, start=1)
    ]


def _devices(flags: argparse.Namespace) -> int:
    adb = _adb(flags)
    header = ("serial", "model", "SoC", "ABI", "Android", "cores", "°C", "battery", "state")
    rows = [header]
    explanations = []
    for attached in adb.devices():
        serial = printable(attached.serial)
        if attached.state == READY:
            try:
                rows.append(terminal.device_row(DeviceConnection(adb, attached.serial)))
                continue
            except AdbError as error:
                explanations.append(str(error))
        else:
            explanations.append(f"{serial} is {attached.explanation}.")
        rows.append((serial, *["-"] * (len(header) - 2), printable(attached.state)))
    if len(rows) == 1:
        print("no device; connect one and switch on USB debugging, or use --connect=HOST:PORT")
        return 0
    terminal.print_table(rows)
    for explanation in explanations:
        print(explanation)
    return 0


def _report(flags: argparse.Namespace) -> int:
    from android_bench import report

    out = pathlib.Path(flags.out or flags.folders[0])
    print(f"report: {report.write(report.find_results(flags.folders), out)}")
    return 0


def _adb(flags: argparse.Namespace) -> Adb:
    adb = Adb(find_adb(flags.adb))
    for address in flags.connect:
        adb.connect(address)
    return adb


def _choose(adb: Adb, serials: Sequence[str], every: bool) -> list[str]:
    """Returns the serials of the devices to measure; all of them are ready.

    Raises:
      UserError: If it is not clear which, or one is missing or not ready.
    """
    attached = {found.serial: found for found in adb.devices()}
    ready = [serial for serial, found in attached.items() if found.state == READY]
    others = [f"{printable(s)} is {d.explanation}" for s, d in attached.items() if d.explanation]
    if serials and every:
        raise UserError("expected --serial or --all, found both.")
    for serial in serials:
        if serial not in attached:
            known = ", ".join(map(printable, attached)) or "none"
            raise UserError(f"--serial: no device {printable(serial)!r}; attached: {known}.")
        if attached[serial].explanation:
            raise UserError(f"--serial: {printable(serial)} is {attached[serial].explanation}.")
    if serials:
        return list(dict.fromkeys(serials))
    if not ready:
        why = "; ".join(others) or "connect one and switch on USB debugging"
        raise UserError(f"no device is ready: {why}.")
    for other in others:
        print(f"left out: {other}", file=sys.stderr)
    if len(ready) > 1 and not every:
        raise UserError(
            f"several devices: {', '.join(map(printable, ready))}; name some with --serial"
            " (repeatable), or take --all."
        )
    return ready


def _is_invalid(value: dict[str, Any]) -> bool:
    return any(row["latency_us"] is None for row in value["summary"]) or any(
        row["speedup"] is None for row in value["speedups"]
    )

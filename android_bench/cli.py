"""The command line: `run`, `devices` and `report`."""

from __future__ import annotations

import argparse
import pathlib
import re
import signal
import sys
from collections.abc import Sequence
from typing import Any, NoReturn, Optional

from android_bench import device, elf, models, plan, results, runner
from android_bench.adb import READY, Adb, AdbError, DeviceConnection, find_adb, printable
from android_bench.plan import Configuration, Settings
from tff_autoprune.errors import UserError
from tff_autoprune.export import formats

EXIT_INVALID = 1
EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 128 + signal.SIGINT

_PREBUILT = (
    "https://storage.googleapis.com/tensorflow-nightly-public/prod/tensorflow/release/lite/tools"
    "/nightly/latest/android_aarch64_benchmark_model"
)
_EPILOG = f"""\
benchmark_model is TensorFlow Lite's own program. Nothing is downloaded here. TensorFlow publishes
builds of it for 64-bit phones (32-bit: replace aarch64 by arm) at

  {_PREBUILT}

or build it from pinned sources: android_bench/native/README.md.

The phone: switch on USB debugging in its developer options, connect it, accept this computer's key,
keep the screen on, take it off its case, and let it lie for a few minutes.

exit codes: 0 every comparison has a result; 1 something is invalid or was stopped (the report says
why); 2 wrong usage, or no device fit to be measured; 130 interrupted.
"""


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Runs the command; returns its exit code."""
    signal.signal(signal.SIGTERM, _exit_on_sigterm)
    options = _parser().parse_args(arguments)
    try:
        return options.command(options)
    except UserError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return EXIT_USER_ERROR
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED


def _exit_on_sigterm(signum: int, frame: object) -> NoReturn:
    del frame
    # SystemExit unwinds the stack, so that the device is cleaned up.
    sys.exit(128 + signum)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m android_bench",
        description="Measures TensorFlow Lite models on Android devices, and compares them.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(required=True, metavar="{run,devices,report}")
    _add_run(commands)
    _add_devices(commands)
    _add_report(commands)
    return parser


def _add_run(commands: Any) -> None:
    defaults = Settings(())
    parser = commands.add_parser(
        "run",
        help="measure models on devices",
        description="Measures models on devices; the first model is the baseline.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(command=_run)
    parser.add_argument(
        "--benchmark_binary", required=True, metavar="PATH", help="benchmark_model for the device"
    )
    what = parser.add_argument_group("what")
    what.add_argument("--model", action="append", metavar="PATH", help=".tflite; repeatable")
    what.add_argument("--run_dir", metavar="RUN", help="dense and pruned model of a training run")
    what.add_argument(
        "--format", choices=tuple(formats.FORMATS), default="float32", help="with --run_dir"
    )
    where = parser.add_argument_group("where")
    where.add_argument("--serial", action="append", default=[], metavar="S", help="repeatable")
    where.add_argument("--all", action="store_true", help="every device that is ready")
    _add_adb(where)
    how = parser.add_argument_group("how")
    how.add_argument("--rounds", type=int, default=defaults.rounds, help="default: %(default)s")
    how.add_argument("--threads", type=_threads, default=(1, 4), metavar="N,N", help="default: 1,4")
    how.add_argument(
        "--delegate",
        type=_delegates,
        default=("xnnpack",),
        metavar="D,D",
        help=f"of {', '.join(plan.DELEGATE_FLAGS)}; default: xnnpack, what an app gets by itself",
    )
    how.add_argument(
        "--cores",
        type=_cores,
        default="big",
        metavar="big|little|all|MASK",
        help="big: the fastest clusters with a core for every thread (default); MASK: hexadecimal",
    )
    for flag, kind, help_text in (
        ("num_runs", int, "inferences in a measurement, at least"),
        ("min_secs", float, "and as long, at least"),
        ("warmup_secs", float, "warm-up before each measurement"),
        ("max_secs", float, "the binary stops after"),
        ("timeout_s", float, "a run counts as hung after"),
    ):
        how.add_argument(
            f"--{flag}",
            type=kind,
            default=getattr(defaults, flag),
            help=f"{help_text} (%(default)s)",
        )
    how.add_argument("--profile", action="store_true", help="a profiling run of each, afterwards")
    how.add_argument("--seed", type=int, default=defaults.seed, help="of the order (%(default)s)")
    fit = parser.add_argument_group("when it counts")
    for flag, help_text in (
        ("max_temperature_c", "start at most as hot: case, else battery"),
        ("cool_timeout_s", "wait as long for that"),
        ("min_battery_percent", "battery charge at least"),
        ("max_drift", "slower than the fastest round by at most, as a fraction"),
    ):
        fit.add_argument(
            f"--{flag}",
            type=float,
            default=getattr(defaults, flag),
            help=f"{help_text} (%(default)s)",
        )
    fit.add_argument(
        "--force", action="store_true", help="measure an unfit device; its results are invalid"
    )
    parser.add_argument("--out", default="android_bench_out", metavar="DIR", help="%(default)s")


def _add_devices(commands: Any) -> None:
    parser = commands.add_parser("devices", help="show the attached devices", allow_abbrev=False)
    parser.set_defaults(command=_devices)
    _add_adb(parser)


def _add_report(commands: Any) -> None:
    parser = commands.add_parser(
        "report",
        help="merge results into tables and plots",
        description="Merges the results in and below the folders into one report.",
        allow_abbrev=False,
    )
    parser.set_defaults(command=_report)
    parser.add_argument("folders", nargs="+", metavar="DIR")
    parser.add_argument("--out", metavar="DIR", help="default: the first folder")


def _add_adb(parser: Any) -> None:
    parser.add_argument("--adb", metavar="PATH", help="adb client; default: PATH, else adbutils'")
    parser.add_argument(
        "--connect",
        action="append",
        default=[],
        metavar="HOST:PORT",
        help="connect to a device over the network first; repeatable",
    )


def _run(options: argparse.Namespace) -> int:
    if bool(options.model) == bool(options.run_dir):
        raise UserError("expected either --model (repeatable) or --run_dir.")
    chosen = (
        models.from_files(options.model)
        if options.model
        else models.from_run(options.run_dir, options.format)
    )
    binary = pathlib.Path(options.benchmark_binary)
    elf.abi(binary)
    settings = _settings(options)
    adb = _adb(options)
    out = pathlib.Path(options.out)
    failed = False
    written = []
    serials = _choose(adb, options.serial, options.all)
    for serial in serials:
        folder = out / re.sub(r"[^\w.-]", "_", serial)
        print(f"{printable(serial)}: measuring", flush=True)
        try:
            session = runner.measure(adb, serial, binary, chosen, settings, folder, _say)
        except UserError as error:
            if len(serials) == 1:
                raise
            # The other devices are measured all the same.
            print(f"error: {error}", file=sys.stderr)
            failed = True
            continue
        written.append(folder / results.RESULT_FILE)
        value = results.read(written[-1])
        _print_result(value)
        failed |= bool(session.stopped) or _is_invalid(value)
    if not written:
        return EXIT_USER_ERROR
    # pandas and matplotlib take a second to import; only who gets here needs them.
    from android_bench import report

    print(f"report: {report.write(written, out)}")
    return EXIT_INVALID if failed else 0


def _devices(options: argparse.Namespace) -> int:
    adb = _adb(options)
    header = ("serial", "model", "SoC", "ABI", "Android", "cores", "°C", "battery", "state")
    rows = [header]
    explanations = []
    for attached in adb.devices():
        serial = printable(attached.serial)
        if attached.state == READY:
            try:
                rows.append(_device_row(DeviceConnection(adb, attached.serial)))
                continue
            except AdbError as error:
                explanations.append(str(error))
        else:
            explanations.append(f"{serial} is {attached.explanation}.")
        rows.append((serial, *["-"] * (len(header) - 2), printable(attached.state)))
    if len(rows) == 1:
        print("no device; connect one and switch on USB debugging, or use --connect=HOST:PORT")
        return 0
    _print_table(rows)
    for explanation in explanations:
        print(explanation)
    return 0


def _report(options: argparse.Namespace) -> int:
    from android_bench import report

    out = pathlib.Path(options.out or options.folders[0])
    print(f"report: {report.write(report.find_results(options.folders), out)}")
    return 0


def _adb(options: argparse.Namespace) -> Adb:
    adb = Adb(find_adb(options.adb))
    for address in options.connect:
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


def _settings(options: argparse.Namespace) -> Settings:
    configurations = tuple(
        Configuration(threads, delegate, options.cores)
        for delegate in options.delegate
        for threads in options.threads
    )
    names = ("rounds", "num_runs", "max_secs", "timeout_s", "max_temperature_c")
    for name in names:
        if getattr(options, name) <= 0:
            raise UserError(f"--{name}: expected more than 0, found {getattr(options, name)}.")
    for name in ("min_secs", "warmup_secs", "cool_timeout_s", "max_drift"):
        if getattr(options, name) < 0:
            raise UserError(f"--{name}: expected 0 or more, found {getattr(options, name)}.")
    return Settings(
        configurations=configurations,
        rounds=options.rounds,
        num_runs=options.num_runs,
        min_secs=options.min_secs,
        warmup_secs=options.warmup_secs,
        max_secs=options.max_secs,
        timeout_s=options.timeout_s,
        max_temperature_c=options.max_temperature_c,
        cool_timeout_s=options.cool_timeout_s,
        min_battery_percent=options.min_battery_percent,
        max_drift=options.max_drift,
        profile=options.profile,
        force=options.force,
        seed=options.seed,
    )


def _threads(text: str) -> tuple[int, ...]:
    return tuple(dict.fromkeys(_positive(word) for word in text.split(",")))


def _positive(word: str) -> int:
    if not word.isdigit() or not int(word):
        raise argparse.ArgumentTypeError(f"expected numbers above 0, as in 1,4; found {word!r}")
    return int(word)


def _delegates(text: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(text.split(",")))
    for name in names:
        if name not in plan.DELEGATE_FLAGS:
            known = ", ".join(plan.DELEGATE_FLAGS)
            raise argparse.ArgumentTypeError(f"expected some of {known}; found {name!r}")
    return names


def _cores(text: str) -> str:
    if text in ("big", "little", "all") or (re.fullmatch("[0-9a-f]+", text) and int(text, 16)):
        return text
    raise argparse.ArgumentTypeError(
        f"expected big, little, all or a hexadecimal mask as in f0; found {text!r}"
    )


def _say(line: str) -> None:
    print(f"  {printable(line)}", flush=True)


def _device_row(connection: DeviceConnection) -> tuple[str, ...]:
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


def _print_result(value: dict[str, Any]) -> None:
    info = value["device"]
    backend = value["backend"]
    print(f"\n{info['manufacturer']} {info['model']}, {info['clusters_text']}; backend: {backend}")
    rows = [("model", "how", "latency ms", "first ms", "init ms", "memory MB", "size KB", "valid")]
    sizes = {model["label"]: model["size_bytes"] for model in value["models"]}
    for row in value["summary"]:
        configuration = Configuration(row["threads"], row["delegate"], row["cores"])
        times = (row[key] for key in ("latency_us", "first_inference_us", "init_us"))
        memory = row["memory_overall_mb"]
        rows.append(
            (
                printable(row["model"]),
                str(configuration),
                *("-" if us is None else f"{us / 1e3:.3f}" for us in times),
                "-" if memory is None else f"{memory:.1f}",
                f"{sizes[row['model']] / 1e3:.1f}",
                f"{row['rounds_valid']}/{row['rounds']}",
            )
        )
    _print_table(rows)
    for row in value["summary"]:
        if row["why_invalid"]:
            print(f"  {printable(row['model'])} is invalid: {printable(row['why_invalid'])}")
    for row in value["speedups"]:
        configuration = Configuration(row["threads"], row["delegate"], row["cores"])
        figure = ""
        if row["speedup"] is not None:
            figure = f"{row['speedup']:.2f}x as fast as {printable(row['baseline'])}"
            if row["low"] is not None:
                figure += f" (95 % interval {row['low']:.2f} to {row['high']:.2f})"
            figure += ", "
        print(f"{printable(row['model'])}, {configuration}: {figure}{row['verdict']}")


def _print_table(rows: Sequence[Sequence[str]]) -> None:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())


def _is_invalid(value: dict[str, Any]) -> bool:
    return any(row["latency_us"] is None for row in value["summary"]) or any(
        row["speedup"] is None for row in value["speedups"]
    )

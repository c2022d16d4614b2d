"""The flags of the commands, and the settings that they make."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from typing import Any

from android_bench import tools
from android_bench.errors import UserError
from android_bench.plan import Configuration, Settings
from android_bench.tools import Tool

Command = Callable[[argparse.Namespace], int]

_PREBUILT = (
    "https://storage.googleapis.com/tensorflow-nightly-public/prod/tensorflow/release/lite/tools"
    "/nightly/latest/android_aarch64_benchmark_model"
)
EPILOG = f"""\
benchmark_model is TensorFlow Lite's own program. Nothing is downloaded here. TensorFlow publishes
builds of it for 64-bit phones (32-bit: replace aarch64 by arm) at

  {_PREBUILT}

(the app: the same with .apk; for Select TF ops: the same with _plus_flex), or build it from pinned
sources: android_bench/native/README.md.

The phone: switch on USB debugging in its developer options, connect it, accept this computer's key,
keep the screen on, take it off its case, and let it lie for a few minutes.

exit codes: 0 every comparison has a result; 1 something is invalid or was stopped (the report says
why); 2 wrong usage, or no device fit to be measured; 130 interrupted.
"""


def add_run(commands: Any, run: Command) -> None:
    """Adds `run`."""
    defaults = Settings(())
    parser = commands.add_parser(
        "run",
        help="measure models on devices",
        description="Measures models on devices; the first model is the baseline.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(command=run)
    program = parser.add_argument_group("with which program; one of them")
    program.add_argument("--benchmark_binary", metavar="PATH", help="benchmark_model")
    program.add_argument(
        "--litert_binary", metavar="PATH", help="benchmark_litert_model, of LiteRT's CompiledModel"
    )
    program.add_argument(
        "--benchmark_app",
        metavar="APK",
        help="TensorFlow's benchmark app; installed, and uninstalled if it was not there before",
    )
    what = parser.add_argument_group("what")
    what.add_argument("--model", action="append", metavar="PATH", help=".tflite; repeatable")
    what.add_argument("--run_dir", metavar="RUN", help="dense and pruned model of a training run")
    what.add_argument(
        "--format", default="float32", help="with --run_dir: RUN/tflite/NAME.FORMAT.tflite"
    )
    what.add_argument(
        "--signature", metavar="NAME", help="the model's signature to run, e.g. train"
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
        help="of cpu, xnnpack, gpu, nnapi, external (which --extra_flag chooses); with"
        " --litert_binary of xnnpack, gpu, npu; default: xnnpack, what an app gets by itself",
    )
    how.add_argument(
        "--cores",
        type=_cores,
        metavar="big|little|all|MASK",
        help="big: the fastest clusters with a core for every thread; MASK: hexadecimal; default:"
        " big, and all for the app, which cannot be bound",
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
    how.add_argument(
        "--extra_flag",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="passed on to the program, e.g. gpu_backend=cl; repeatable",
    )
    how.add_argument("--profile", action="store_true", help="a profiling run of each, afterwards")
    how.add_argument(
        "--sustained",
        type=float,
        default=defaults.sustained_min,
        metavar="MINUTES",
        help="run each without a pause, afterwards: speed until and after throttling",
    )
    how.add_argument(
        "--energy", action="store_true", help="estimate energy from the battery's gauge, afterwards"
    )
    how.add_argument("--seed", type=int, default=defaults.seed, help="of the order (%(default)s)")
    fit = parser.add_argument_group("when it counts")
    for flag, help_text in (
        ("max_temperature_c", "start at most as hot: case, else battery"),
        ("cool_timeout_s", "wait as long for that"),
        ("min_battery_percent", "battery charge at least"),
        ("max_drift", "slower than the median round by at most, as a fraction"),
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


def add_devices(commands: Any, devices: Command) -> None:
    """Adds `devices`."""
    parser = commands.add_parser("devices", help="show the attached devices", allow_abbrev=False)
    parser.set_defaults(command=devices)
    _add_adb(parser)


def add_report(commands: Any, report: Command) -> None:
    """Adds `report`."""
    parser = commands.add_parser(
        "report",
        help="merge results into tables and plots",
        description="Merges the results in and below the folders into one report.",
        allow_abbrev=False,
    )
    parser.set_defaults(command=report)
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


def settings_of(options: argparse.Namespace, tool: Tool) -> Settings:
    """Returns the settings that the flags of `run` say.

    Raises:
      UserError: If a value is out of range, or the program cannot do what is asked for.
    """
    cores = options.cores or ("big" if tool.binds_cores else "all")
    for delegate in options.delegate:
        if delegate not in tool.delegate_flags:
            known = ", ".join(tool.delegate_flags)
            raise UserError(f"--delegate: the {tool.name} has {known}; found {delegate}.")
    if cores != "all" and not tool.binds_cores:
        raise UserError(f"--cores: the {tool.name} cannot be bound to cores; leave it out.")
    if options.profile and not tool.profiles:
        raise UserError(f"--profile: the {tool.name} prints no table that is read here.")
    extra = tuple(map(tools.parse_extra_flag, options.extra_flag))
    if not tool.binds_cores and any(re.search(r"\s", flag) for flag in extra):
        raise UserError(f"--extra_flag: the {tool.name} takes no spaces in values.")
    configurations = tuple(
        Configuration(threads, delegate, cores)
        for delegate in options.delegate
        for threads in options.threads
    )
    names = ("rounds", "num_runs", "max_secs", "timeout_s", "max_temperature_c")
    for name in names:
        if getattr(options, name) <= 0:
            raise UserError(f"--{name}: expected more than 0, found {getattr(options, name)}.")
    for name in ("min_secs", "warmup_secs", "cool_timeout_s", "max_drift", "sustained"):
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
        signature=options.signature,
        extra_flags=extra,
        sustained_min=options.sustained,
        energy=options.energy,
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
    known_names = {name for tool in tools.TOOLS.values() for name in tool.delegate_flags}
    for name in names:
        if name not in known_names:
            known = ", ".join(sorted(known_names))
            raise argparse.ArgumentTypeError(f"expected some of {known}; found {name!r}")
    return names


def _cores(text: str) -> str:
    if text in ("big", "little", "all") or (re.fullmatch("[0-9a-f]+", text) and int(text, 16)):
        return text
    raise argparse.ArgumentTypeError(
        f"expected big, little, all or a hexadecimal mask as in f0; found {text!r}"
    )

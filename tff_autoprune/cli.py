"""What every command shares: flags, help, one-line errors, nothing left running.

    tff-autoprune COMMAND --flag=value ...

Each command has a set of flags of its own, so that `--help` tells of these alone.
"""

from __future__ import annotations

import gc
import importlib
import os
import re
import signal
import sys
import textwrap
from collections.abc import Callable, Sequence
from typing import NoReturn, Optional

from absl import flags, logging

from tff_autoprune import config
from tff_autoprune.errors import UserError
from tff_autoprune.options import Section, options_of

USER_ERROR_EXIT_CODE = 2
COMMANDS = {
    "train": "trains a model by federated averaging and prunes it on the way",
    "export": "writes the models of a run as TFLite files, checked",
    "benchmark": "times the exported models on this host",
    "report": "writes the page of a run, or compares runs",
    "compare": "trains with several methods and seeds, and compares",
    "show-data": "draws a data set and says how unequal the clients are",
    "worker": "computes clients for `train` on another machine",
}
_HELP = ("--help", "-help", "-h", "--helpfull", "-?")
# How absl says that a flag's value cannot be read, and how we do.
_UNREADABLE = (
    (r"invalid literal for int\(\) with base 10: (.*)", r"expected an integer, found \1"),
    (r"could not convert string to float: (.*)", r"expected a number, found \1"),
)


def new_flags() -> flags.FlagValues:
    """Returns an empty set of flags for a command."""
    values = flags.FlagValues()
    flags.DEFINE_bool("only_check_args", False, "Check the flags and stop.", flag_values=values)
    return values


def define_import(values: flags.FlagValues) -> flags.FlagHolder:
    """Adds the flag `--import` to a command that reads or makes models."""
    return flags.DEFINE_multi_string(
        "import",
        [],
        "A Python module to import first, for example one that registers layers of your own with"
        " tf.keras.saving.register_keras_serializable",
        flag_values=values,
    )


def define_override(
    section: type[Section], name: str, values: flags.FlagValues, more: str = ""
) -> flags.FlagHolder:
    """Adds a flag that takes the place of a field of a run's configuration.

    Args:
      section: The section of the field.
      name: The field, and the flag.
      values: The flags of the command.
      more: Help beyond that of the field.

    Returns:
      The flag, None by default.
    """
    option = options_of(section)[name]
    define = {int: flags.DEFINE_integer, float: flags.DEFINE_float, tuple: flags.DEFINE_list}
    holder = define[option.kind](
        name,
        None,
        f"{option.help} {option.allowed.capitalize()}; by default as the run is configured. {more}",
        flag_values=values,
    )

    def check(value: object) -> bool:
        try:
            return value is None or option.require(value) is None
        except UserError as error:
            raise flags.ValidationError(str(error).partition(": ")[2]) from error

    flags.register_validator(name, check, flag_values=values)
    return holder


def require(flag: flags.FlagHolder, hint: str) -> None:
    """Checks that a flag was given.

    Args:
      flag: The flag.
      hint: What to write.

    Raises:
      UserError: If it was not.
    """
    if not flag.value:
        raise UserError(f"--{flag.name}: {hint}")


def no_arguments(argv: Sequence[str]) -> None:
    """Checks that there is nothing but flags.

    Raises:
      UserError: If there is.
    """
    if len(argv) > 1:
        raise UserError(f"expected flags only (--NAME=VALUE), found {argv[1]!r}.")


def main(command: Optional[str] = None) -> None:
    """Runs the command line of this process.

    Args:
      command: A key of `COMMANDS`; None takes it from the command line.
    """
    program, *arguments = sys.argv
    if command is None:
        program = "tff-autoprune"
        if not arguments or arguments[0] in (*_HELP, "help"):
            _show(_overview())
            sys.exit(0 if arguments else USER_ERROR_EXIT_CODE)
        command, *arguments = arguments
        program = f"{program} {command}"
        if command not in COMMANDS:
            _fail(f"expected one of {', '.join(COMMANDS)}, found {command!r}.")
    _quiet_tensorflow()
    module = importlib.import_module(f"tff_autoprune.commands.{command.replace('-', '_')}")
    run(module.main, values=module.FLAGS, doc=module.__doc__, argv=[program, *arguments])


def run(
    main: Callable[[Sequence[str]], None],
    *,
    values: flags.FlagValues = flags.FLAGS,
    doc: Optional[str] = None,
    argv: Optional[Sequence[str]] = None,
) -> None:
    """Runs `main` as a command.

    `main` imports TensorFlow itself, inside the function: `--help` must answer at once.
    A `UserError` becomes one line on stderr and exit code 2, and so does a wrong flag or config
    file. SIGTERM unwinds like an exception.

    Args:
      main: Takes the positional arguments, the program's name first.
      values: The flags of the command.
      doc: What `--help` says first; the docstring of the program by default.
      argv: The command line; this process's by default.
    """
    _quiet_tensorflow()
    # Importing TensorFlow makes a million lasting objects, which Python's collector would walk
    # through again for every 700 new ones: a second of every start.
    gc.set_threshold(50_000, 5, 5)
    # A script's path holds scripts/ only; a model `my_package.networks:build` lies here.
    sys.path.append(os.getcwd())
    signal.signal(signal.SIGTERM, _exit_on_sigterm)

    argv = list(sys.argv if argv is None else argv)
    before_others = argv[: argv.index("--")] if "--" in argv else argv
    if any(argument in _HELP for argument in before_others[1:]):
        _show(_help(values, doc or sys.modules["__main__"].__doc__ or ""))
        sys.exit(0)
    argv = _parse_flags(argv, values)
    # Not `app.run`: once it has run, TensorFlow's import touches devices before it enables eager
    # execution, and Keras then builds placeholders instead of models.
    if values is not flags.FLAGS:
        flags.FLAGS.mark_as_parsed()  # absl's own, which its log reads.
    logging.use_absl_handler()
    try:
        if "import" in values:
            import_modules(values["import"].value)
        if "only_check_args" in values and values["only_check_args"].value:
            return
        main(argv)
    except UserError as error:
        _fail(error)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)
    except BrokenPipeError:  # `... | head` has seen enough.
        _close_output()
        sys.exit(128 + signal.SIGPIPE)


def import_modules(names: Sequence[str]) -> None:
    """Imports modules by name.

    Raises:
      UserError: If one cannot be imported.
    """
    for name in names:
        try:
            importlib.import_module(name)
        # A module is the user's own Python: anything can come out.
        except Exception as error:
            raise UserError(f"--import={name}: {type(error).__name__}: {error}") from error


def _quiet_tensorflow() -> None:
    """Hides TensorFlow's start-up chatter; must run before TensorFlow is imported."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_ENABLE_DEPRECATION_WARNINGS", "0")


def _exit_on_sigterm(signum: int, frame: object) -> None:
    del frame
    # SystemExit unwinds the stack, so `finally` blocks and atexit handlers run.
    sys.exit(128 + signum)


def _fail(message: object) -> NoReturn:
    print(f"error: {' '.join(str(message).split())}", file=sys.stderr)
    sys.exit(USER_ERROR_EXIT_CODE)


def _show(text: str) -> None:
    try:
        print(text, flush=True)
    except BrokenPipeError:
        _close_output()


def _close_output() -> None:
    """Keeps Python from writing to a closed pipe once more when it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _overview() -> str:
    rows = "\n".join(f"  {name:10} {text}" for name, text in COMMANDS.items())
    return (
        "tff-autoprune COMMAND --flag=value ...\n\n"
        "Shrinks Keras models inside federated learning.\n\n"
        f"{rows}\n\n`tff-autoprune COMMAND --help` lists the flags of a command."
    )


def _help(values: flags.FlagValues, doc: str) -> str:
    """Returns what a command does and its flags, in the order of their definition."""
    lines = [doc.strip(), "", "Flags:"]
    # Those that all commands have come last; they were defined first.
    for module_flags in reversed(values.flags_by_module_dict().values()):
        for flag in module_flags:
            name = f"[no]{flag.name}" if flag.boolean else flag.name
            shown = flag.default not in (None, False, [], "")
            default = f" Default: {flag.default_as_str}." if shown else ""
            text = " ".join(flag.help.split()) + default
            indent = " " * 6
            lines.append(f"  --{name}")
            lines += textwrap.wrap(text, 90, initial_indent=indent, subsequent_indent=indent)
    return "\n".join(lines)


def _parse_flags(argv: Sequence[str], values: flags.FlagValues) -> list[str]:
    try:
        config.check_flags(argv[1:])
        return values(argv)
    except (flags.Error, UserError) as error:
        message = str(error)
        for pattern, replacement in _UNREADABLE:
            message = re.sub(pattern, replacement, message)
        _fail(message)
    # A config file is the user's own Python, run while flags are parsed: anything can come out.
    except Exception as error:
        _fail(f"--config: {type(error).__name__}: {error}")

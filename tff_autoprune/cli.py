"""What every command shares: absl flags, one-line errors, nothing left running."""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from absl import app, flags, logging

from tff_autoprune import config
from tff_autoprune.errors import UserError

USER_ERROR_EXIT_CODE = 2


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


def _parse_flags(argv: Sequence[str]) -> list[str]:
    try:
        config.check_flags(argv[1:])
        return flags.FLAGS(argv)
    except (flags.Error, UserError) as error:
        _fail(error)
    except BrokenPipeError:  # `--help | head` has seen enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    # A config file is the user's own Python, run while flags are parsed: anything can come out.
    except Exception as error:
        _fail(f"--config: {type(error).__name__}: {error}")


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


def run(main: Callable[[Sequence[str]], None]) -> None:
    """Runs `main` as a command.

    `main` imports TensorFlow itself, inside the function: `--help` must answer at once.
    A `UserError` becomes one line on stderr and exit code 2, and so does a wrong flag or config
    file. SIGTERM unwinds like an exception.

    Args:
      main: Takes the positional arguments, the program's name first.
    """
    _quiet_tensorflow()
    # Importing TensorFlow makes a million lasting objects, which Python's collector would walk
    # through again for every 700 new ones: a second of every start.
    gc.set_threshold(50_000, 5, 5)
    # A script's path holds scripts/ only; a model `my_package.networks:build` lies here.
    sys.path.append(os.getcwd())
    signal.signal(signal.SIGTERM, _exit_on_sigterm)

    app.define_help_flags()
    argv = _parse_flags(sys.argv)
    if flags.FLAGS.only_check_args:
        return
    # Not `app.run`: once it has run, TensorFlow's import touches devices before it enables eager
    # execution, and Keras then builds placeholders instead of models.
    logging.use_absl_handler()
    try:
        main(argv)
    except UserError as error:
        _fail(error)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)

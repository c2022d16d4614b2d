"""Who is measuring on a device: one session at a time, from whichever computer.

A session's folder on the device is named by a random token, and holds the time (of the device's
clock) until which it is surely in use; the session puts that off as it goes on. Another session
that finds such a folder leaves the device alone until then. A session that was killed cannot take
its folder away. On its own computer this is noticed at once: it held a lock on a file that is named
by the token, which the system has taken from it.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import re
import secrets
import tempfile
from collections.abc import Iterator
from typing import Optional

from android_bench.adb import DeviceConnection, printable, quote
from android_bench.device import REMOTE_ROOT
from android_bench.errors import UserError

try:
    import fcntl
except ImportError:  # Windows: a killed session's folder is left alone until its time is up.
    fcntl = None

_PREFIX = f"{REMOTE_ROOT}/android_bench-"
_COMMAND_TIMEOUT_S = 30.0
# What a session needs at least between two commands, such as to run the models on its computer.
SPARE_S = 120


def folder_of(token: str) -> str:
    """Returns the path of a session's folder on the device."""
    return f"{_PREFIX}{token}"


def renewal(path: str, seconds: float) -> str:
    """Returns the shell command that says that the folder is in use for as many seconds more."""
    return f"echo $(( $(date +%s) + {round(seconds) + SPARE_S} )) > {quote(path + '/in_use_until')}"


@contextlib.contextmanager
def local_token() -> Iterator[str]:
    """Makes a token, and holds its lock on this computer for as long as the block lasts.

    The file stays until `forget`: a folder that could not be removed is then known to be abandoned.
    """
    token = secrets.token_hex(8)
    with open(_lock_file(token), "w") as file:
        if fcntl:
            fcntl.flock(file, fcntl.LOCK_EX)
        yield token


def abandoned(connection: DeviceConnection, own: Optional[str] = None) -> list[str]:
    """Returns the folders of sessions that have ended without taking them away.

    Args:
      connection: The device.
      own: The folder of this session, which does not count.

    Raises:
      UserError: If another session is measuring on the device.
    """
    script = f'date +%s; for d in {_PREFIX}*; do echo "$d $(cat $d/in_use_until 2>/dev/null)"; done'
    now, *lines = connection.shell(script, _COMMAND_TIMEOUT_S).output.splitlines() or [""]
    found = []
    for line in lines:
        match = re.fullmatch(re.escape(_PREFIX) + r"([0-9a-f]{16}) ?(\d*)", line)
        if not match or folder_of(match[1]) == own:
            continue
        left = int(match[2]) - int(now) if match[2] and now.isdigit() else 0
        if _is_dead_here(match[1]) or left <= 0:
            found.append(folder_of(match[1]))
            continue
        raise UserError(
            f"{printable(connection.serial)}: another android_bench is measuring on this device,"
            f" for the next {left} s at least; two at once would disturb each other."
        )
    return found


def forget(path: str) -> None:
    """Removes what this computer remembers of a folder that is gone."""
    with contextlib.suppress(OSError):
        _lock_file(path.removeprefix(_PREFIX)).unlink(missing_ok=True)


def _lock_file(token: str) -> pathlib.Path:
    return pathlib.Path(tempfile.gettempdir()) / f"android_bench-{token}.lock"


def _is_dead_here(token: str) -> bool:
    """Whether the session ran on this computer and does no longer."""
    if not fcntl:
        return False
    try:
        descriptor = os.open(_lock_file(token), os.O_RDWR)
    except OSError:  # Another computer's, or another user's.
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True

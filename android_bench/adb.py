"""The real adb client as a subprocess: time limits, exit codes, and text that is safe to show.

Traps of the client that this module takes care of:

- `adb connect` exits with 0 when it failed.
- `adb shell` exits with 0 on devices without the feature shell_v2, whatever the command did, and
  when the connection breaks. So every command ends with a marker that carries its exit code; no
  marker means that the command did not end.
- `adb shell` reads our standard input, and joins its arguments with spaces for the device's shell
  to split again. So it gets no input and one argument, in which every value is quoted.
- Messages of push and pull are on stdout or stderr, depending on the version. Both are read.
- Ctrl-C reaches the whole process group. Clients get a session of their own, so that it is this
  program that decides what is still to be done on the device.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import pathlib
import re
import secrets
import shutil
import subprocess
from typing import Optional

from android_bench.errors import UserError

# Starting the server takes seconds on a slow host; the rest answers at once or not at all.
_SERVER_TIMEOUT_S = 30.0
_TRANSFER_TIMEOUT_S = 600.0
# adb before protocol version 2 puts the whole command into one packet of 4 KiB.
_MAX_SCRIPT_BYTES = 3800

# State as `adb devices` says it -> what the user can do about it.
STATE_HELP = {
    "unauthorized": "unlock its screen and accept the question about this computer's key",
    "authorizing": "it is still deciding about this computer's key; try again",
    "offline": "it does not answer; reconnect the cable, or `adb reconnect offline`",
    "connecting": "it is still connecting; try again",
    "no permissions": "this user may not open the USB device; see adb's page on udev rules",
    "bootloader": "it is in the bootloader; boot Android",
    "recovery": "it is in recovery; boot Android",
    "sideload": "it is in sideload mode; boot Android",
    "rescue": "it is in rescue mode; boot Android",
    "host": "it is itself a host",
}
READY = "device"


class AdbError(UserError):
    """adb, or the device, refused or failed; the message says what."""


class DeviceLost(AdbError):
    """The connection ended before the command did.

    Attributes:
      output: What had arrived until then.
    """

    def __init__(self, message: str, output: str = "") -> None:
        """Keeps the partial output."""
        super().__init__(message)
        self.output = output


class AdbTimeout(AdbError):
    """No end within the time limit; what runs on the device may still be running.

    Attributes:
      output: What had arrived until then.
    """

    def __init__(self, message: str, output: str = "") -> None:
        """Keeps the partial output."""
        super().__init__(message)
        self.output = output


def printable(text: str) -> str:
    """Returns `text` with control characters escaped: a device may not steer the terminal."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def quote(value: str) -> str:
    """Quotes `value` for the device's POSIX shell."""
    return "'" + value.replace("'", "'\\''") + "'"


def find_adb(explicit: Optional[str] = None) -> str:
    """Returns the path of an adb client: `explicit`, one on the PATH, or the one in adbutils.

    Raises:
      UserError: If there is none, or `explicit` is not an executable file.
    """
    if explicit:
        found = shutil.which(explicit)
        if not found:
            raise UserError(f"--adb: expected an executable file, found {explicit!r}.")
        return found
    found = shutil.which("adb")
    if found:
        return found
    # Looked up without importing it: the package pulls in an HTTP client and an image library.
    spec = importlib.util.find_spec("adbutils")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        bundled = pathlib.Path(folder) / "binaries" / "adb"
        if os.access(bundled, os.X_OK):
            return str(bundled)
    raise UserError(
        "no adb: expected it on the PATH or in the package adbutils; install Android's"
        " platform-tools or `pip install adbutils`, or name it with --adb."
    )


@dataclasses.dataclass(frozen=True)
class AttachedDevice:
    """A line of `adb devices`.

    Attributes:
      serial: What `-s` takes; can have spaces.
      state: "device" when it is ready, else a key of `STATE_HELP` or an unknown word.
    """

    serial: str
    state: str

    @property
    def explanation(self) -> str:
        """Why the device cannot be used, and what to do; empty if it can."""
        if self.state == READY:
            return ""
        known = next((text for key, text in STATE_HELP.items() if self.state.startswith(key)), "")
        return f"{printable(self.state)}: {known or 'not a state in which it can run anything'}"


@dataclasses.dataclass(frozen=True)
class ShellResult:
    """A command that ended on the device.

    Attributes:
      exit_code: The device's, not the client's.
      output: stdout and stderr of the command, in the order in which they were written.
    """

    exit_code: int
    output: str


class Adb:
    """The client program, for any device."""

    def __init__(self, executable: str) -> None:
        """Starts nothing; the environment (HOME, ANDROID_ADB_SERVER_PORT) is passed on as it is."""
        self.executable = executable

    def version(self) -> str:
        """Returns e.g. "1.0.41 (36.0.0-13206524)"."""
        output = self.run(["version"], timeout_s=_SERVER_TIMEOUT_S)[1]
        protocol = re.search(r"version (\S+)", output)
        build = re.search(r"^Version (\S+)", output, re.MULTILINE)
        words = [protocol[1] if protocol else "unknown"] + ([f"({build[1]})"] if build else [])
        return printable(" ".join(words))

    def devices(self) -> list[AttachedDevice]:
        """Returns what is attached, in the server's order; starts the server if need be.

        Raises:
          AdbError: If the server does not start or answer.
        """
        code, output = self.run(["devices"], timeout_s=_SERVER_TIMEOUT_S)
        if code:
            raise AdbError(f"`adb devices` failed: {_last_line(output)}")
        # Serial and state are parted by a tab; a serial from mDNS can have spaces.
        rows = [line.split("\t", 1) for line in output.splitlines() if "\t" in line]
        return [AttachedDevice(serial.strip(), state.strip()) for serial, state in rows]

    def connect(self, address: str) -> None:
        """Connects to a device over the network.

        Args:
          address: HOST:PORT.

        Raises:
          AdbError: If there is no such device; adb's own exit code does not tell.
        """
        if not re.fullmatch(r"[\w.:\[\]-]+:\d+", address):
            raise UserError(f"--connect: expected HOST:PORT, found {printable(address)!r}.")
        _, output = self.run(["connect", address], timeout_s=_SERVER_TIMEOUT_S)
        # An unauthorized device is attached, too; its state says so.
        if "connected to" not in output and "authenticate" not in output:
            raise AdbError(f"--connect: {_last_line(output) or 'no answer'}")

    def run(self, arguments: list[str], timeout_s: float) -> tuple[int, str]:
        """Runs the client to its end.

        Args:
          arguments: Each one an argument of the client; none goes through a shell here.
          timeout_s: The client is killed after as many seconds.

        Returns:
          Its exit code, and stdout and stderr interleaved, with plain line ends.

        Raises:
          AdbTimeout: If it did not end in time.
          AdbError: If it could not be started.
        """
        try:
            process = subprocess.Popen(
                [self.executable, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            raise AdbError(f"cannot run {self.executable}: {error.strerror}") from error
        with process:
            try:
                raw, _ = process.communicate(timeout=timeout_s)
            except subprocess.TimeoutExpired:
                process.kill()
                raw, _ = process.communicate()
                raise AdbTimeout(f"no answer within {timeout_s:g} s", _text(raw)) from None
            except BaseException:
                process.kill()
                raise
        return process.returncode, _text(raw)


class DeviceConnection:
    """The client, for one device."""

    def __init__(self, adb: Adb, serial: str) -> None:
        """Names the device; says nothing to it yet."""
        self._adb = adb
        self.serial = serial

    def shell(self, script: str, timeout_s: float) -> ShellResult:
        """Runs a script in the device's shell, without input.

        Args:
          script: POSIX shell; the caller quotes every value in it with `quote`.
          timeout_s: Limit for the whole script.

        Raises:
          DeviceLost: If the connection ended first, or there is none.
          AdbTimeout: If the script did not end in time. It may go on on the device.
        """
        nonce = secrets.token_hex(8)
        framed = _framed(script, nonce)
        if len(framed.encode()) > _MAX_SCRIPT_BYTES:
            raise ValueError(f"a script of {len(framed.encode())} bytes is too long for old adbd")
        code, output = self._adb.run(["-s", self.serial, "shell", framed], timeout_s)
        body, marker, exit_code = output.rpartition(f"\n{nonce}:")
        if not marker or not exit_code.strip().isdigit():
            what = _last_line(output) if code else ""
            raise DeviceLost(
                f"{printable(self.serial)}: the connection ended before the command did"
                + (f" ({what})" if what else ""),
                output,
            )
        return ShellResult(int(exit_code), body)

    @staticmethod
    def fits(script: str) -> bool:
        """Whether `shell` can take a script of this length."""
        return len(_framed(script, "0" * 16).encode()) <= _MAX_SCRIPT_BYTES

    def push(self, local: pathlib.Path, remote: str) -> None:
        """Copies a file to the device.

        Raises:
          AdbError: If it could not be written there.
        """
        self._transfer(["push", str(local.resolve()), remote], f"cannot push {local.name}")

    def pull(self, remote: str, local: pathlib.Path) -> None:
        """Copies a file from the device.

        Raises:
          AdbError: If it could not be read there.
        """
        self._transfer(["pull", remote, str(local.resolve())], f"cannot pull {remote}")

    def wait_until_ready(self, timeout_s: float) -> bool:
        """Returns whether the device is there within the time."""
        try:
            code, _ = self._adb.run(["-s", self.serial, "wait-for-device"], timeout_s)
        except AdbTimeout:
            return False
        return code == 0

    def _transfer(self, arguments: list[str], failure: str) -> None:
        code, output = self._adb.run(["-s", self.serial, *arguments], _TRANSFER_TIMEOUT_S)
        if code:
            raise AdbError(f"{printable(self.serial)}: {failure}: {_last_line(output)}")


def _framed(script: str, nonce: str) -> str:
    # The subshell keeps an `exit` in the script from skipping the marker; the empty line before the
    # marker ends a last line that had no end.
    return f"( {script}\n) 2>&1; printf '\\n{nonce}:%d\\n' $?"


def _text(raw: bytes) -> str:
    # Without shell_v2 a terminal is in between, which turns \n into \r\n (Android 6: \r\r\n).
    return re.sub(r"\r+\n", "\n", raw.decode("utf-8", errors="replace"))


def _last_line(output: str) -> str:
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    return printable(lines[-1]) if lines else ""

"""A private folder on the device that is gone again afterwards, whatever happens.

What a killed or cut off session left behind is removed by the next one; see `session_lock`.
"""

from __future__ import annotations

import contextlib
import hashlib
import pathlib
import re
import signal
import tempfile
import threading
from collections.abc import Iterator
from typing import Optional

from android_bench import session_lock
from android_bench.adb import AdbError, AdbTimeout, DeviceConnection, DeviceLost, printable, quote

_COMMAND_TIMEOUT_S = 30.0
# A phone that re-enumerates on USB is back in seconds; one that was unplugged is not.
_RETURN_TIMEOUT_S = 10.0
# A file may be as large as a model of some gigabytes.
_TRANSFER_S = 600.0
# What asks this program to end. Windows knows no SIGHUP, which a closed terminal sends.
END_SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)


def sha256(path: pathlib.Path) -> str:
    """Returns the digest of a file, hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


class RemoteFolder:
    """The folder, while it exists; made by `private_folder`."""

    def __init__(self, connection: DeviceConnection, path: str) -> None:
        """Names the folder on the device."""
        self.connection = connection
        self.path = path
        self._pushed: dict[str, str] = {}

    def put(self, local: pathlib.Path, suffix: str = "", executable: bool = False) -> str:
        """Copies a file there, once, and makes sure that it arrived whole.

        Args:
          local: The file. Its name does not reach the device.
          suffix: Of the name there, which is otherwise the file's digest.
          executable: Whether to set the executable bit.

        Returns:
          Its path on the device.

        Raises:
          AdbError: If there is no room, or what arrived is not what was sent.
        """
        digest = sha256(local)
        remote = f"{self.path}/{digest}{suffix}"
        if remote in self._pushed:
            return remote
        self.keep(_TRANSFER_S)
        self.connection.push(local, remote)
        arrived = self._remote_sha256(remote)
        if arrived != digest:
            raise AdbError(
                f"{printable(self.connection.serial)}: {local.name} arrived damaged"
                f" (sha256 {arrived[:12]}, sent {digest[:12]})."
            )
        mode = "755" if executable else "644"
        self._require(f"chmod {mode} {quote(remote)}")
        self._pushed[remote] = digest
        return remote

    def run(
        self, arguments: list[str], timeout_s: float, core_mask: Optional[str] = None
    ) -> tuple[int, str]:
        """Runs a program of the folder to its end.

        Args:
          arguments: The program's path on the device, and its arguments; quoted here.
          timeout_s: The program is killed after as many seconds.
          core_mask: Hexadecimal; binds it to these cores.

        Returns:
          Its exit code and what it printed.

        Raises:
          AdbTimeout: If it did not end in time.
          DeviceLost: If the connection ended first.
        """
        bound = f"taskset {core_mask} " if core_mask else ""
        command = " ".join(quote(argument) for argument in arguments)
        # `exec` keeps the process number, by which a program that hangs is ended.
        script = (
            f"{session_lock.renewal(self.path, timeout_s)}\n"
            f"echo $$ > {quote(self._pid_file)}; exec {bound}{command}"
        )
        shell = f"exec sh -c {quote(script)}"
        if not self.connection.fits(shell):
            shell = f"exec sh {quote(self._put_text(script))}"
        try:
            result = self.connection.shell(shell, timeout_s)
        except AdbTimeout:
            self.kill()
            raise
        return result.exit_code, result.output

    def keep(self, seconds: float) -> None:
        """Says on the device that the folder is in use for as many seconds more."""
        self._require(session_lock.renewal(self.path, seconds))

    def open_to_apps(self) -> None:
        """Lets apps read the folder's files by their names, which nobody can guess."""
        self._require(f"chmod 711 {quote(self.path)}")

    def fetch(self, remote: str) -> Optional[bytes]:
        """Returns the content of a file of the folder; None if there is no such file."""
        exists = self.connection.shell(f"test -s {quote(remote)}", _COMMAND_TIMEOUT_S)
        if exists.exit_code:
            return None
        with tempfile.TemporaryDirectory(prefix="android_bench_") as folder:
            local = pathlib.Path(folder) / "file"
            self.connection.pull(remote, local)
            return local.read_bytes()

    def kill(self) -> None:
        """Ends what `run` started, if it is still running."""
        self.connection.shell(_kill_script(self.path), _COMMAND_TIMEOUT_S)

    def remove(self) -> None:
        """Ends what still runs there and removes the folder.

        Raises:
          AdbError: If the device does not answer or refuses.
        """
        self._require(f"{_kill_script(self.path)}; rm -rf {quote(self.path)}")

    @property
    def _pid_file(self) -> str:
        return f"{self.path}/pid"

    def _put_text(self, text: str) -> str:
        with tempfile.TemporaryDirectory(prefix="android_bench_") as folder:
            local = pathlib.Path(folder) / "script"
            local.write_text(text, encoding="utf-8")
            return self.put(local, ".sh")

    def _remote_sha256(self, remote: str) -> str:
        result = self.connection.shell(f"sha256sum {quote(remote)}", _COMMAND_TIMEOUT_S)
        match = re.match(r"\\?([0-9a-f]{64})\s", result.output)
        if match and result.exit_code == 0:
            return match[1]
        # Before Android 6 there is no sha256sum: what is there comes back and is compared here.
        with tempfile.TemporaryDirectory(prefix="android_bench_") as folder:
            local = pathlib.Path(folder) / "file"
            self.connection.pull(remote, local)
            return sha256(local)

    def _require(self, script: str) -> None:
        result = self.connection.shell(script, _COMMAND_TIMEOUT_S)
        if result.exit_code:
            raise AdbError(
                f"{printable(self.connection.serial)}: {self.path}:"
                f" {printable(result.output.strip())} (exit code {result.exit_code})"
            )


@contextlib.contextmanager
def private_folder(connection: DeviceConnection) -> Iterator[RemoteFolder]:
    """Makes a folder on the device, and removes it when the block is left, in whatever way.

    Yields:
      The folder.

    Raises:
      UserError: If another session is using the device.
      AdbError: If the folder cannot be made, or cannot be removed afterwards; the message then
        has the command that does.
    """
    for leftover in session_lock.abandoned(connection):
        RemoteFolder(connection, leftover).remove()
        session_lock.forget(leftover)
    with session_lock.local_token() as token:
        folder = RemoteFolder(connection, session_lock.folder_of(token))
        try:
            make = f"umask 077; mkdir {quote(folder.path)}"
            folder._require(f"{make}; {session_lock.renewal(folder.path, _TRANSFER_S)}")
            # Whoever began in the same second is seen by now, on one side at least.
            session_lock.abandoned(connection, own=folder.path)
            yield folder
        finally:
            with _uninterrupted():
                _remove_surely(folder)
                session_lock.forget(folder.path)


def _remove_surely(folder: RemoteFolder) -> None:
    connection = folder.connection
    try:
        folder.remove()
        return
    except (DeviceLost, AdbTimeout):
        back = connection.wait_until_ready(_RETURN_TIMEOUT_S)
    try:
        if back:
            folder.remove()
            return
    except AdbError:
        pass
    raise DeviceLost(
        f"{printable(connection.serial)}: the device is gone, and files of ours are still on it:"
        f" the next run removes them, or `adb -s {printable(connection.serial)} shell rm -rf"
        f" {folder.path}`."
    )


def _kill_script(path: str) -> str:
    """Kills the process whose number the folder holds, if it is one of the folder's programs."""
    name = path.rsplit("/", 1)[1]
    return (
        f"p=$(cat {quote(path + '/pid')} 2>/dev/null);"
        f' [ -n "$p" ] && grep -q {quote(name)} /proc/$p/cmdline 2>/dev/null && kill -9 $p; :'
    )


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """Holds signals to end back: a second Ctrl-C must not stop the clean-up of the first."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    held = {number: signal.signal(number, signal.SIG_IGN) for number in END_SIGNALS}
    try:
        yield
    finally:
        for number, handler in held.items():
            signal.signal(number, handler)

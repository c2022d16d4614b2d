"""Starts the program that measures on the device: in its shell, or as an app.

The app is for phones whose shell may not execute programs, and because an app's times differ from
those of a program that the shell started: by up to 2.3 times on the GPU (tensorflow #63111). It is
TensorFlow's own (tensorflow/lite/tools/benchmark/android): it takes its flags from an intent and
writes what benchmark_model prints to the system's log.
"""

from __future__ import annotations

import pathlib
import re
import secrets
import time
import zipfile
from typing import Any, Optional, Protocol

from android_bench import elf, parse
from android_bench.adb import AdbError, AdbTimeout, DeviceConnection, quote
from android_bench.errors import UserError
from android_bench.remote_folder import RemoteFolder, sha256
from android_bench.tools import APP, Tool

APP_PACKAGE = "org.tensorflow.lite.benchmark"
_ACTIVITY = f"{APP_PACKAGE}/.BenchmarkModelActivity"
_COMMAND_TIMEOUT_S = 60.0
_INSTALL_TIMEOUT_S = 300.0
# Looking into the log costs the phone time, so not too often.
_POLL_S = 1.0
# The app's, the runtime's, and those that tell of a crash.
_LOG_TAGS = "android_bench:I tflite:V tflite_BenchmarkModelActivity:I AndroidRuntime:E DEBUG:F"


class Program(Protocol):
    """What measures.

    Attributes:
      tool: Which flags it takes.
      path: Its file on this computer.
      abis: The ABIs that it is for.
    """

    tool: Tool
    path: pathlib.Path
    abis: tuple[str, ...]

    def facts(self) -> dict[str, Any]:
        """Returns name, tool, sha256, ABIs and size."""

    def install(self, folder: RemoteFolder) -> None:
        """Copies it to the device."""

    def uninstall(self) -> None:
        """Takes away what does not go with the folder."""

    def start(
        self, flags: list[str], timeout_s: float, core_mask: Optional[str]
    ) -> tuple[int, str]:
        """Runs it to its end; returns its exit code and what it printed."""


class ShellProgram:
    """A program for the device's shell."""

    def __init__(self, path: pathlib.Path, tool: Tool) -> None:
        """Reads its ABI.

        Raises:
          UserError: If it is no program for Android.
        """
        self.tool = tool
        self.path = path
        self.abis: tuple[str, ...] = (elf.abi(path),)

    def facts(self) -> dict[str, Any]:
        """Returns name, tool, sha256, ABIs and size."""
        return _facts(self)

    def install(self, folder: RemoteFolder) -> None:
        """Copies it to the device."""
        self._folder = folder
        self._remote = folder.put(self.path, ".benchmark_model", executable=True)

    def uninstall(self) -> None:
        """Does nothing: it goes with the folder."""

    def start(
        self, flags: list[str], timeout_s: float, core_mask: Optional[str]
    ) -> tuple[int, str]:
        """Runs it to its end; returns its exit code and what it printed."""
        return self._folder.run([self._remote, *flags], timeout_s, core_mask)


class AppProgram:
    """TensorFlow's benchmark app."""

    def __init__(self, path: pathlib.Path) -> None:
        """Reads its ABIs.

        Raises:
          UserError: If it is no Android package, or has no native code.
        """
        self.tool = APP
        self.path = path
        self._connection: Optional[DeviceConnection] = None
        self._was_there = True
        try:
            with zipfile.ZipFile(path) as package:
                names = package.namelist()
        except OSError as error:
            raise UserError(f"--benchmark_app: {path}: {error.strerror}.") from error
        except zipfile.BadZipFile as error:
            raise UserError(f"--benchmark_app: {path}: expected an APK ({error}).") from error
        found = [match[1] for name in names if (match := re.match(r"lib/([^/]+)/.*\.so$", name))]
        self.abis = tuple(dict.fromkeys(found))
        if "AndroidManifest.xml" not in names or not self.abis:
            raise UserError(f"--benchmark_app: {path}: expected TensorFlow's benchmark app (APK).")

    def facts(self) -> dict[str, Any]:
        """Returns name, tool, sha256, ABIs and size."""
        return _facts(self)

    def install(self, folder: RemoteFolder) -> None:
        """Installs it.

        Raises:
          AdbError: If the device refuses.
        """
        self._folder = folder
        self._connection = folder.connection
        folder.open_to_apps()
        self._was_there = self._shell(f"pm path {APP_PACKAGE}")[0] == 0
        remote = folder.put(self.path, ".apk")
        folder.keep(_INSTALL_TIMEOUT_S)
        _, output = self._shell(f"pm install -r -d -g {quote(remote)}", _INSTALL_TIMEOUT_S)
        if "Success" not in output:
            raise AdbError(f"--benchmark_app: the device refuses it: {' '.join(output.split())}")

    def uninstall(self) -> None:
        """Uninstalls it, if it was not there before."""
        if not self._connection:
            return
        self._shell(f"am force-stop {APP_PACKAGE}")
        if not self._was_there:
            self._shell(f"pm uninstall {APP_PACKAGE}")

    def start(
        self, flags: list[str], timeout_s: float, core_mask: Optional[str]
    ) -> tuple[int, str]:
        """Runs it to its end; returns 0 if it printed a summary, else 1, and its part of the log.

        Raises:
          AdbTimeout: If it did not end in time; it is stopped then.
        """
        del core_mask  # Nobody but the app itself may bind it.
        self._folder.keep(timeout_s)
        mark = secrets.token_hex(8)
        # The app splits its argument at spaces.
        code, output = self._shell(
            f"log -p i -t android_bench {mark}; "
            f"am start -S -n {_ACTIVITY} --es args {quote(' '.join(flags))}"
        )
        if code or re.search(r"^(?:Error|Exception|java\.)", output, re.MULTILINE):
            return 1, output
        deadline = time.monotonic() + timeout_s
        gone = 0
        while True:
            time.sleep(_POLL_S)
            text, is_running = self._look(mark)
            if _is_complete(text):
                # The lines about memory come right after the summary.
                time.sleep(_POLL_S)
                return 0, self._look(mark)[0]
            gone = 0 if is_running else gone + 1
            if gone > 1:
                return 1, text
            if time.monotonic() > deadline:
                self._shell(f"am force-stop {APP_PACKAGE}")
                raise AdbTimeout(f"no answer within {timeout_s:g} s", text)

    def _look(self, mark: str) -> tuple[str, bool]:
        """Returns the log since the mark, and whether the app is still at it."""
        _, output = self._shell(
            f"logcat -d -v threadtime -s {_LOG_TAGS};"
            f' [ -n "$(pidof {APP_PACKAGE})" ] && dumpsys activity activities'
            f" | grep -q {_ACTIVITY} && echo {mark}:running"
        )
        _, found, text = output.partition(f": {mark}\n")
        if not found:
            raise AdbError("--benchmark_app: the device's log does not keep what is written to it")
        body, running, _ = text.partition(f"{mark}:running")
        return body, bool(running)

    def _shell(self, script: str, timeout_s: float = _COMMAND_TIMEOUT_S) -> tuple[int, str]:
        result = self._connection.shell(script, timeout_s)
        return result.exit_code, result.output


def _is_complete(text: str) -> bool:
    try:
        runs = parse.parse_log(text)
    except parse.ParseError:
        return True  # The runner says which line.
    return bool(runs) and runs[-1].complete


def _facts(program: Program) -> dict[str, Any]:
    return {
        "name": program.path.name,
        "tool": program.tool.name,
        "abi": ", ".join(program.abis),
        "sha256": sha256(program.path),
        "size_bytes": program.path.stat().st_size,
    }

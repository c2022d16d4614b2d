"""A real adb server that nobody else uses, with phones on the loopback attached to it.

Shows the harness without a phone (times are this computer's):

    python tests/android/loopback.py python -m android_bench run --benchmark_binary=@ --run_dir=RUN

runs the command with one phone attached; @ stands for a program that the phone accepts (@app for
an app, @litert for LiteRT's program).
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import socket
import struct
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator

from adbd_double import AdbdDouble
from phone_double import Phone

from android_bench.adb import Adb, find_adb

_ELF_MACHINES = {"arm64-v8a": (2, 183), "armeabi-v7a": (1, 40), "x86_64": (2, 62)}


def write_program(
    path: pathlib.Path, abi: str = "arm64-v8a", name: str = "benchmark_model"
) -> pathlib.Path:
    """Writes an ELF program of nothing but a header, which is all that the double looks at."""
    word, machine = _ELF_MACHINES[abi]
    head = b"\x7fELF" + bytes([word, 1, 1, 0]) + bytes(8)
    path.write_bytes(head + struct.pack("<HH", 3, machine) + bytes(44) + name.encode())
    return path


def write_app(path: pathlib.Path, abi: str = "arm64-v8a") -> pathlib.Path:
    """Writes an APK with nothing in it but the names that are looked at."""
    with zipfile.ZipFile(path, "w") as package:
        package.writestr("AndroidManifest.xml", b"")
        package.writestr(f"lib/{abi}/libtensorflowlite_benchmark.so", b"")
    return path


@contextlib.contextmanager
def isolated_adb(home: pathlib.Path) -> Iterator[Adb]:
    """Starts an adb server with its own port and keys, and without a scan for emulators.

    This process and what it starts talk to it until the block ends; then it is killed.
    """
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    variables = {
        "HOME": str(home),
        "ANDROID_ADB_SERVER_PORT": str(port),
        "ADB_LOCAL_TRANSPORT_MAX_PORT": "5553",
        "ADB_MDNS": "0",
        "ADB_MDNS_OPENSCREEN": "0",
    }
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    adb = Adb(find_adb())
    try:
        adb.devices()
        yield adb
    finally:
        subprocess.run([adb.executable, "kill-server"], check=False, capture_output=True)
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def main(command: list[str]) -> int:
    """Runs `command` with a phone attached; returns its exit code."""
    with tempfile.TemporaryDirectory(prefix="loopback_") as folder:
        home = pathlib.Path(folder)
        program = write_program(home / "benchmark_model")
        litert = write_program(home / "benchmark_litert_model", name="benchmark_litert_model")
        app = write_app(home / "benchmark_model.apk")
        with isolated_adb(home) as adb:
            phone = Phone()
            double = AdbdDouble(phone)
            try:
                adb.connect(double.serial)
                for name, path in (("@app", app), ("@litert", litert), ("@", program)):
                    command = [word.replace(f"={name}", f"={path}") for word in command]
                return subprocess.run(command, check=False).returncode
            finally:
                double.close()
                phone.remove()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""The real adb client against phones on the loopback: its answers, and its traps."""

from __future__ import annotations

import os
import pathlib
import socket
import subprocess
import sys
import time

import pytest
from loopback import isolated_adb, write_program
from phone_double import MODERN, OLD

from android_bench import device
from android_bench.adb import (
    AdbError,
    AdbTimeout,
    AttachedDevice,
    DeviceConnection,
    DeviceLost,
    find_adb,
    printable,
    quote,
)
from android_bench.errors import UserError

TRICKY = [
    "with space",
    "quote's",
    'double "quotes"',
    "; touch injected",
    "$(touch injected)",
    "`touch injected`",
    "a\nb",
    "-n",
    "*",
    "\\",
    "ünïcode",
]


@pytest.fixture(params=[MODERN, OLD], ids=["shell_v2", "terminal"])
def phone_and_shell(request, attach, adb_server):
    phone, serial = attach(request.param)
    return phone, DeviceConnection(adb_server, serial)


def test_exit_codes_and_output(phone_and_shell):
    _, connection = phone_and_shell
    result = connection.shell("echo out; echo err >&2; exit 3", 20)
    assert (result.exit_code, result.output) == (3, "out\nerr\n")
    assert connection.shell("true", 20).exit_code == 0
    # No line end at the end of the output, and no output at all.
    assert connection.shell("printf abc", 20).output == "abc"
    assert connection.shell(":", 20).output == ""


def test_the_shell_leaves_our_input_alone(attach):
    _, serial = attach()
    script = (
        "import sys\n"
        "from android_bench.adb import Adb, DeviceConnection, find_adb\n"
        f"result = DeviceConnection(Adb(find_adb()), {serial!r}).shell('cat; echo end', 60)\n"
        "print(repr(result.output), sys.stdin.read())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=pathlib.Path(__file__).parents[2],
        input="ours",
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "'end\\n' ours\n"


def test_services_of_the_double_that_the_harness_does_not_use(attach, adb_server):
    phone, serial = attach()
    (phone.tmp / "some file").write_bytes(b"abc")
    code, output = adb_server.run(["-s", serial, "ls", "/data/local/tmp"], 20)
    assert code == 0 and "00000003" in output and "some file" in output
    code, output = adb_server.run(["-s", serial, "exec-out", "echo raw; exit 3"], 20)
    assert output == "raw\n"
    code, output = adb_server.run(["-s", serial, "shell", "exit 3"], 20)
    assert code == 3


def test_without_shell_v2_the_client_says_0_whatever_happens(attach, adb_server):
    _, serial = attach(OLD)
    assert adb_server.run(["-s", serial, "shell", "exit 3"], 20) == (0, "")


def test_no_server_is_left(adb_server, tmp_path):
    with isolated_adb(tmp_path):
        port = int(os.environ["ANDROID_ADB_SERVER_PORT"])
        socket.create_connection(("127.0.0.1", port)).close()
    assert int(os.environ["ANDROID_ADB_SERVER_PORT"]) != port
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))


@pytest.mark.parametrize("value", TRICKY)
def test_quoting(phone_and_shell, value):
    phone, connection = phone_and_shell
    result = connection.shell(f"printf %s {quote(value)}", 20)
    assert (result.exit_code, result.output) == (0, value)
    assert not list(phone.root.rglob("injected"))


@pytest.mark.parametrize("name", [name for name in TRICKY if "\n" not in name])
def test_push_and_pull_of_files_with_odd_names(phone_and_shell, tmp_path, name):
    phone, connection = phone_and_shell
    local = tmp_path / name
    local.write_bytes(bytes(range(256)) * 1000)
    connection.push(local, "/data/local/tmp/file")
    assert (phone.tmp / "file").read_bytes() == local.read_bytes()
    local.unlink()
    connection.pull("/data/local/tmp/file", local)
    assert local.read_bytes() == bytes(range(256)) * 1000


def test_failed_transfers_say_why(phone_and_shell, tmp_path):
    phone, connection = phone_and_shell
    phone.free_bytes = 10
    with pytest.raises(AdbError, match="No space left on device"):
        connection.push(write_program(tmp_path / "program"), "/data/local/tmp/file")
    with pytest.raises(AdbError, match="none"):
        connection.pull("/data/local/tmp/none", tmp_path / "none")


def test_time_limit(phone_and_shell):
    _, connection = phone_and_shell
    with pytest.raises(AdbTimeout, match="no answer within 3 s") as error:
        connection.shell("echo begun; sleep 60", 3)
    assert error.value.output == "begun\n"


def test_a_connection_that_breaks_is_no_result(phone_and_shell):
    phone, connection = phone_and_shell
    phone.unreachable = True
    phone.after_output = phone.on_unplug
    with pytest.raises(DeviceLost, match="ended before the command did") as error:
        connection.shell("echo begun; sleep 60", 60)
    assert error.value.output == "begun\n"


def test_a_device_that_is_not_there(adb_server):
    with pytest.raises(DeviceLost, match="not found"):
        DeviceConnection(adb_server, "no such serial").shell("true", 20)


def test_serials_cannot_inject(adb_server):
    with pytest.raises(DeviceLost):
        DeviceConnection(adb_server, "; touch injected").shell("true", 20)


def test_connect_to_nothing_is_an_error_although_the_client_says_0(adb_server):
    code, output = adb_server.run(["connect", "127.0.0.1:1"], 20)
    assert code == 0 and "failed" in output
    with pytest.raises(AdbError, match=r"127\.0\.0\.1:1"):
        adb_server.connect("127.0.0.1:1")


@pytest.mark.parametrize("address", ["", "host", "host:port", "a b:1", "-x:1;"])
def test_what_is_no_address(adb_server, address):
    with pytest.raises(UserError, match="HOST:PORT"):
        adb_server.connect(address)


def test_states(attach, adb_server):
    """Of a ready, an unauthorized and an offline device, and one that goes away."""
    ready, ready_serial = attach()
    locked, locked_serial = attach(connect=False)
    locked.authorized = False
    silent, silent_serial = attach(connect=False)
    silent.answers = False
    adb_server.connect(locked_serial)
    with pytest.raises(AdbError):
        adb_server.connect(silent_serial)
    states = {found.serial: found for found in adb_server.devices()}
    assert states[ready_serial].state == "device" and states[ready_serial].explanation == ""
    assert "accept the question" in states[locked_serial].explanation
    assert "does not answer" in states[silent_serial].explanation
    ready.unreachable = True
    ready.on_unplug()
    deadline = time.monotonic() + 10
    while AttachedDevice(ready_serial, "device") in adb_server.devices():
        assert time.monotonic() < deadline


def test_facts_of_both_kinds_of_phone(phone_and_shell):
    phone, connection = phone_and_shell
    info, state = device.read_info(connection), device.read_state(connection)
    assert info.backend == "loopback double"
    assert info.model == phone.text.properties["ro.product.model"]
    assert info.has_taskset == (phone.text is MODERN)
    assert (state.battery_c, state.battery_percent) == (29, 80)
    assert (state.skin_c, state.cpu_c) == ((29, 41.5) if phone.text is MODERN else (None, 45))
    assert state.power_save is False and state.screen_on is True
    assert len(state.max_khz) == len(phone.text.core_khz)


def test_scripts_fit_the_packets_of_old_devices(adb_server):
    with pytest.raises(ValueError, match="too long"):
        DeviceConnection(adb_server, "S").shell("x" * 4000, 1)


def test_which_client(tmp_path, monkeypatch):
    program = tmp_path / "adb"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    assert find_adb(str(program)) == str(program)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_adb() == str(program), "the one on the PATH comes first"
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    assert find_adb().endswith("adbutils/binaries/adb")
    with pytest.raises(UserError, match="--adb"):
        find_adb(str(tmp_path / "none"))


def test_printable():
    assert printable("Pixel\x1b[31m\n\u202e6 ü") == "Pixel\\x1b[31m\\n\\u202e6 ü"

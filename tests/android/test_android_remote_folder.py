"""The private folder: what arrives in it, and that it is gone afterwards."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys
import time

import pytest
from phone_double import MODERN, OLD

from android_bench import remote_folder, session_lock
from android_bench.adb import AdbError, AdbTimeout, DeviceConnection
from android_bench.errors import UserError


@pytest.fixture(params=[MODERN, OLD], ids=["sha256sum", "pulled back"])
def phone_and_connection(request, attach, adb_server):
    phone, serial = attach(request.param)
    return phone, DeviceConnection(adb_server, serial)


def test_files_arrive_once_under_their_digest_and_go_again(phone_and_connection, tmp_path):
    phone, connection = phone_and_connection
    local = tmp_path / "it's; $(a) name.tflite"
    local.write_bytes(b"x" * 100_000)
    with remote_folder.private_folder(connection) as folder:
        remote = folder.put(local, ".tflite", executable=True)
        assert folder.put(local, ".tflite") == remote
        assert remote.endswith(f"/{remote_folder.sha256(local)}.tflite")
        on_phone = phone.to_host_path(remote)
        assert on_phone.read_bytes() == local.read_bytes()
        assert os.access(on_phone, os.X_OK)
        assert on_phone.parent.stat().st_mode & 0o077 == 0, "nobody else may look in"
        assert folder.fetch(remote) == local.read_bytes()
        assert folder.fetch(f"{folder.path}/none") is None
    assert phone.leftovers == []


def test_damage_on_the_way_is_noticed(phone_and_connection, tmp_path):
    phone, connection = phone_and_connection
    local = tmp_path / "file"
    local.write_bytes(b"abc")
    store = phone.store

    def store_badly(path, content, mode):
        return store(path, content[:-1] + b"X", mode)

    phone.store = store_badly
    with (
        pytest.raises(AdbError, match="arrived damaged"),
        remote_folder.private_folder(connection) as folder,
    ):
        folder.put(local)
    assert phone.leftovers == []


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, ValueError])
def test_it_goes_whatever_happens(phone_and_connection, error):
    phone, connection = phone_and_connection
    with pytest.raises(error), remote_folder.private_folder(connection):
        assert len(phone.leftovers) == 1
        raise error
    assert phone.leftovers == []


def test_what_hangs_is_ended(phone_and_connection, tmp_path):
    phone, connection = phone_and_connection
    sleeper = tmp_path / "sleeper"
    sleeper.write_text("#!/bin/sh\nsleep 600\n")
    with remote_folder.private_folder(connection) as folder:
        with pytest.raises(AdbTimeout):
            # `sh` is no program of the folder; its argument is, as is the folder's name in it.
            folder.run(["sh", folder.put(sleeper)], timeout_s=1)
        assert phone.ends_within(10), "it would go on on the device"


def test_leftovers_of_a_killed_session_are_removed_at_once(phone_and_connection):
    phone, connection = phone_and_connection
    script = (
        "import os, sys; sys.path.insert(0, sys.argv[1])\n"
        "from android_bench.adb import Adb, DeviceConnection, find_adb\n"
        "from android_bench.remote_folder import private_folder\n"
        "with private_folder(DeviceConnection(Adb(find_adb()), sys.argv[2])):\n"
        "    os._exit(0)\n"
    )
    root = pathlib.Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", script, root, connection.serial], check=True)
    (left,) = phone.leftovers
    token = left.removeprefix("android_bench-")
    with remote_folder.private_folder(connection):
        assert left not in phone.leftovers
    assert phone.leftovers == []
    assert not session_lock._lock_file(token).exists()


def test_two_sessions_of_one_computer_are_refused(phone_and_connection):
    phone, connection = phone_and_connection
    with (
        remote_folder.private_folder(connection),
        pytest.raises(UserError, match="another android_bench is measuring on this device"),
        remote_folder.private_folder(connection),
    ):
        pass
    assert phone.leftovers == []


@pytest.mark.parametrize("seconds, refused", [(100, True), (-1, False)])
def test_sessions_of_other_computers(phone_and_connection, seconds, refused):
    """Their processes are not ours to see, whatever the computers are called."""
    phone, connection = phone_and_connection
    folder = phone.tmp / "android_bench-0123456789abcdef"
    folder.mkdir()
    (folder / "in_use_until").write_text(f"{round(time.time()) + seconds}\n")
    other = phone.tmp / "android_bench-notes"
    other.mkdir()
    if refused:
        with (
            pytest.raises(UserError, match=r"for the next \d+ s at least"),
            remote_folder.private_folder(connection),
        ):
            pass
        assert folder.exists()
    else:
        with remote_folder.private_folder(connection):
            assert not folder.exists(), "its time is up"
    assert other.exists(), "not ours to remove"


def test_a_session_says_how_long_it_goes_on(phone_and_connection):
    phone, connection = phone_and_connection
    with remote_folder.private_folder(connection) as folder:
        until = phone.to_host_path(folder.path) / "in_use_until"
        folder.keep(1000)
        left = int(until.read_text()) - time.time()
        assert 1000 < left <= 1000 + session_lock.SPARE_S

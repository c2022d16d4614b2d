"""The private folder: what arrives in it, and that it is gone afterwards."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from phone_double import MODERN, OLD

from android_bench import remote_folder
from android_bench.adb import AdbError, AdbTimeout, DeviceConnection
from tff_autoprune.errors import UserError


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


def test_leftovers_of_a_killed_run_are_removed_by_the_next(phone_and_connection):
    phone, connection = phone_and_connection
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    with remote_folder.private_folder(connection) as folder:
        name = folder.path.rsplit("/", 1)[1].replace(f"-{os.getpid()}-", f"-{gone.pid}-")
    (phone.tmp / name).mkdir()
    other_computers = phone.tmp / "android_bench-01234567-1-01234567"
    other_computers.mkdir()
    with remote_folder.private_folder(connection):
        assert name not in phone.leftovers
    assert phone.leftovers == [other_computers.name], "not ours to remove"


def test_two_runs_on_one_device_are_refused(phone_and_connection):
    phone, connection = phone_and_connection
    with remote_folder.private_folder(connection) as folder:
        name = folder.path.rsplit("/", 1)[1].replace(f"-{os.getpid()}-", f"-{os.getppid()}-")
    (phone.tmp / name).mkdir()
    with (
        pytest.raises(UserError, match="measuring on this device already"),
        remote_folder.private_folder(connection),
    ):
        pass
    assert phone.leftovers == [name]

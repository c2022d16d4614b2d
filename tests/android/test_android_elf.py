"""Which Android ABI a program is for, and what is no such program."""

from __future__ import annotations

import pathlib
import struct
import sys

import pytest
from loopback import write_program

from android_bench import elf
from android_bench.errors import UserError


@pytest.mark.parametrize("abi", ["arm64-v8a", "armeabi-v7a", "x86_64"])
def test_abi(tmp_path, abi):
    assert elf.abi(write_program(tmp_path / "program", abi)) == abi


def with_interpreter(name: bytes) -> bytes:
    """A 64-bit ARM program with one program header, which names its loader."""
    head = b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HHI", 3, 183, 1)
    head += struct.pack("<QQQIHHHHHH", 0, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    header = struct.pack("<IIQQQQQQ", 3, 4, 120, 0, 0, len(name) + 1, len(name) + 1, 1)
    return head + header + name + b"\0"


def test_programs_for_android_and_for_linux_are_told_apart(tmp_path):
    program = tmp_path / "benchmark_model"
    program.write_bytes(with_interpreter(b"/system/bin/linker64"))
    assert elf.abi(program) == "arm64-v8a"
    program.write_bytes(with_interpreter(b"/lib/ld-linux-aarch64.so.1"))
    with pytest.raises(UserError, match="built for Linux"):
        elf.abi(program)


@pytest.mark.parametrize(
    "content, message",
    [
        (b"", "an empty file"),
        (b"#!/bin/sh\n" + bytes(60), "a script"),
        (b"<!doctype html>" + bytes(60), "a web page"),
        (b"PK\x03\x04" + bytes(60), "a zip archive"),
        (b"\x7fELF", "damaged"),
        (b"\x7fELF\x09\x01" + bytes(60), "damaged"),
        (b"\x7fELF\x02\x01" + bytes(10) + struct.pack("<HH", 1, 183) + bytes(60), "ET_REL"),
        (b"\x7fELF\x02\x01" + bytes(10) + struct.pack("<HH", 2, 21) + bytes(60), "EM_PPC64"),
    ],
)
def test_what_is_no_program_for_android(tmp_path, content, message):
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        elf.abi(path)


def test_this_computers_own_programs_are_refused():
    with pytest.raises(UserError, match=r"Linux|machine"):
        elf.abi(pathlib.Path(sys.executable).resolve())


def test_a_missing_file(tmp_path):
    with pytest.raises(UserError, match="No such file"):
        elf.abi(tmp_path / "none")

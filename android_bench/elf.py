"""Reads from an ELF header which Android ABI a program was built for.

Source: System V ABI, gABI chapter 4 (ELF header), and the machine numbers of its registry.
"""

from __future__ import annotations

import pathlib
import struct

from tff_autoprune.errors import UserError

# (word size, machine) -> Android's name for it.
_ABIS = {
    (64, 183): "arm64-v8a",
    (32, 40): "armeabi-v7a",
    (64, 62): "x86_64",
    (32, 3): "x86",
    (64, 243): "riscv64",
}
_EXECUTABLE_TYPES = {2, 3}  # ET_EXEC; ET_DYN, which position-independent programs are.
_HEADER_END = 64  # Of the longer, 64-bit header; no program is as short as that.
_PT_INTERP = 3
# The program headers and the interpreter's name are at the front of the file.
_FRONT_BYTES = 4096


def abi(path: pathlib.Path) -> str:
    """Returns the ABI of the program in `path`, e.g. "arm64-v8a".

    Raises:
      UserError: If it is missing, not an ELF program, or for no machine that Android runs on.
    """
    try:
        with open(path, "rb") as file:
            header = file.read(_FRONT_BYTES)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}.") from error
    if len(header) < _HEADER_END or header[:4] != b"\x7fELF":
        raise UserError(
            f"{path}: expected a program for Android (ELF), found {_describe(header)};"
            " see --help for where TensorFlow publishes benchmark_model."
        )
    bits = {1: 32, 2: 64}.get(header[4])
    order = {1: "<", 2: ">"}.get(header[5])
    if bits is None or order is None:
        raise UserError(f"{path}: a damaged ELF header (class {header[4]}, data {header[5]}).")
    kind, machine = struct.unpack_from(f"{order}HH", header, 16)
    if kind not in _EXECUTABLE_TYPES:
        raise UserError(
            f"{path}: expected a program, found another kind of ELF file (type {kind})."
        )
    name = _ABIS.get((bits, machine)) if order == "<" else None
    if name is None:
        raise UserError(
            f"{path}: built for a machine that Android does not run on"
            f" ({bits} bit, ELF machine {machine})."
        )
    loader = _interpreter(header, bits)
    if loader.startswith(("/lib/", "/lib64/", "/usr/")):
        raise UserError(
            f"{path}: built for Linux (it asks for {loader}), not for Android; take the"
            " android_ build of benchmark_model."
        )
    return name


def _interpreter(front: bytes, bits: int) -> str:
    """Returns the loader that a little-endian program asks for; empty if it needs none."""
    table, entry_size, entries = (
        struct.unpack_from("<Q", front, 32) + struct.unpack_from("<HH", front, 54)
        if bits == 64
        else struct.unpack_from("<I", front, 28) + struct.unpack_from("<HH", front, 42)
    )
    for index in range(entries):
        at = table + index * entry_size
        if at + entry_size > len(front):
            break
        if struct.unpack_from("<I", front, at)[0] != _PT_INTERP:
            continue
        offset, size = (
            (
                struct.unpack_from("<Q", front, at + 8)[0],
                struct.unpack_from("<Q", front, at + 32)[0],
            )
            if bits == 64
            else (
                struct.unpack_from("<I", front, at + 4)[0],
                struct.unpack_from("<I", front, at + 16)[0],
            )
        )
        return front[offset : offset + size].rstrip(b"\0").decode("ascii", errors="replace")
    return ""


def _describe(header: bytes) -> str:
    if header.startswith(b"#!"):
        return "a script"
    if header.lstrip()[:1] == b"<":
        return "a web page (was the download redirected?)"
    if header[:2] == b"PK":
        return "a zip archive or APK"
    return f"a file that starts with {header[:4]!r}" if header else "an empty file"

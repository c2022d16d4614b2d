"""Which Android ABI a program was built for."""

from __future__ import annotations

import pathlib

from elftools.common.exceptions import ELFError
from elftools.elf.elffile import ELFFile

from android_bench.errors import UserError

# (word size, machine) -> Android's name for it.
_ABIS = {
    (64, "EM_AARCH64"): "arm64-v8a",
    (32, "EM_ARM"): "armeabi-v7a",
    (64, "EM_X86_64"): "x86_64",
    (32, "EM_386"): "x86",
    (64, "EM_RISCV"): "riscv64",
}


def abi(path: pathlib.Path) -> str:
    """Returns the ABI of the program in `path`, e.g. "arm64-v8a".

    Raises:
      UserError: If it is missing, not an ELF program, or for no machine that Android runs on.
    """
    try:
        with open(path, "rb") as file:
            head = file.read(64)
            if not head.startswith(b"\x7fELF"):
                raise UserError(
                    f"{path}: expected a program for Android (ELF), found {_describe(head)};"
                    " see --help for where TensorFlow publishes benchmark_model."
                )
            return _abi(path, ELFFile(file))
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}.") from error
    except (ELFError, ValueError, KeyError) as error:
        raise UserError(f"{path}: a damaged ELF file ({error}).") from error


def _abi(path: pathlib.Path, elf: ELFFile) -> str:
    # Position-independent programs are of the second type.
    if elf["e_type"] not in ("ET_EXEC", "ET_DYN"):
        raise UserError(
            f"{path}: expected a program, found another kind of ELF file ({elf['e_type']})."
        )
    name = _ABIS.get((elf.elfclass, elf["e_machine"])) if elf.little_endian else None
    if name is None:
        raise UserError(
            f"{path}: built for a machine that Android does not run on"
            f" ({elf.elfclass} bit, {elf['e_machine']})."
        )
    for segment in elf.iter_segments("PT_INTERP"):
        loader = segment.get_interp_name()
        if loader.startswith(("/lib/", "/lib64/", "/usr/")):
            raise UserError(
                f"{path}: built for Linux (it asks for {loader}), not for Android; take the"
                " android_ build of benchmark_model."
            )
    return name


def _describe(head: bytes) -> str:
    if head.startswith(b"#!"):
        return "a script"
    if head.lstrip()[:1] == b"<":
        return "a web page (was the download redirected?)"
    if head[:2] == b"PK":
        return "a zip archive or APK"
    return f"a file that starts with {head[:4]!r}" if head else "an empty file"

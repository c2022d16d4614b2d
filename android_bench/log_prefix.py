"""What loggers put before a line: levels, logcat's columns, a file and its line."""

from __future__ import annotations

import re

# What may stand before the message; tried again until none fits, since they nest.
_PREFIXES = tuple(
    re.compile(pattern)
    for pattern in (
        r"(?P<level>INFO|VERBOSE|DEBUG|WARNING|WARN|ERROR|FATAL): ?",
        r"\d\d-\d\d \d\d:\d\d:\d\d\.\d+\s+\d+\s+\d+\s+(?P<level>[VDIWEF]) [^:]+?\s*: ?",
        r"(?:\d\d-\d\d \d\d:\d\d:\d\d\.\d+ )?(?P<level>[VDIWEF])/[^(]+\(\s*\d+\): ?",
        r"(?P<level>[VDIWEF]) \w+\s*: ",
        r"(?:\.\.\. )\w+\s*: ",
        r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+: (?P<level>[IWEF]) \S+:\d+\] ?",
        r"(?P<level>[IWEF])\d{4} [\d:.]+\s+\d+ \S+:\d+\] ?",
        r"\[[^\]\s]+\.(?:h|cc|cpp):\d+\] ?",
    )
)
_ERROR_LEVELS = frozenset({"ERROR", "FATAL", "E", "F"})


def split_prefix(line: str) -> tuple[bool, str]:
    """Returns (whether it is logged as an error, the message itself)."""
    is_error = False
    stripped = True
    while stripped:
        stripped = False
        for pattern in _PREFIXES:
            match = pattern.match(line)
            if match and match.end():
                is_error |= match.groupdict().get("level") in _ERROR_LEVELS
                line = line[match.end() :]
                stripped = True
    return is_error, line.strip()

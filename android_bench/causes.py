"""Why a program failed, in its own words: the line with the cause, and what can be done."""

from __future__ import annotations

import re
from typing import Optional

from android_bench.log_prefix import split_prefix

# What a line that tells of a failure has in it.
_FAILURE = re.compile(
    r"\b(?:error|fail(?:ed|ure)?|unable|cannot|can't|not found|no such|denied|refus\w*|invalid"
    r"|unsupported|not supported|not executable|incorrect"
    r"|abort\w*|killed|segmentation|exceeded|fatal|unknown|must be"
    r"|disallowed|inaccessible)\b",
    re.IGNORECASE,
)
# What follows from a failure that was told before; tells nothing by itself.
_CONSEQUENCE = re.compile(
    r"Restored original execution plan|Failed to apply \S+ delegate|Benchmarking failed|^Aborted"
    r"|Falling back|^Killed|^Segmentation fault|^\[\d+\]",
)
_LONGEST = 200

# Words of the loader, the shell or the library -> what to do.
_ADVICE = (
    (
        re.compile(r"program alignment \((\d+)\) cannot be smaller than .*page size \((\d+)\)"),
        "the program is built for {0} KB pages, the phone has {1} KB pages; take a newer build of"
        " it",
    ),
    (
        re.compile(r"can't execute: Permission denied|^\S*sh: .*: Permission denied"),
        "this phone's shell may not execute programs; take the app: --benchmark_app",
    ),
    (
        re.compile(r"can't execute: Exec format error|not executable: \d+-bit ELF"),
        "the program is not for this phone's processor",
    ),
    (
        re.compile(r"CANNOT LINK EXECUTABLE.*library \"([^\"]+)\" not found"),
        "the phone has no {0}; take a build of the program that does not need it",
    ),
    (
        re.compile(r"taskset: .*|sched_setaffinity"),
        "the phone refuses the cores; use --cores=all or another mask",
    ),
    (
        re.compile(r"[Uu]nable to open library|dlopen failed|[Cc]ould not open library"),
        "the delegate's library cannot be opened",
    ),
    (
        re.compile(r"Select TensorFlow op\(s\)|Flex\w+\) failed to prepare|FlexDelegate"),
        "the model needs Select TensorFlow ops; take the _plus_flex build of the program",
    ),
    (
        re.compile(r"Signature not specified or incorrect|Signature key"),
        "the model has no such --signature",
    ),
)


def of(text: str) -> Optional[str]:
    """Returns the cause of a failure; None if no line tells of one.

    It is the first line that does and that does not only tell what came of it. A known cause is
    followed by what can be done.

    Args:
      text: What the program, its loader or the shell printed, standard error included.
    """
    lines = map(split_prefix, text.splitlines())
    failures = [line for is_error, line in lines if line and (is_error or _FAILURE.search(line))]
    causes = [line for line in failures if not _CONSEQUENCE.search(line)]
    return next(map(_explained, causes or failures), None)


def last_words(text: str) -> Optional[str]:
    """Returns the cause of a failure, else the last line; None if the output is empty."""
    lines = [message for raw in text.splitlines() if (message := split_prefix(raw)[1])]
    return of(text) or next(map(_explained, reversed(lines)), None)


def _explained(line: str) -> str:
    shown = line if len(line) <= _LONGEST else line[: _LONGEST - 1] + "…"
    hint = advice(line)
    return f"{shown} ({hint})" if hint else shown


def advice(line: str) -> Optional[str]:
    """Returns what can be done about a line that tells of a failure, if it is a known one."""
    for pattern, text in _ADVICE:
        match = pattern.search(line)
        if match:
            sizes = [str(int(g) // 1024) if g.isdigit() else g for g in match.groups()]
            return text.format(*sizes)
    return None

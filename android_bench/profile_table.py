"""Reads the per-operator tables that `--enable_op_profiling` prints.

The columns are taken from each table's own header, so that all layouts are one case: with the
column [start] (TensorFlow up to 2.8), without it (later), and comma-separated with either.
"""

from __future__ import annotations

import dataclasses
import re
from typing import Optional

from android_bench.log_prefix import split_prefix

# -nan% is printed when all times round to zero.
_NUMBER = r"[-+]?(?:\d+(?:\.\d+)?(?:[eE][+-]?\d+)?|nan)"
_TITLE = re.compile(r"=+ (?P<title>[^=]+?) =+")
_RUN_ORDER = "Run Order"

# What stands above a group of tables -> what the tables are about.
_PHASES = {
    "Profiling Info for Benchmark Initialization": "initialization",
    "Operator-wise Profiling Info for Regular Benchmark Runs": "inference",
    "Delegate internal": "delegate",
}
_FIELDS = {
    "node type": "node_type",
    "start": "start_ms",
    "first": "first_ms",
    "avg ms": "mean_ms",
    "%": "percent",
    "cdf%": "cumulative_percent",
    "mem KB": "memory_kb",
    "times called": "times_called",
    "name": "name",
}


class ParseError(ValueError):
    """A line that states a result in an unknown way.

    Attributes:
      line_number: Counted from 1.
      line: The line, without its log prefix.
    """

    def __init__(self, line_number: int, line: str, reason: str) -> None:
        """Names the line and says what is wrong with it."""
        super().__init__(f"line {line_number}: {reason}: {line!r}")
        self.line_number = line_number
        self.line = line


@dataclasses.dataclass(frozen=True)
class OperatorTime:
    """One row of a "Run Order" table.

    Attributes:
      phase: "initialization", "inference", or "delegate" (within a delegate's node).
      node_type: E.g. "CONV_2D", or a delegate's own name for its kernel.
      name: The node's name in the model, with its index.
      first_ms: Its first execution, milliseconds.
      mean_ms: Mean over the runs, milliseconds.
      percent: Its share of the whole; None where the whole is zero.
      times_called: Executions in one run.
      start_ms: When it starts within a run, milliseconds; None in newer layouts.
    """

    phase: str
    node_type: str
    name: str
    first_ms: float
    mean_ms: float
    percent: Optional[float]
    times_called: float
    start_ms: Optional[float] = None


def parse(text: str) -> list[tuple[int, OperatorTime]]:
    """Returns (line number from 1, row) for each row of the "Run Order" tables in `text`.

    Raises:
      ParseError: If a table's header lacks a column that is needed, or a row does not fit it.
    """
    rows: list[tuple[int, OperatorTime]] = []
    phase = "inference"
    pattern: Optional[re.Pattern[str]] = None
    expect_header = False
    for number, raw in enumerate(text.splitlines(), start=1):
        _, line = split_prefix(raw)
        named = next((p for start, p in _PHASES.items() if line.startswith(start)), None)
        title = _TITLE.fullmatch(line)
        if named:
            phase, pattern = named, None
        elif title:
            pattern = None
            expect_header = title["title"] == _RUN_ORDER
        elif expect_header:
            pattern = _row_pattern(number, line)
            expect_header = False
        elif not line:
            pattern = None
        elif pattern:
            rows.append((number, _row(pattern, phase, number, line)))
    return rows


def _row_pattern(number: int, header: str) -> re.Pattern[str]:
    """Returns what matches the rows below `header`."""
    if "[" in header:
        columns = [name.strip() for name in re.findall(r"\[([^\]]+)\]", header)]
        separator = r"\s+"
    else:
        columns = [name.strip().replace("avg_ms", "avg ms") for name in header.split(",")]
        separator = r",\s*"
    columns = ["name" if name == "Name" else name for name in columns]
    missing = {"node type", "first", "avg ms", "times called", "name"} - set(columns)
    unknown = set(columns) - set(_FIELDS)
    if missing or unknown:
        raise ParseError(
            number, header, f"columns missing: {sorted(missing)}, unknown: {sorted(unknown)}"
        )
    parts = []
    for name in columns:
        field = _FIELDS[name]
        if name == "node type":
            parts.append(rf"(?P<{field}>\S.*?)")
        elif name == "name":
            parts.append(rf"(?P<{field}>.*)")
        else:
            parts.append(rf"(?P<{field}>{_NUMBER})%?")
    return re.compile(r"\s*" + separator.join(parts))


def _row(pattern: re.Pattern[str], phase: str, number: int, line: str) -> OperatorTime:
    match = pattern.fullmatch(line)
    if not match:
        raise ParseError(number, line, "does not fit the header of its table")
    values = match.groupdict()
    percent = values.get("percent")
    return OperatorTime(
        phase=phase,
        node_type=values["node_type"],
        name=values["name"].strip(),
        first_ms=float(values["first_ms"]),
        mean_ms=float(values["mean_ms"]),
        percent=None if percent is None or "nan" in percent else float(percent),
        times_called=float(values["times_called"]),
        start_ms=float(values["start_ms"]) if values.get("start_ms") else None,
    )

"""Reads what `benchmark_model` prints, in every format it has had. Text in, values out.

All formats describe the same thing. One process loads the model, warms up, measures, and logs:

    count=277 first=201009 curr=863 min=811 max=201009 avg=1760.78 std=11997     <- warm-up
    count=876 first=1272 curr=1730 min=810 max=6334 avg=1096.48 std=476          <- measurement
    Inference timings in us: Init: 25573, First inference: 201009, Warmup (avg): ..., ...

Lines without a unit (`count=`) are taken only together with a line that has one (the summary), and
the two have to agree. Whatever looks like a result and cannot be read is a `ParseError` that shows
the line: a wrong latency is worse than none.

Formats as in tensorflow/lite/tools/benchmark/benchmark_model.cc (TensorFlow 1.x to 2.x, LiteRT) and
litert/tools/benchmark_litert_model.h (the CompiledModel report, in milliseconds).
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from typing import Optional

from android_bench import litert_report, profile_table
from android_bench.delegation import Execution, ExecutionReader
from android_bench.log_prefix import split_prefix
from android_bench.profile_table import OperatorTime, ParseError

_NUMBER = r"\d+(?:\.\d+)?(?:[eE][+-]?\d+)?"

# Both numbers are printed with six significant digits, from the same average.
_RELATIVE_ROUNDING = 1e-4


@dataclasses.dataclass(frozen=True)
class Statistics:
    """One `count=` line.

    Attributes:
      count: How many inferences it summarises.
      first_us: The first of them, microseconds, as are all that follow; None in a report in ms.
      last_us: The last of them (`curr=`); None in a report in ms.
      min_us: The fastest.
      max_us: The slowest.
      mean_us: The mean (`avg=`).
      std_us: Their standard deviation; None in a report in ms, which gives it without a unit.
      p5_us: 5th percentile; None unless the binary printed it. So are the next two.
      median_us: Median.
      p95_us: 95th percentile.
    """

    count: int
    first_us: Optional[float]
    last_us: Optional[float]
    min_us: float
    max_us: float
    mean_us: float
    std_us: Optional[float]
    p5_us: Optional[float] = None
    median_us: Optional[float] = None
    p95_us: Optional[float] = None


@dataclasses.dataclass(frozen=True)
class BenchmarkRun:
    """What one `benchmark_model` process logged; None where it did not.

    Attributes:
      complete: Whether the summary was printed. If not, nothing here is a result.
      init_us: From start to a ready interpreter, microseconds.
      first_inference_us: The first inference, microseconds.
      warmup_us: Mean over the warm-up, microseconds.
      inference_us: Mean over the measurement, microseconds.
      warmup: The warm-up's statistics.
      inference: The measurement's statistics.
      model_size_mb: Size of the model file, 10^6 bytes.
      memory_init_mb: Growth of the footprint by initialisation, as printed ("MB", of 2^20 bytes).
      memory_overall_mb: Growth of the footprint by the whole run.
      peak_memory_mb: Peak by periodic monitoring, where that was asked for.
      execution: Where the model ran, as far as the log says.
      unconsumed_flags: Flags that the binary did not know and ignored, as one string.
      errors: Lines that say that something failed.
      operators: Rows of the per-operator tables.
    """

    complete: bool
    init_us: Optional[float] = None
    first_inference_us: Optional[float] = None
    warmup_us: Optional[float] = None
    inference_us: Optional[float] = None
    warmup: Optional[Statistics] = None
    inference: Optional[Statistics] = None
    model_size_mb: Optional[float] = None
    memory_init_mb: Optional[float] = None
    memory_overall_mb: Optional[float] = None
    peak_memory_mb: Optional[float] = None
    execution: Execution = dataclasses.field(default_factory=Execution)
    unconsumed_flags: str = ""
    errors: tuple[str, ...] = ()
    operators: tuple[OperatorTime, ...] = ()


def parse_log(text: str) -> list[BenchmarkRun]:
    """Returns the runs of a log, in their order; a log can hold several, or none.

    Args:
      text: What the binary printed, or a logcat with its lines; may be cut off anywhere.

    Raises:
      ParseError: If a line that states a result is not in any known format, states an unknown
        unit, or contradicts another line.
    """
    reader = _LogReader()
    lines = text.splitlines()
    cut_off = bool(text) and not text.endswith(("\n", "\r"))
    for number, raw in enumerate(lines, start=1):
        try:
            reader.read(number, raw)
        except ParseError:
            if cut_off and number == len(lines):
                break  # The connection ended within this line; the run stays incomplete.
            raise
    runs = reader.finish()
    operators = profile_table.parse(text)
    if operators and runs:
        # A table follows the run that it belongs to, so each row goes to the last run begun.
        starts = reader.first_lines
        for index, run in enumerate(runs):
            end = starts[index + 1] if index + 1 < len(starts) else len(lines) + 1
            begin = starts[index] if index else 0
            own = tuple(op for line, op in operators if begin <= line < end)
            runs[index] = dataclasses.replace(run, operators=own)
    return runs


_COUNT = re.compile(
    rf"count=(?P<count>\d+) (?:first=(?P<first>{_NUMBER}) )?curr=(?P<curr>{_NUMBER})"
    rf"(?: min=(?P<min>{_NUMBER}) max=(?P<max>{_NUMBER}) avg=(?P<avg>{_NUMBER})"
    rf" std=(?P<std>{_NUMBER}))?"
    rf"(?: p5=(?P<p5>{_NUMBER}) median=(?P<median>{_NUMBER}) p95=(?P<p95>{_NUMBER}))?"
    r"(?: ?\(all same\))?"
)
_SUMMARY = re.compile(
    rf"Inference timings in us: Init: (?P<init>{_NUMBER}), First inference: (?P<first>{_NUMBER}),"
    rf" Warmup \(avg\): (?P<warmup>{_NUMBER}), Inference \(avg\): (?P<inference>{_NUMBER})"
)
_OLD_SUMMARY = re.compile(
    rf"Average inference timings in us: Warmup: (?P<warmup>{_NUMBER}),"
    rf"(?: Init: (?P<init>{_NUMBER}),)? (?:no stats|Inference): (?P<inference>{_NUMBER})"
    # Apps of that time printed the memory right behind it.
    rf"(?:, with stats: {_NUMBER})?(?:Overall .*)?"
)
_FOOTPRINT = re.compile(
    r"(?:Memory footprint delta from the start of the tool|Peak memory footprint) \(MB\):"
    rf" init=(?P<init>-?{_NUMBER}) overall=(?P<overall>-?{_NUMBER})"
)
_PEAK = re.compile(
    rf"Overall peak memory footprint \(MB\) via periodic monitoring: (?P<peak>{_NUMBER})"
)
_MODEL_SIZE = re.compile(rf"The input model file size \(MB\): (?P<size>{_NUMBER})")
_SESSION = re.compile(rf"Initialized session in (?P<ms>{_NUMBER}) ?ms\.?")
_FAILURES = (
    "Benchmarking failed",
    "Failed to apply",
    "Failed to load model",
    "Failed to allocate tensors",
    "Signature not specified or incorrect",
    "Disallowed CPU fallback detected",
    "No inference runs were performed",
)


class _LogReader:
    """Collects one run after the other, line by line."""

    def __init__(self) -> None:
        self._runs: list[_PartialRun] = []
        self.first_lines: list[int] = []
        # What a message starts with -> who reads it. Whoever reads it has to understand it.
        self._readers: tuple[tuple[str, Callable[[_PartialRun, int, str], None]], ...] = (
            ("count=", _PartialRun.read_count),
            ("Inference timings in", _PartialRun.read_summary),
            ("Average inference timings in", _PartialRun.read_old_summary),
            ("Memory footprint delta from the start", _PartialRun.read_footprint),
            ("Peak memory footprint", _PartialRun.read_footprint),
            ("Overall peak memory footprint", _PartialRun.read_peak),
            ("The input model file size", _PartialRun.read_model_size),
            ("Initialized session in", _PartialRun.read_session),
            ("Running benchmark for", _PartialRun.read_phase),
            ("Unconsumed cmdline flags:", _PartialRun.read_unconsumed),
            *((label + ":", _PartialRun.read_report) for label in litert_report.LABELS),
        )

    def read(self, number: int, raw: str) -> None:
        is_error, message = split_prefix(raw)
        if message.startswith("STARTING!"):
            self._begin(number)
            return
        for start, reader in self._readers:
            if message.startswith(start):
                reader(self._current(number, message), number, message)
                return
        if self._reads_execution(number, message):
            return
        if is_error or message.startswith(_FAILURES):
            self._current(number, message).errors.append(message)

    def finish(self) -> list[BenchmarkRun]:
        return [run.finish() for run in self._runs]

    def _reads_execution(self, number: int, message: str) -> bool:
        # What is no such line must not begin a run.
        execution = self._runs[-1].execution if self._runs else ExecutionReader()
        if not execution.read(number, message):
            return False
        if not self._runs:
            self._begin(number).execution = execution
        return True

    def _begin(self, number: int) -> _PartialRun:
        self._runs.append(_PartialRun())
        self.first_lines.append(number)
        return self._runs[-1]

    def _current(self, number: int, message: str) -> _PartialRun:
        # Excerpts lack "STARTING!": a count or summary after the end of a run begins another.
        begins = message.startswith(("count=", "Initialized session in", "Running benchmark for"))
        if not self._runs or (begins and self._runs[-1].summary_line):
            return self._begin(number)
        return self._runs[-1]


class _PartialRun:
    """A run as far as it has been read."""

    def __init__(self) -> None:
        self.counts: list[tuple[int, str, Statistics]] = []
        self.phases = 0
        self.summary: dict[str, float] = {}
        self.summary_line = 0
        self.summary_text = ""
        self.report = litert_report.Report()
        self.values: dict[str, float] = {}
        self.execution = ExecutionReader()
        self.unconsumed = ""
        self.errors: list[str] = []

    def read_count(self, number: int, message: str) -> None:
        if message == "count=0":
            self.errors.append("count=0: no inference was made")
            return
        match = _fully(_COUNT, number, message)
        last = float(match["curr"])
        if match["avg"] is None and int(match["count"]) != 1 and "all same" not in message:
            raise ParseError(number, message, "avg= is missing")
        # With one value, or equal ones, the binary prints no others: they are all the same.
        self.counts.append(
            (
                number,
                message,
                Statistics(
                    count=int(match["count"]),
                    first_us=_value(match, "first", last),
                    last_us=last,
                    min_us=_value(match, "min", last),
                    max_us=_value(match, "max", last),
                    mean_us=_value(match, "avg", last),
                    std_us=_value(match, "std", 0.0),
                    p5_us=_value(match, "p5"),
                    median_us=_value(match, "median"),
                    p95_us=_value(match, "p95"),
                ),
            )
        )

    def read_summary(self, number: int, message: str) -> None:
        self._take_summary(number, message, _fully(_SUMMARY, number, message))

    def read_old_summary(self, number: int, message: str) -> None:
        self._take_summary(number, message, _fully(_OLD_SUMMARY, number, message))

    def _take_summary(self, number: int, message: str, match: re.Match[str]) -> None:
        self.summary = {key: float(v) for key, v in match.groupdict().items() if v is not None}
        self.summary_line, self.summary_text = number, message

    def read_footprint(self, number: int, message: str) -> None:
        match = _fully(_FOOTPRINT, number, message)
        self.values["memory_init_mb"] = float(match["init"])
        self.values["memory_overall_mb"] = float(match["overall"])

    def read_peak(self, number: int, message: str) -> None:
        self.values["peak_memory_mb"] = float(_fully(_PEAK, number, message)["peak"])

    def read_model_size(self, number: int, message: str) -> None:
        self.values["model_size_mb"] = float(_fully(_MODEL_SIZE, number, message)["size"])

    def read_session(self, number: int, message: str) -> None:
        self.values["session_us"] = 1e3 * float(_fully(_SESSION, number, message)["ms"])

    def read_phase(self, number: int, message: str) -> None:
        del number, message
        self.phases += 1

    def read_unconsumed(self, number: int, message: str) -> None:
        del number
        self.unconsumed = message.split(":", 1)[1].strip()

    def read_report(self, number: int, message: str) -> None:
        self.report.read(number, message)
        if self.report.ends_with(message):
            self.summary_line, self.summary_text = number, message

    def finish(self) -> BenchmarkRun:
        warmup, inference = self._assign_counts()
        summary = dict(self.summary)
        if not summary and self.report.times_us:
            summary = self._exact_report(warmup, inference)
        memory = {**self.report.memory_mb, **self.values}
        return BenchmarkRun(
            complete=bool(self.summary_line),
            init_us=summary.get("init", self.values.pop("session_us", None)),
            first_inference_us=summary.get("first", warmup and warmup.first_us),
            warmup_us=summary.get("warmup"),
            inference_us=summary.get("inference"),
            warmup=warmup,
            inference=inference or _reported_statistics(self.report),
            model_size_mb=self.values.get("model_size_mb"),
            memory_init_mb=memory.get("memory_init_mb"),
            memory_overall_mb=memory.get("memory_overall_mb"),
            peak_memory_mb=memory.get("peak_memory_mb"),
            execution=self.execution.finish(),
            unconsumed_flags=self.unconsumed,
            errors=tuple(self.errors),
        )

    def _assign_counts(self) -> tuple[Optional[Statistics], Optional[Statistics]]:
        """Returns the statistics of (warm-up, measurement): of two lines the second measures."""
        if len(self.counts) > 2:
            number, message, _ = self.counts[2]
            raise ParseError(number, message, "a third count= line in one run")
        if len(self.counts) == 2:
            for index, key in enumerate(("warmup", "inference")):
                self._require_agreement(self.counts[index], key)
            return self.counts[0][2], self.counts[1][2]
        if not self.counts:
            return None, None
        if not self.summary_line:
            return (self.counts[0][2], None)
        # An excerpt: the summary tells which of the two lines was kept.
        if self._agrees(self.counts[0][2], "inference"):
            return None, self.counts[0][2]
        self._require_agreement(self.counts[0], "warmup")
        return self.counts[0][2], None

    def _agrees(self, statistics: Statistics, key: str) -> bool:
        stated = self.summary.get(key)
        if stated is not None:
            return abs(statistics.mean_us - stated) <= max(1.0, _RELATIVE_ROUNDING * stated)
        stated = self.report.times_us.get(key)
        return stated is None or abs(statistics.mean_us - stated) <= litert_report.ROUNDING_US

    def _require_agreement(self, count: tuple[int, str, Statistics], key: str) -> None:
        number, message, statistics = count
        if not self._agrees(statistics, key):
            raise ParseError(
                number,
                message,
                f"its avg contradicts line {self.summary_line}: {self.summary_text!r}",
            )

    def _exact_report(
        self, warmup: Optional[Statistics], inference: Optional[Statistics]
    ) -> dict[str, float]:
        """The report's times, from the lines in microseconds where there are such."""
        exact = dict(self.report.times_us)
        if warmup:
            exact.update(first=warmup.first_us, warmup=warmup.mean_us)
        if inference:
            exact.update(inference=inference.mean_us)
        if "session_us" in self.values:
            exact["init"] = self.values["session_us"]
        return exact


def _reported_statistics(report: litert_report.Report) -> Optional[Statistics]:
    times = report.times_us
    if report.runs is None or not {"inference", "min", "max"} <= times.keys():
        return None
    return Statistics(
        count=report.runs,
        first_us=None,
        last_us=None,
        min_us=times["min"],
        max_us=times["max"],
        mean_us=times["inference"],
        std_us=None,
    )


def _fully(pattern: re.Pattern[str], number: int, message: str) -> re.Match[str]:
    match = pattern.fullmatch(message)
    if not match:
        raise ParseError(number, message, "not a known format of this line")
    return match


def _value(match: re.Match[str], key: str, default: Optional[float] = None) -> Optional[float]:
    return default if match[key] is None else float(match[key])

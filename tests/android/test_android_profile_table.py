"""The three layouts of the per-operator table."""

from __future__ import annotations

import pathlib

import pytest

from android_bench import parse, profile_table
from android_bench.profile_table import ParseError

REAL = pathlib.Path(__file__).parent / "fixtures/tf2.8_qemuriscv64_mobilenet_v1_op_profiling.txt"
TITLE = "============================== Run Order =============================="
WITH_START = (
    "Operator-wise Profiling Info for Regular Benchmark Runs:\n"
    f"{TITLE}\n"
    "\t             [node type]\t          [start]\t  [first]\t [avg ms]\t     [%]\t  [cdf%]"
    "\t  [mem KB]\t[times called]\t[Name]\n"
    "\t Convolution (NHWC, F32)\t            0.066\t   87.754\t   60.957\t 20.000%\t 20.000%"
    "\t     0.000\t        1\t[a, b]:0\n"
    "\t                 SOFTMAX\t           61.033\t    0.230\t    0.233\t 80.000%\t100.000%"
    "\t     0.000\t        2\t[c]:1\n"
    "\n"
)
WITHOUT_START = (
    f"{TITLE}\n"
    "\t             [node type]\t  [first]\t [avg ms]\t     [%]\t  [cdf%]\t  [mem KB]"
    "\t[times called]\t[Name]\n"
    "\t Convolution (NHWC, F32)\t   87.754\t   60.957\t 20.000%\t 20.000%\t     0.000\t        1"
    "\t[a, b]:0\n"
    "\t                 SOFTMAX\t    0.230\t    0.233\t 80.000%\t100.000%\t     0.000\t        2"
    "\t[c]:1\n"
    "\n"
)
CSV = (
    f"{TITLE}\n"
    "node type, first, avg_ms, %, cdf%, mem KB, times called, name\n"
    "Convolution (NHWC, F32), 87.754, 60.957, 20%, 20%, 0, 1, [a, b]:0\n"
    "SOFTMAX, 0.23, 0.233, 80%, 100%, 0, 2, [c]:1\n"
    "\n"
)
CSV_WITH_START = (
    CSV.replace("node type, first", "node type, start, first")
    .replace(", 87.754", ", 0.066, 87.754")
    .replace(", 0.23,", ", 61.033, 0.23,")
)


@pytest.mark.parametrize(
    "text",
    [WITH_START, WITHOUT_START, CSV, CSV_WITH_START],
    ids=["with start", "without start", "csv", "csv with start"],
)
def test_layouts_say_the_same(text):
    rows = [row for _, row in profile_table.parse(text)]
    assert [row.node_type for row in rows] == ["Convolution (NHWC, F32)", "SOFTMAX"]
    assert [row.name for row in rows] == ["[a, b]:0", "[c]:1"]
    assert [row.first_ms for row in rows] == [87.754, 0.23]
    assert [row.mean_ms for row in rows] == [60.957, 0.233]
    assert [row.percent for row in rows] == [20, 80]
    assert [row.times_called for row in rows] == [1, 2]
    starts = [0.066, 61.033] if "start" in text else [None, None]
    assert [row.start_ms for row in rows] == starts


def test_tabs_that_became_spaces():
    rows = [row for _, row in profile_table.parse(WITH_START.replace("\t", "    "))]
    assert rows == [row for _, row in profile_table.parse(WITH_START)]


def test_a_logcat():
    logged = "".join(
        f"11-27 08:56:35.518 12345 12346 I tflite  : {line}\n" for line in WITH_START.splitlines()
    )
    assert profile_table.parse(logged) == profile_table.parse(WITH_START)


def test_the_real_table():
    rows = [row for _, row in profile_table.parse(REAL.read_text())]
    inference = [row for row in rows if row.phase == "inference"]
    assert [row.node_type for row in rows if row.phase == "initialization"] == ["AllocateTensors"]
    assert len(inference) == 31, "the rows of the other tables are the same nodes once more"
    assert sum(row.mean_ms for row in inference) == pytest.approx(2949.9, rel=1e-3)
    assert sum(row.percent for row in inference) == pytest.approx(100, abs=0.05)


def test_the_table_belongs_to_its_run():
    summary = (
        "STARTING!\nInference timings in us: Init: 1, First inference: 2, Warmup (avg): 3,"
        " Inference (avg): 4\n"
    )
    runs = parse.parse_log(summary + WITH_START + summary + CSV.replace("SOFTMAX", "LOGISTIC"))
    assert [run.operators[1].node_type for run in runs] == ["SOFTMAX", "LOGISTIC"]


def test_what_happens_within_a_delegate_is_told_apart():
    text = WITHOUT_START + "Delegate internal: \n" + WITHOUT_START
    assert [row.phase for _, row in profile_table.parse(text)] == ["inference"] * 2 + [
        "delegate"
    ] * 2


def test_shares_of_nothing():
    (row, _) = (row for _, row in profile_table.parse(WITH_START.replace("20.000%", "-nan%")))
    assert row.percent is None


@pytest.mark.parametrize(
    "old, new, message",
    [
        ("[avg ms]", "[avg us]", "columns missing"),
        ("60.957", "sixty", "does not fit"),
    ],
)
def test_another_layout_is_an_error(old, new, message):
    with pytest.raises(ParseError, match=message):
        profile_table.parse(WITH_START.replace(old, new))

"""Every format that benchmark_model has printed, from real outputs and from its sources."""

from __future__ import annotations

import pathlib
import re

import pytest

from android_bench import parse
from android_bench.delegation import Delegation
from android_bench.parse import ParseError

FIXTURES = pathlib.Path(__file__).parent / "fixtures"

# Made after the sources, to have every line of a run.
LOG = (FIXTURES / "constructed_tflite.txt").read_text()
LITERT = (FIXTURES / "constructed_litert.txt").read_text()


def only_run(text):
    (run,) = parse.parse_log(text)
    return run


@pytest.mark.parametrize(
    "name, init, first, warmup, inference, count, overall",
    [
        ("tf2.15_synap_android_external_delegate", 25573, 201009, 1760.78, 1096.48, 876, 43.2852),
        ("tf2.15_synap_android_nnapi_full", 66002, 637079, 637079, 1885.74, 520, 7.83203),
        ("tf2.4_mi11_yolov5s_cpu4_excerpt", 16242, 360262, 304586, 249684, 50, 138.809),
        ("tf2.4_mi11_yolov5s_nnapi_gpu_excerpt", 404292, 188086, 175313, 156669, 50, 61.0078),
        (
            "tf2.8_qemuriscv64_mobilenet_v1_op_profiling",
            17187,
            3512391,
            3512390,
            2950340,
            50,
            46.0859,
        ),
    ],
)
def test_real_outputs(name, init, first, warmup, inference, count, overall):
    run = only_run((FIXTURES / f"{name}.txt").read_text())
    assert run.complete
    assert (run.init_us, run.first_inference_us) == (init, first)
    assert (run.warmup_us, run.inference_us) == (warmup, inference)
    assert run.inference.count == count
    assert run.inference.mean_us == inference
    assert run.memory_overall_mb == overall
    assert run.inference.median_us is None


def test_a_real_failure():
    run = only_run((FIXTURES / "tf2.4_mi11_yolov5s_int8_nnapi_default_FAILED.txt").read_text())
    assert not run.complete
    assert run.inference is None
    assert "ANEURALNETWORKS_OP_FAILED" in run.errors[0]
    assert run.errors[-1] == "Benchmarking failed."


@pytest.mark.parametrize(
    "prefix",
    [
        "",
        "INFO: ",
        "I tflite  : ",
        "I/tflite  (12345): ",
        "11-27 08:56:35.518 12345 12346 I tflite  : ",
        "11-27 08:56:35.518 I/tflite  (12345): ",
        "... tflite  : ",
        "2017-11-27 08:56:35.518009: I tensorflow/lite/tools/benchmark/benchmark_model.cc:324] ",
        "I0000 00:00:1790597656.477218 82251411 benchmark_model.cc:866] ",
        "11-27 08:56:35.518 12345 12346 I litert  : [benchmark_litert_model.h:94] ",
        "INFO: [./tools/benchmark_model.cc:88] ",
    ],
)
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_prefixes_change_nothing(prefix, line_end):
    prefixed = "".join(prefix + line + line_end for line in LOG.splitlines())
    assert parse.parse_log(prefixed) == parse.parse_log(LOG)


@pytest.mark.parametrize("last", ["no stats: 137722", "Inference: 137722"])
def test_summary_of_tensorflow_1(last):
    run = only_run(
        "Initialized session in 4.452ms\n"
        "Running benchmark for 1 iterations\n"
        "count=1 curr=146161\n"
        "\n"
        "Running benchmark for 50 iterations\n"
        "count=50 first=137789 curr=137254 min=137079 max=143416 avg=137722 std=896\n"
        "\n"
        f"Average inference timings in us: Warmup: 146161, Init: 4452, {last}\n"
    )
    assert run.complete
    assert (run.init_us, run.warmup_us, run.inference_us) == (4452, 146161, 137722)
    assert run.first_inference_us == 146161
    assert run.warmup.count == 1 and run.warmup.std_us == 0
    assert run.inference.min_us == 137079


def test_percentiles_are_kept_where_they_are_printed():
    run = only_run(LOG.replace("std=476", "std=476 p5=900 median=1000 p95=1500"))
    statistics = run.inference
    assert (statistics.p5_us, statistics.median_us, statistics.p95_us) == (900, 1000, 1500)
    assert run.warmup.median_us is None


def test_litert_report_in_milliseconds():
    run = only_run(LITERT)
    # The lines in microseconds have more digits than the report.
    assert (run.init_us, run.first_inference_us) == (4478, 1033)
    assert (run.warmup_us, run.inference_us) == (465.319, 464.545)
    assert run.inference.median_us == 462
    assert (run.memory_init_mb, run.memory_overall_mb) == (8.30, 9.12)
    assert run.peak_memory_mb == 14.06
    assert run.execution.delegations == (Delegation("XNNPACK", "partial", 7, 9),)


def test_litert_report_alone():
    run = only_run("".join(line for line in LITERT.splitlines(True) if "count=" not in line))
    assert run.inference.count == 2112
    assert run.inference.mean_us == pytest.approx(460)
    assert (run.inference.min_us, run.inference.max_us) == pytest.approx((440, 980))
    assert run.inference.std_us is None, "it is printed without a unit"


@pytest.mark.parametrize(
    "line, expected",
    [
        (
            "Explicitly applied GPU delegate, and the model graph will be completely executed by"
            " the delegate.",
            Delegation("GPU", "complete"),
        ),
        (
            "Explicitly applied XNNPACK delegate, and the model graph will be partially executed by"
            " the delegate w/ 2 delegate kernels.",
            Delegation("XNNPACK", "partial"),
        ),
        (
            "Applied GPU delegate, and the model graph will be completely executed w/ the"
            " delegate.",
            Delegation("GPU", "complete"),
        ),
        ("Applied NNAPI delegate.", Delegation("NNAPI", "unstated")),
        (
            "Though NNAPI delegate is explicitly applied, the model graph will not be executed by"
            " the delegate.",
            Delegation("NNAPI", "none"),
        ),
    ],
)
def test_what_became_of_a_delegate(line, expected):
    run = only_run(LOG.replace("Initialized session", f"{line}\nInitialized session"))
    assert run.execution.delegations[-1] == expected


@pytest.mark.parametrize(
    "line, expected",
    [
        ("Peak memory footprint (MB): init=4.9 overall=138.8", (4.9, 138.8, None)),
        (
            "Memory footprint delta from the start of the tool (MB): init=4.9 overall=138.8\n"
            "Overall peak memory footprint (MB) via periodic monitoring: 93.2383",
            (4.9, 138.8, 93.2383),
        ),
    ],
)
def test_memory_lines(line, expected):
    run = only_run(re.sub("Memory footprint.*", line, LOG))
    assert (run.memory_init_mb, run.memory_overall_mb, run.peak_memory_mb) == expected


def test_flags_that_the_binary_ignored():
    run = only_run(LOG.replace("STARTING!\n", "STARTING!\nUnconsumed cmdline flags: --new=1\n"))
    assert run.unconsumed_flags == "--new=1"


def test_summary_of_an_old_app_with_the_memory_behind_it():
    line = "E tflite  : Average inference timings in us: Warmup: 9, Init: 4452, Inference: 13"
    memory = "Overall max resident set size = 4.1 MB, total malloc-ed size = 0 MB"
    counts = "count=1 curr=9\n\ncount=50 first=9 curr=9 min=9 max=19 avg=13 std=8\n"
    run = only_run(f"{counts}{line}{memory}\n")
    assert (run.complete, run.inference_us, run.errors) == (True, 13, ())


def test_two_runs_in_one_log():
    faster = LOG.replace("avg=1096.48", "avg=548.24").replace("(avg): 1096.48", "(avg): 548.24")
    first, second = parse.parse_log(LOG + faster)
    assert (first.inference_us, second.inference_us) == (1096.48, 548.24)


def test_two_excerpts_without_a_start():
    text = (FIXTURES / "tf2.4_mi11_yolov5s_cpu4_excerpt.txt").read_text() + (
        FIXTURES / "tf2.4_mi11_yolov5s_nnapi_gpu_excerpt.txt"
    ).read_text()
    assert [run.inference_us for run in parse.parse_log(text)] == [249684, 156669]


def test_no_run_at_all():
    assert parse.parse_log("") == []
    assert parse.parse_log("sh: ./benchmark_model: not found\n") == []


@pytest.mark.parametrize("text", [LOG, LITERT], ids=["tflite", "litert"])
def test_a_log_cut_off_anywhere_never_gives_another_figure(text):
    whole = only_run(text)
    for end in range(len(text)):
        try:
            runs = parse.parse_log(text[:end])
        except ParseError:
            continue
        for run in runs:
            if run.complete:
                assert run.inference_us == pytest.approx(whole.inference_us, rel=0.011)
            for mine, full in ((run.warmup, whole.warmup), (run.inference, whole.inference)):
                if mine is not None and mine.std_us is not None and full.median_us is None:
                    assert mine.mean_us == full.mean_us


@pytest.mark.parametrize(
    "old, new",
    [
        ("timings in us", "timings in ms"),
        ("Inference (avg): 1096.48", "Inference (avg): fast"),
        ("Inference (avg): 1096.48", "Inference (avg): nan"),
        ("std=476", "std=476 mode=12"),
        ("avg=1096.48 ", ""),
        ("count=876", "count=-1"),
        ("in 25.573ms", "in 25.573s"),
        ("size (MB): 0.497264", "size (KB): 497"),
        ("overall=43.2852", "overall=lots"),
    ],
)
def test_what_cannot_be_read_is_an_error_with_its_line(old, new):
    text = LOG.replace(old, new)
    wrong = next(line for line in text.splitlines() if line not in LOG.splitlines())
    with pytest.raises(ParseError) as error:
        parse.parse_log(text)
    assert error.value.line == wrong
    assert text.splitlines()[error.value.line_number - 1] == wrong


@pytest.mark.parametrize(
    "old, new",
    [
        ("Inference (avg): 1096.48", "Inference (avg): 2096.48"),
        ("avg=1760.78", "avg=1.76078"),
    ],
)
def test_lines_that_contradict_each_other_are_an_error(old, new):
    with pytest.raises(ParseError, match="contradicts"):
        parse.parse_log(LOG.replace(old, new))


def test_report_that_contradicts_its_counts_is_an_error():
    with pytest.raises(ParseError, match="contradicts"):
        parse.parse_log(LITERT.replace("0.46 ms (2112", "0.64 ms (2112"))


def test_report_in_an_unknown_unit_is_an_error():
    with pytest.raises(ParseError, match="Inference"):
        parse.parse_log(LITERT.replace("0.46 ms (2112", "460 us (2112"))

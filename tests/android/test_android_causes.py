"""Logs of failed and of odd runs: what is said about them."""

from __future__ import annotations

import pathlib

import pytest

from android_bench import causes, outputs, parse, validity
from android_bench.tools import BENCHMARK_MODEL, LITERT, logged_name

FIXTURES = pathlib.Path(__file__).parent / "fixtures"
CASES = FIXTURES / "cases"


def judged(path, tool, delegate, exit_code=0):
    """The last run of a log, and why it does not count."""
    text = path.read_text()
    runs = parse.parse_log(text)
    run = runs[-1] if runs else None
    return run, validity.run(run, exit_code, text, logged_name(tool, delegate, ()), 50)


def test_opengl_instead_of_opencl():
    run, reasons = judged(CASES / "gpu_opencl_to_opengl.txt", BENCHMARK_MODEL, "gpu")
    assert reasons == []
    assert str(run.execution) == "GPU (OpenGL, because OpenCL failed), a part"
    assert "OpenGL ran, because OpenCL failed" in validity.remarks(run)


def test_litert_counts():
    run, reasons = judged(CASES / "mlcommons1134_litert_compiled_nightly.txt", LITERT, "gpu")
    assert reasons == []
    assert (run.inference_us, run.inference.count) == (7430200, 60)
    assert (run.memory_init_mb, run.peak_memory_mb) == (6391.74, None)


def test_delegate_whose_library_is_missing():
    path = CASES / "mtk_neuron4_failed.txt"
    _, (reason,) = judged(path, BENCHMARK_MODEL, "external", exit_code=1)
    assert reason == (
        "exit code 1: NeuronApi error: unable to open library libneuron_adapter.so/"
        "libneuronusdk_adapter.mtk.so (the delegate's library cannot be opened)"
    )


def test_program_for_smaller_pages():
    path = CASES / "page16k_old_binary.txt"
    _, (reason,) = judged(path, BENCHMARK_MODEL, "xnnpack", exit_code=134)
    assert "cannot be smaller than system page size (16384)" in reason
    assert "the program is built for 4 KB pages, the phone has 16 KB pages" in reason


def test_nnapi_with_nothing_but_the_cpu():
    run, reasons = judged(CASES / "pixel_nnapi_reference_only.txt", BENCHMARK_MODEL, "nnapi")
    assert reasons == ["not an NNAPI result: only nnapi-reference, the CPU, was there"]
    assert str(run.execution) == "NNAPI (nnapi-reference), 31 of 31 nodes"


def test_real_nnapi():
    path = FIXTURES / "tf2.15_synap_android_nnapi_full.txt"
    run, reasons = judged(path, BENCHMARK_MODEL, "nnapi")
    assert reasons == []
    assert str(run.execution) == "NNAPI (synap-npu), 31 of 31 nodes"


def test_chosen_accelerator_that_is_the_cpu():
    text = (FIXTURES / "tf2.15_synap_android_nnapi_full.txt").read_text()
    (run,) = parse.parse_log(text.replace("name: [synap-npu]", "name: [nnapi-reference]"))
    assert run.execution.only_reference


def test_error_in_a_completed_run():
    run, reasons = judged(CASES / "tf41977_immutable_but_completes.txt", BENCHMARK_MODEL, "xnnpack")
    assert reasons == []
    assert validity.remarks(run) == [
        "an error in a completed run: ModifyGraphWithDelegate is disallowed when graph is"
        " immutable."
    ]


def test_a_real_failure():
    path = FIXTURES / "tf2.4_mi11_yolov5s_int8_nnapi_default_FAILED.txt"
    _, (reason,) = judged(path, BENCHMARK_MODEL, "nnapi", exit_code=1)
    assert "NN API returned error ANEURALNETWORKS_OP_FAILED" in reason


@pytest.mark.parametrize(
    "line, advice",
    [
        ("sh: /data/local/tmp/x: can't execute: Permission denied", "--benchmark_app"),
        (
            'CANNOT LINK EXECUTABLE "/data/x": library "libc++_shared.so" not found: needed by x',
            "the phone has no libc++_shared.so",
        ),
        ("taskset: failed to set pid 4711's affinity: Invalid argument", "--cores=all"),
        ("/data/x: not executable: 64-bit ELF file", "not for this phone's processor"),
        ("INFO: Created.\nERROR: Select TensorFlow op(s) are not supported", "_plus_flex"),
        ("ERROR: Signature not specified or incorrect for graph", "no such --signature"),
    ],
)
def test_known_causes(line, advice):
    for text in (line, f"INFO: STARTING!\n{line}\nAborted\n"):
        assert advice in causes.of(text)
        assert line.splitlines()[-1].removeprefix("ERROR: ") in causes.of(text)


def test_without_a_known_cause():
    assert causes.of("INFO: STARTING!\nINFO: Loaded model\n") is None
    assert causes.last_words("INFO: STARTING!\nINFO: Loaded model\n\n") == "Loaded model"
    assert causes.last_words("\n") is None
    assert causes.of("Aborted\n") == "Aborted"
    assert len(causes.of("error " + 1000 * "x")) == 200


def test_why_nothing_is_compared():
    flex = RuntimeError(
        "Select TensorFlow op(s), included in the given model, is(are) not supported"
    )
    assert "needs Select TF ops" in outputs.why_not(flex)
    assert "no tflite-runtime" in outputs.why_not(ImportError("x"))
    assert outputs.why_not(ValueError("a\nb")) == "this computer's interpreter: a b"
    assert outputs.why_not(MemoryError()) == "this computer's interpreter: MemoryError"

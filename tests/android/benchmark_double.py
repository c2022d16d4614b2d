"""Stands in for the phone's loader and for what measures; started by the double's shell.

Which program it is stands in the pushed file: benchmark_model, or benchmark_litert_model. As `app`
it is the benchmark app, which looks whether it may read its model.

It checks the pushed program as a kernel would (executable bit, ELF, machine), then runs the pushed
model with the real TensorFlow Lite interpreter, times it, and prints what benchmark_model of
TensorFlow 2.14 prints. Times are this computer's. The per-operator table has the official layout
and the model's operators, but its shares are made up: the interpreter's Python API has no profiler.

behaviour.json in the phone's folder says what to do wrong:

  hang_at_run: the number of the start that never ends
  exit_code: what to exit with, after the output
  say: a line more in the log
  fall_back: print that the delegate takes nothing
  drop_summary: stop before the summary
  measure_only: stop after so many measured runs
  slow_down: {number of the start: factor} for its times
  wrong_output: write other outputs than the model's
  unknown: names of flags not to know
  no_escape: refuse "::" in --input_layer_value_files, as old binaries do
  print: a text to print instead of all that, and
  print_from: the number of the start from which on that is done
"""

from __future__ import annotations

import json
import os
import pathlib
import re
import statistics
import struct
import sys
import time
from typing import Optional

_MACHINES = {"arm64-v8a": 183, "armeabi-v7a": 40}
_FLAGS = frozenset(
    re.findall(
        r"\w+",
        "graph num_runs num_threads min_secs max_secs warmup_runs warmup_min_secs use_xnnpack"
        " use_gpu use_nnapi enable_op_profiling report_peak_memory_footprint input_layer"
        " input_layer_shape input_layer_value_files output_filepath signature_to_run_for"
        " gpu_backend external_delegate_path",
    )
)
_LITERT_FLAGS = (_FLAGS - {"use_xnnpack", "use_nnapi", "enable_op_profiling"}) | {
    *("use_cpu", "use_npu", "require_full_delegation", "allow_fp16")
}
_LITERT_FLAGS -= {flag for flag in _FLAGS if flag.startswith(("input", "output", "external"))}
_DELEGATES = {
    "use_xnnpack": "XNNPACK",
    "use_gpu": "GPU",
    "use_nnapi": "NNAPI",
    "external_delegate_path": "EXTERNAL",
}


def main() -> int:
    """Loads, runs, prints; returns the exit code."""
    root = pathlib.Path(os.environ["PHONE_ROOT"])
    behaviour = json.loads((root / "behaviour.json").read_text())
    program = pathlib.Path(sys.argv[1])
    is_app = sys.argv[1] == "app"
    refusal = "" if is_app else _refusal(program, behaviour)
    if refusal:
        print(f"sh: {program}: {refusal}")
        return 126
    litert = not is_app and b"benchmark_litert_model" in program.read_bytes()
    with open(root / "benchmark_runs", "a") as log:
        log.write(json.dumps(sys.argv[2:]) + "\n")
    number = len((root / "benchmark_runs").read_text().splitlines())
    flags = dict(argument[2:].split("=", 1) for argument in sys.argv[2:])
    if "print" in behaviour and number >= behaviour.get("print_from", 1):
        print(behaviour["print"], flush=True)
        return behaviour.get("exit_code", 0)
    if is_app and not _may_read(pathlib.Path(flags["graph"])):
        print(f"ERROR: Could not open '{flags['graph']}'.")
        print("ERROR: Failed to load model", flush=True)
        return 1
    return _benchmark(flags, behaviour, number, litert)


def _may_read(path: pathlib.Path) -> bool:
    """Whether another user may read a file of which it knows the name."""
    return bool(path.parent.stat().st_mode & 0o001 and path.stat().st_mode & 0o004)


def _refusal(program: pathlib.Path, behaviour: dict) -> str:
    abis = behaviour["abis"].split(",")
    if not program.exists():
        return "not found"
    if not os.access(program, os.X_OK) or not behaviour["executes"]:
        return "can't execute: Permission denied"
    header = program.read_bytes()[:20]
    machines = {_MACHINES[abi] for abi in abis if abi in _MACHINES}
    if header[:4] != b"\x7fELF" or struct.unpack_from("<H", header, 18)[0] not in machines:
        return "can't execute: Exec format error"
    return ""


def _say(line: str) -> None:
    print(f"INFO: {line}", flush=True)


def _benchmark(flags: dict[str, str], behaviour: dict, number: int, litert: bool) -> int:
    _say("STARTING!")
    known = (_LITERT_FLAGS if litert else _FLAGS) - set(behaviour.get("unknown", ()))
    unknown = [f"--{key}={value}" for key, value in flags.items() if key not in known]
    if unknown:
        print(f"WARN: Unconsumed cmdline flags: {' '.join(unknown)}", flush=True)
        for key in [key for key in flags if key not in known]:
            del flags[key]
    _say("Log parameter values verbosely: [0]")
    _say(f"Graph: [{flags['graph']}]")
    if behaviour.get("hang_at_run") == number:
        time.sleep(3600)

    from tflite_runtime.interpreter import Interpreter, OpResolverType

    if behaviour.get("no_escape") and "::" in flags.get("input_layer_value_files", ""):
        print("ERROR: input_layer_value_files contains more than one delimiter.", flush=True)
        print("ERROR: Benchmarking failed.", flush=True)
        return 1
    plain = flags.get("use_xnnpack") == "false"
    rss_start = _rss_mb()
    begin = time.perf_counter()
    try:
        interpreter = Interpreter(
            flags["graph"],
            num_threads=int(flags.get("num_threads", "1")),
            experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
            if plain
            else OpResolverType.AUTO,
        )
    except ValueError:
        print("ERROR: Failed to load model " + flags["graph"], flush=True)
        print("ERROR: Benchmarking failed.", flush=True)
        return 1
    _say(f"Loaded model {flags['graph']}")
    signature = flags.get("signature_to_run_for")
    try:
        run = _runner(interpreter, signature, flags)
    except (RuntimeError, ValueError) as error:
        print(f"ERROR: {' '.join(str(error).split())}", flush=True)
        print("ERROR: Failed to allocate tensors!\nERROR: Benchmarking failed.", flush=True)
        return 1
    for flag, name in {} if litert else _DELEGATES.items():
        if flags.get(flag, "false") == "false":
            continue
        _say(f"{name} delegate created.")
        if behaviour.get("fall_back"):
            _say(
                f"Though {name} delegate is explicitly applied, the model graph will not be"
                " executed by the delegate."
            )
        else:
            _say(
                f"Explicitly applied {name} delegate, and the model graph will be completely"
                " executed by the delegate."
            )
    init_us = 1e6 * (time.perf_counter() - begin)
    _say(f"The input model file size (MB): {os.path.getsize(flags['graph']) / 1e6:g}")
    _say(f"Initialized session in {init_us / 1e3:g}ms.")
    rss_init = _rss_mb()
    if behaviour.get("say"):
        print(behaviour["say"], flush=True)
    slow = behaviour.get("slow_down", {}).get(str(number), 1.0)
    warmup = _phase(run, flags, "warmup_runs", "warmup_min_secs", slow, litert)
    measured = _phase(
        run, flags, "num_runs", "min_secs", slow, litert, behaviour.get("measure_only")
    )
    if behaviour.get("drop_summary"):
        return 0
    if litert:
        _print_report(init_us, warmup, measured, rss_init - rss_start)
        return behaviour.get("exit_code", 0)
    _say(
        f"Inference timings in us: Init: {init_us:.0f}, First inference: {warmup[0]},"
        f" Warmup (avg): {statistics.fmean(warmup):.6g},"
        f" Inference (avg): {statistics.fmean(measured):.6g}"
    )
    _say(
        "Note: as the benchmark tool itself affects memory footprint, the following is only"
        " APPROXIMATE to the actual memory footprint of the model at runtime. Take the information"
        " at your discretion."
    )
    _say(
        "Memory footprint delta from the start of the tool (MB):"
        f" init={rss_init - rss_start:g} overall={_rss_mb() - rss_start:g}"
    )
    if flags.get("report_peak_memory_footprint") == "true":
        _say(f"Overall peak memory footprint (MB) via periodic monitoring: {_rss_mb():g}")
    if flags.get("enable_op_profiling") == "true":
        _print_profile(interpreter, statistics.fmean(measured) / 1e3)
    if "output_filepath" in flags:
        _write_outputs(interpreter, flags["output_filepath"], behaviour)
    return behaviour.get("exit_code", 0)


def _runner(interpreter, signature: Optional[str], flags: dict[str, str]):
    """Returns what runs the model once, or its signature, with its inputs set."""
    import numpy as np

    if not signature:
        interpreter.allocate_tensors()
        _fill_inputs(interpreter, flags)
        return interpreter.invoke
    signatures = interpreter.get_signature_list()
    if signature not in signatures:
        print(
            "ERROR: Signature not specified or incorrect for graph with multiple signatures. Pass"
            ' one of the following to the flag "--signature_to_run_for"'
        )
        for name in signatures:
            print(f"ERROR:  #> Signature key: {name}")
        raise ValueError("no such signature")
    runner = interpreter.get_signature_runner(signature)
    rng = np.random.default_rng(0)
    inputs = {
        name: rng.random(detail["shape"]).astype(detail["dtype"])
        for name, detail in runner.get_input_details().items()
    }
    return lambda: runner(**inputs)


def _print_report(init_us: float, warmup: list[int], measured: list[int], memory: float) -> None:
    """The report of LiteRT's tool, in milliseconds, as its nightly builds print it."""
    print("INFO: [benchmark_litert_model.h:90] \n========== BENCHMARK RESULTS ==========")
    at = "INFO: [benchmark_litert_model.h:94]"
    print(f"{at} Model initialization: {init_us / 1e3:.2f} ms")
    print(f"{at} Warmup (first):       {warmup[0] / 1e3:.2f} ms")
    mean = statistics.fmean(warmup) / 1e3
    print(f"{at} Warmup (avg):         {mean:.2f} ms ({len(warmup)} runs)")
    mean = statistics.fmean(measured) / 1e3
    print(f"{at} Inference (avg):      {mean:.2f} ms ({len(measured)} runs)")
    print(f"{at} Inference (min):      {min(measured) / 1e3:.2f} ms")
    print(f"{at} Inference (max):      {max(measured) / 1e3:.2f} ms")
    print(f"{at} Inference (std):      {statistics.pstdev(measured) / 1e3:.2f}")
    print("INFO: [benchmark_litert_model.h:124] \nMemory Usage:")
    print(f"{at} Init footprint:       {memory:.2f} MB")
    print(f"{at} Overall footprint:    {memory:.2f} MB", flush=True)


def _fill_inputs(interpreter, flags: dict[str, str]) -> None:
    import numpy as np

    files = {}
    for item in filter(None, flags.get("input_layer_value_files", "").split(",")):
        # A name's own ":" is doubled.
        name, _, path = item.replace("::", "\0").partition(":")
        files[name.replace("\0", ":")] = path
    rng = np.random.default_rng(0)
    for detail in interpreter.get_input_details():
        if detail["name"] in files:
            raw = pathlib.Path(files[detail["name"]]).read_bytes()
            value = np.frombuffer(raw, detail["dtype"]).reshape(detail["shape"])
        else:
            value = rng.random(detail["shape"]).astype(detail["dtype"])
        interpreter.set_tensor(detail["index"], value)


def _phase(run, flags, runs_flag, secs_flag, slow, litert, at_most=None) -> list[int]:
    runs = int(flags.get(runs_flag, "1"))
    secs = float(flags.get(secs_flag, "0.5"))
    _say(
        f"Running benchmark for at least {runs} iterations and at least {secs:g} seconds but"
        f" terminate if exceeding {float(flags.get('max_secs', '150')):g} seconds."
    )
    times: list[int] = []
    end = time.perf_counter() + secs
    while len(times) < runs or time.perf_counter() < end:
        begin = time.perf_counter()
        run()
        times.append(max(1, round(1e6 * slow * (time.perf_counter() - begin))))
        if at_most and len(times) >= at_most:
            break
    if litert:
        return times
    line = f"count={len(times)} "
    if len(times) == 1:
        line += f"curr={times[0]}"
    else:
        line += (
            f"first={times[0]} curr={times[-1]} min={min(times)} max={max(times)}"
            f" avg={statistics.fmean(times):.6g} std={statistics.pstdev(times):.0f}"
        )
    _say(line)
    print(flush=True)
    return times


def _print_profile(interpreter, mean_ms: float) -> None:
    operators = interpreter._get_ops_details()
    names = {tensor["index"]: tensor["name"] for tensor in interpreter.get_tensor_details()}
    print("Operator-wise Profiling Info for Regular Benchmark Runs:")
    print("============================== Run Order ==============================")
    head = f"\t{'[node type]':>24}\t{'[first]':>9}\t{'[avg ms]':>9}\t{'[%]':>8}\t{'[cdf%]':>8}"
    print(head + f"\t{'[mem KB]':>10}\t{'[times called]':>9}\t[Name]")
    share = 100 / len(operators)
    for index, operator in enumerate(operators):
        each = mean_ms / len(operators)
        outputs = ", ".join(names[tensor] for tensor in operator["outputs"])
        print(
            f"\t{operator['op_name']:>24}\t{each:9.3f}\t{each:9.3f}\t{share:7.3f}%"
            f"\t{share * (index + 1):7.3f}%\t{0:10.3f}\t{1:9}\t[{outputs}]:{index}"
        )
    print(flush=True)


def _write_outputs(interpreter, path: str, behaviour: dict) -> None:
    data = b""
    for detail in interpreter.get_output_details():
        value = interpreter.get_tensor(detail["index"])
        data += (value + 1 if behaviour.get("wrong_output") else value).tobytes()
    pathlib.Path(path).write_bytes(data)


def _rss_mb() -> float:
    pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


if __name__ == "__main__":
    sys.exit(main())

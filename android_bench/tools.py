"""The programs that measure, and how each is told what to do.

| program | by whom | it is run |
|---|---|---|
| benchmark_model | TensorFlow Lite | in the phone's shell |
| benchmark_litert_model | LiteRT, for its CompiledModel | in the phone's shell |
| the benchmark app | TensorFlow Lite | as an app; takes the flags of benchmark_model |
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Optional

from android_bench.errors import UserError

# Any delegate but XNNPACK, which takes what others leave.
ANY_OTHER = "any"
# None at all.
PLAIN = "plain"

# What the harness sets itself; `--extra_flag` may set everything else.
_OWN_FLAGS = {
    "graph": "--model",
    "num_threads": "--threads",
    "num_runs": "--num_runs",
    "min_secs": "--min_secs",
    "max_secs": "--max_secs",
    "warmup_min_secs": "--warmup_secs",
    "warmup_runs": "--warmup_secs",
    "signature_to_run_for": "--signature",
    "enable_op_profiling": "--profile",
    **{f"use_{name}": "--delegate" for name in ("xnnpack", "gpu", "nnapi", "cpu", "npu")},
}


@dataclasses.dataclass(frozen=True)
class Tool:
    """A program that measures.

    Attributes:
      name: Its own.
      delegate_flags: Delegate -> the flags that choose it.
      logged: Delegate -> what its log has to name as the delegate that took the model; None if
        nothing has to stand there.
      takes_inputs: Whether it can be given inputs and writes its outputs.
      profiles: Whether it prints a table by operator.
      binds_cores: Whether it can be bound to cores.
    """

    name: str
    delegate_flags: Mapping[str, tuple[str, ...]]
    logged: Mapping[str, Optional[str]]
    takes_inputs: bool = True
    profiles: bool = True
    binds_cores: bool = True


BENCHMARK_MODEL = Tool(
    name="benchmark_model",
    # Since TensorFlow 2.3 it applies XNNPACK by itself, so that plain kernels have to be asked for.
    delegate_flags={
        "cpu": ("--use_xnnpack=false",),
        "xnnpack": ("--use_xnnpack=true",),
        "gpu": ("--use_gpu=true",),
        "nnapi": ("--use_nnapi=true",),
        "external": (),
    },
    logged={
        "cpu": PLAIN,
        "xnnpack": "XNNPACK",
        "gpu": "GPU",
        "nnapi": "NNAPI",
        "external": ANY_OTHER,
    },
)
LITERT = Tool(
    name="benchmark_litert_model",
    # On the CPU it always uses XNNPACK. Its log does not always say what the accelerator took, so
    # that it has to take all: the tool then fails if it cannot.
    delegate_flags={
        "xnnpack": ("--use_cpu=true",),
        "gpu": ("--use_gpu=true", "--use_cpu=false", "--require_full_delegation=true"),
        "npu": ("--use_npu=true", "--use_cpu=false", "--require_full_delegation=true"),
    },
    logged={"xnnpack": None, "gpu": None, "npu": None},
    takes_inputs=False,
    profiles=False,
)
APP = dataclasses.replace(
    BENCHMARK_MODEL,
    name="benchmark app",
    # It may not write where the shell reads; and its standard output, the table's place, is lost.
    takes_inputs=False,
    profiles=False,
    binds_cores=False,
)
TOOLS = {tool.name: tool for tool in (BENCHMARK_MODEL, LITERT, APP)}


def command_flags(
    tool: Tool,
    delegate: str,
    threads: int,
    own: Sequence[str],
    signature: Optional[str],
    extra: Sequence[str],
) -> list[str]:
    """Returns the flags of one start; an extra flag replaces one of the same name."""
    flags = [f"--num_threads={threads}", *tool.delegate_flags[delegate], *own]
    if signature:
        flags.append(f"--signature_to_run_for={signature}")
    replaced = {flag_name(flag) for flag in extra}
    return [flag for flag in flags if flag_name(flag) not in replaced] + list(extra)


def logged_name(tool: Tool, delegate: str, extra: Sequence[str]) -> Optional[str]:
    """Returns what the log has to name; see `Tool.logged`."""
    if tool is LITERT and delegate != "xnnpack" and "--require_full_delegation=false" in extra:
        return ANY_OTHER
    return tool.logged[delegate]


def flag_name(flag: str) -> str:
    """E.g. "num_runs" of "--num_runs=5"."""
    return flag.lstrip("-").split("=", 1)[0]


def parse_extra_flag(text: str) -> str:
    """Returns a flag for the program as it takes it, "--name=value".

    Raises:
      UserError: If it is none, or one that the harness sets itself.
    """
    match = re.fullmatch(r"(?:--)?([A-Za-z]\w*)=([^\x00-\x1f]*)", text)
    if not match:
        raise UserError(f"--extra_flag: expected NAME=VALUE, as in gpu_backend=cl; found {text!r}.")
    own = _OWN_FLAGS.get(match[1])
    if own:
        raise UserError(f"--extra_flag: {match[1]} is set by {own}.")
    return f"--{match[1]}={match[2]}"

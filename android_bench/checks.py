"""The run before all others: does a model run at all, as asked for, and correctly?"""

from __future__ import annotations

import pathlib
import tempfile
from collections.abc import Callable, Sequence
from typing import Optional

from android_bench import outputs, tools, validity
from android_bench.adb import AdbError, AdbTimeout, DeviceLost
from android_bench.outputs import Comparison
from android_bench.plan import Configuration, Model
from android_bench.records import Check
from android_bench.remote_folder import RemoteFolder
from android_bench.starter import Outcome, Starter

_FLAGS = (
    "--num_runs=1",
    "--min_secs=0",
    "--warmup_runs=1",
    "--warmup_min_secs=0",
    "--report_peak_memory_footprint=true",
)
_NOT_COMPARED = Comparison(False, None, "not compared")


def check(
    starter: Starter,
    remote: RemoteFolder,
    configuration: Configuration,
    model: Model,
    number: int,
    say: Callable[[str], None],
) -> Check:
    """Runs the model once, as it will be measured, and compares its outputs with this computer's.

    Whatever is wrong with the model is a reason not to measure it, and no more.

    Args:
      starter: Has the model on the device.
      remote: The session's folder.
      configuration: How it runs.
      model: The model.
      number: Of the check; names its output file.
      say: Takes a line about the outcome.

    Raises:
      DeviceLost: If the connection ended first.
    """
    title = f"check {model.label}, {configuration}"
    found = Check(model.label, configuration, [], _NOT_COMPARED)
    # A name of its own: what another model wrote must not stand in for this one.
    remote_output = f"{remote.path}/output{number}"
    try:
        reference, flags = _reference(starter, remote, model, remote_output)
    except outputs.DynamicShape as error:
        found.reasons = [str(error)]
    except (DeviceLost, AdbTimeout):
        raise
    except AdbError as error:
        found.reasons = [str(error)]
    # The interpreter may fail in any way; the model may still run on the device.
    except Exception as error:
        found.outputs = Comparison(False, None, f"not compared: {outputs.why_not(error)}")
        _run(starter, title, found, configuration, model, ())
    else:
        outcome = _run(starter, title, found, configuration, model, flags)
        if reference:
            found.outputs = _compare(remote, reference, outcome, found, flags, remote_output)
            if found.reasons and not outcome.hung:
                # Perhaps it is only the inputs that the program cannot take.
                again = Check(model.label, configuration, [], found.outputs)
                _run(starter, f"{title}, without inputs", again, configuration, model, ())
                if not again.reasons:
                    why = f"not compared: the program does not take inputs: {found.reasons[0]}"
                    found = again
                    found.outputs = Comparison(False, None, why)
            elif found.outputs.match is False:
                found.reasons = [f"wrong result: {found.outputs.detail}"]
        elif starter.settings.signature:
            why = "not compared: a signature may change the model from run to run"
            found.outputs = Comparison(False, None, why)
        elif not starter.program.tool.takes_inputs:
            why = f"not compared: the {starter.program.tool.name} takes no inputs"
            found.outputs = Comparison(False, None, why)
        else:
            found.outputs = Comparison(False, None, "not compared: --extra_flag sets the inputs")
    reasons = "; ".join(found.reasons)
    remarks = "".join(f"; {remark}" for remark in found.remarks)
    say(f"{title}: " + (f"INVALID: {reasons}" if reasons else f"{found.outputs.detail}{remarks}"))
    return found


def _reference(
    starter: Starter, remote: RemoteFolder, model: Model, remote_output: str
) -> tuple[Optional[outputs.Reference], list[str]]:
    """Returns what to compare with, if anything, and the flags that it takes."""
    settings = starter.settings
    own_inputs = any(tools.flag_name(f).startswith("input_layer") for f in settings.extra_flags)
    if not starter.program.tool.takes_inputs or settings.signature or own_inputs:
        return None, []
    reference = outputs.Reference(model.path, settings.seed)
    with tempfile.TemporaryDirectory(prefix="android_bench_") as scratch:
        inputs = [remote.put(path) for path in reference.write_inputs(pathlib.Path(scratch))]
    return reference, reference.flags(inputs, remote_output)


def _run(
    starter: Starter,
    title: str,
    found: Check,
    configuration: Configuration,
    model: Model,
    input_flags: Sequence[str],
) -> Outcome:
    outcome = starter.run(title, configuration, model, _FLAGS, 1, input_flags)
    found.log, found.reasons = outcome.log, outcome.reasons
    if outcome.benchmark:
        found.peak_memory_mb = outcome.benchmark.peak_memory_mb
        found.ran_on = str(outcome.benchmark.execution)
        found.remarks = validity.remarks(outcome.benchmark)
    return outcome


def _compare(
    remote: RemoteFolder,
    reference: outputs.Reference,
    outcome: Outcome,
    found: Check,
    flags: list[str],
    remote_output: str,
) -> Comparison:
    if found.reasons:
        return _NOT_COMPARED
    ignored = {tools.flag_name(flag) for flag in outcome.benchmark.unconsumed_flags.split()}
    if ignored & {tools.flag_name(flag) for flag in flags}:
        why = "not compared: this program does not take inputs or write outputs"
        return Comparison(False, None, why)
    raw = remote.fetch(remote_output) or b""
    return reference.compare(raw, found.configuration.delegate)

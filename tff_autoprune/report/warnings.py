"""What a reader should know before trusting the figures of a run."""

from __future__ import annotations

from tff_autoprune.program import summary as summary_lib
from tff_autoprune.report import text
from tff_autoprune.report.run_data import RunData

_MINIMUM_EXAMPLES = 256
_QUANTIZATION_LOSS = 0.01


def of(run: RunData) -> list[str]:
    """Returns a sentence per doubt, the gravest first."""
    summary = run.summary
    found = []
    planned, done = run.config["federated"]["rounds"], summary.get("rounds_completed", 0)
    if done < planned:
        found.append(f"The run ended after {done} of {planned} rounds.")
    nothing_learned = summary_lib.at_chance(summary) if summary.get("accuracy") else None
    if nothing_learned:
        found.append(f"{nothing_learned[0].upper()}{nothing_learned[1:]}.")
    exported = summary.get("export", {})
    quantized = exported.get("pruned_qat.full_int8") or exported.get("pruned.full_int8", {})
    float32 = exported.get("pruned.float32", {})
    if quantized.get("accuracy") is not None and float32.get("accuracy") is not None:
        loss = float32["accuracy"] - quantized["accuracy"]
        if loss > _QUANTIZATION_LOSS:
            found.append(
                f"Full int8 loses {100 * loss:.1f} points of accuracy"
                + (
                    ", even after training for it."
                    if "pruned_qat.full_int8" in exported
                    else "; `tff-autoprune export --qat_rounds=10` trains the model for it."
                )
            )
    examples = min((entry["examples"] for entry in exported.values()), default=_MINIMUM_EXAMPLES)
    if examples < _MINIMUM_EXAMPLES:
        found.append(f"Exports were compared with Keras on {examples} held-out images only.")
    benchmark = summary.get("benchmark", {})
    host = benchmark.get("host", {})
    # Others may have the cores that the benchmark did not use; a tenth of each is a system at rest.
    cores, busy = host.get("cores", 1), host.get("busy_cores", 0)
    if busy > max(0, cores - benchmark.get("threads", 1)) + 0.1 * cores:
        found.append(
            f"Other programs kept {busy:.1f} of the host's {cores} cores busy during the benchmark."
        )
    low, high = benchmark.get("speedup_interval95", (0, 0))
    if low <= 1 <= high:
        found.append(
            "The benchmark cannot tell the two models' speed apart (95 % interval of the speed-up"
            f" {text.times(low)} to {text.times(high)})."
        )
    failed = summary.get("faults", {}).get("failed_clients", 0)
    if failed:
        found.append(f"{failed} times a sampled client returned no usable update.")
    return found

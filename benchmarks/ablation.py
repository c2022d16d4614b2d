"""What each part of `pruning.method=auto` is worth: switches one off at a time.

    python benchmarks/ablation.py --config=configs/fontwriters.py --seeds=0,1,2 --out=runs/ablation

Trains every variant with every seed (or resumes) and prints a JSON line
for each: parameters, FLOPs and bytes as shares of the dense run, test accuracy, and its difference
from the full method in points. `energy only` is given the parameters that the full method found, so
that it shows what the race decides besides the size.
"""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from absl import flags

from tff_autoprune import cli
from tff_autoprune.run_directory import RunDirectory

_CONFIG = flags.DEFINE_string("config", "configs/fontwriters.py", "The configuration.")
_SEEDS = flags.DEFINE_list("seeds", ["0", "1", "2"], "Seeds of the runs.")
_OUT = flags.DEFINE_string("out", "runs/ablation", "Folder of the runs.")

# What each variant sets; {parameters} is what the full method found with the same seed.
_VARIANTS: dict[str, list[str]] = {
    "full": [],
    "no factorization": ["--config.pruning.factorize=False"],
    "no average of the last rounds": ["--config.federated.average_share=0.0"],
    "energy only": ["--config.pruning.target_parameters={parameters}"],
    "group lasso": ["--config.pruning.penalty=1e-4"],
}


def _run(variant: str, seed: str, parameters: int) -> dict[str, Any]:
    folder = pathlib.Path(_OUT.value) / variant.replace(" ", "_") / f"seed_{seed}"
    changes = [change.format(parameters=parameters) for change in _VARIANTS[variant]]
    command = [sys.executable, "-m", "tff_autoprune", "train", f"--config={_CONFIG.value}"]
    command += [f"--config.seed={seed}", f"--run_dir={folder}", "--resume", *changes]
    subprocess.run(command, check=True, stdout=sys.stderr)
    return RunDirectory(folder).read_summary()


def main(argv: Sequence[str]) -> None:
    """Prints a line for each variant and seed."""
    del argv
    for seed in _SEEDS.value:
        full: dict[str, Any] = {}
        for variant in _VARIANTS:
            found = _run(variant, seed, full["pruned"]["parameters"] if full else 0)
            full = full or found
            sent = found["communication"]
            line = {
                "variant": variant,
                "seed": int(seed),
                "parameters": found["pruned"]["parameters"],
                "parameter_share": found["pruned"]["parameters"] / found["dense"]["parameters"],
                "flop_share": found["pruned"]["flops"] / found["dense"]["flops"],
                "byte_share": sent["total_bytes"] / sent["dense_equivalent_bytes"],
                "test_accuracy": found["accuracy"]["test"],
                "points": 100 * (found["accuracy"]["test"] - full["accuracy"]["test"]),
            }
            print(json.dumps(line), flush=True)


if __name__ == "__main__":
    cli.run(main)

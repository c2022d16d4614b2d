"""Runs that a comparison needs: each a process of its own, resumable, two at a time."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import os
import pathlib
import subprocess
import sys
from collections.abc import Callable, Sequence

from tff_autoprune.errors import UserError
from tff_autoprune.run_directory import RunDirectory

_ROOT = pathlib.Path(__file__).parents[2]
#: Methods that are given the parameters that `auto` found, so that accuracies compare.
_MATCHED = ("uniform", "unstructured")


@dataclasses.dataclass(frozen=True)
class Plan:
    """What to compare.

    Attributes:
      train_flags: Flags of scripts/train.py that all runs share, `--config` among them.
      methods: Values of pruning.method.
      seeds: Seeds; every method runs once with each.
      out: Folder of the comparison; a run lies in `out/METHOD/seed_N`.
    """

    train_flags: Sequence[str]
    methods: Sequence[str]
    seeds: Sequence[int]
    out: pathlib.Path

    def run_directory(self, method: str, seed: int) -> RunDirectory:
        """Returns the run directory of one run."""
        return RunDirectory(self.out / method / f"seed_{seed}")


def execute(plan: Plan, *, jobs: int, report: Callable[[str], None]) -> None:
    """Runs whatever of the plan is not finished yet.

    Methods that are compared at the size which `auto` found run after it.

    Args:
      plan: What to compare.
      jobs: Runs at the same time. Each gets its share of the cores.
      report: Called with a line of text when a run starts or ends.

    Raises:
      UserError: If a run fails; its last line of output is in the message, the rest in `log.txt`.
    """
    matched = [m for m in plan.methods if m in _MATCHED and "auto" in plan.methods]
    first = [m for m in plan.methods if m not in matched]
    for methods in (first, matched):
        with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
            futures = [
                pool.submit(_run, plan, method, seed, jobs, report)
                for seed in plan.seeds
                for method in methods
            ]
            try:
                for future in concurrent.futures.as_completed(futures):
                    future.result()
            except BaseException:
                for future in futures:
                    future.cancel()
                raise
    # Latency is measured when nothing else runs.
    for seed in plan.seeds:
        for method in plan.methods:
            run = plan.run_directory(method, seed)
            if "benchmark" not in run.read_summary():
                _command(run, 1, "benchmark")


def finished(run: RunDirectory) -> bool:
    """Returns whether a run has been trained to its end."""
    return "rounds_completed" in run.read_summary()


def _run(plan: Plan, method: str, seed: int, jobs: int, report: Callable[[str], None]) -> None:
    run = plan.run_directory(method, seed)
    name = f"{method}, seed {seed}"
    if not finished(run):
        report(f"{name}: training")
        flags = [f"--config.pruning.method={method}", f"--config.seed={seed}", "--resume"]
        if method in _MATCHED and "auto" in plan.methods:
            target = plan.run_directory("auto", seed).read_summary()["pruned"]["parameters"]
            flags.append(f"--config.pruning.target_parameters={target}")
        _command(run, jobs, "train", *plan.train_flags, *flags)
    if "export" not in run.read_summary():
        _command(run, jobs, "export")
    report(f"{name}: finished")


def _command(run: RunDirectory, jobs: int, script: str, *flags: str) -> None:
    run.path.mkdir(parents=True, exist_ok=True)
    threads = str(max(1, (os.cpu_count() or 1) // jobs))
    environment = {
        **os.environ,
        # Runs that share the cores are faster with fewer threads each.
        "TF_NUM_INTRAOP_THREADS": threads,
        "OMP_NUM_THREADS": threads,
    }
    path = _ROOT / "scripts" / f"{script}.py"
    log = run.path / "log.txt"
    with open(log, "a", encoding="utf-8") as output:
        done = subprocess.run(
            [sys.executable, str(path), *flags, f"--run_dir={run.path}"],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            check=False,
        )
    if done.returncode:
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        raise UserError(f"{run.path}: {script} failed: {lines[-1] if lines else ''} (see {log})")

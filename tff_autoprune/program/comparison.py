"""Runs that a comparison needs: each a process of its own, resumable, two at a time."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import os
import pathlib
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any

import ml_collections

from tff_autoprune import config as config_lib
from tff_autoprune.errors import UserError
from tff_autoprune.run_directory import RunDirectory

#: Methods that are given the parameters that `auto` found, so that accuracies compare.
_MATCHED = ("uniform", "unstructured")
# A config file is a module that is imported to be read.
_PARSING = threading.Lock()


@dataclasses.dataclass(frozen=True)
class Plan:
    """What to compare.

    Attributes:
      train_flags: Flags of `train` that all runs share, `--config` among them.
      methods: Values of pruning.method.
      seeds: Seeds; every method runs once with each.
      out: Folder of the comparison; a run lies in `out/METHOD/seed_N`.
      imports: Modules that every command imports first.
    """

    train_flags: Sequence[str]
    methods: Sequence[str]
    seeds: Sequence[int]
    out: pathlib.Path
    imports: Sequence[str] = ()

    def run_directory(self, method: str, seed: int) -> RunDirectory:
        """Returns the run directory of one run."""
        return RunDirectory(self.out / method / f"seed_{seed}")

    def run_flags(self, method: str, seed: int) -> list[str]:
        """Returns the flags of `train` for one run.

        Raises:
          UserError: If the method is compared at the size that `auto` found, and that has not
            finished.
        """
        flags = [*self.train_flags, f"--config.pruning.method={method}", f"--config.seed={seed}"]
        if method in _MATCHED and "auto" in self.methods:
            found = self.run_directory("auto", seed).require("summary").read_summary()
            flags.append(f"--config.pruning.target_parameters={found['pruned']['parameters']}")
        return flags


def execute(plan: Plan, *, jobs: int, report: Callable[[str], None]) -> None:
    """Runs whatever of the plan is not finished yet.

    Methods that are compared at the size which `auto` found run after it.

    Args:
      plan: What to compare.
      jobs: Runs at the same time. Each may use its share of the cores, and no others.
      report: Called with a line of text when a run starts or ends.

    Raises:
      UserError: If a run fails (its last line of output is in the message, the rest in
        `log.txt`), or a finished one was made with other settings.
    """
    processes = _Processes()
    matched = [m for m in plan.methods if m in _MATCHED and "auto" in plan.methods]
    first = [m for m in plan.methods if m not in matched]
    for methods in (first, matched):
        shares: queue.SimpleQueue[Sequence[int]] = queue.SimpleQueue()
        for share in _share_cores(jobs):
            shares.put(share)
        with concurrent.futures.ThreadPoolExecutor(
            jobs, initializer=_keep_to_next, initargs=(shares,)
        ) as pool:
            futures = [
                pool.submit(_run, plan, method, seed, report, processes)
                for seed in plan.seeds
                for method in methods
            ]
            try:
                for future in concurrent.futures.as_completed(futures):
                    future.result()
            except BaseException as error:
                for future in futures:
                    future.cancel()
                # Ctrl-C reaches the runs by itself; they end after their round.
                if isinstance(error, SystemExit):
                    processes.stop()
                raise


def finished(run: RunDirectory) -> bool:
    """Returns whether a run has been trained to its end."""
    completed = run.read_summary().get("rounds_completed")
    return completed is not None and completed == run.read_config()["config"]["federated"]["rounds"]


class _Processes:
    """Runs processes, several at a time, and stops them all together."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen] = set()
        self._stopped = False

    def run(self, command: Sequence[str], **options: Any) -> int:
        """Runs a command to its end; returns its exit code."""
        with self._lock:
            if self._stopped:
                return 1
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, **options)
            self._running.add(process)
        try:
            return process.wait()
        finally:
            self._running.discard(process)

    def stop(self) -> None:
        """Asks all of them to end, and starts no other."""
        with self._lock:
            self._stopped = True
            for process in list(self._running):
                process.terminate()


def _run(
    plan: Plan,
    method: str,
    seed: int,
    report: Callable[[str], None],
    processes: _Processes,
) -> None:
    run = plan.run_directory(method, seed)
    name = f"{method}, seed {seed}"
    flags = plan.run_flags(method, seed)
    imports = [f"--import={module}" for module in plan.imports]
    if finished(run):
        config_lib.check_same(f"--out: {run.path}", _config(flags), run.read_config()["config"])
    else:
        report(f"{name}: training")
        _command(run, processes, "train", *imports, *flags, "--resume")
    if "export" not in run.read_summary():
        _command(run, processes, "export", *imports)
    report(f"{name}: finished")


def _config(flags: Sequence[str]) -> ml_collections.ConfigDict:
    with _PARSING:
        return config_lib.read_arguments(flags)


def _share_cores(jobs: int) -> list[list[int]]:
    """Returns the cores of each job; with fewer cores than jobs, some share one."""
    if not hasattr(os, "sched_getaffinity"):
        return [[]] * jobs
    cores = sorted(os.sched_getaffinity(0))
    return [cores[job::jobs] or [cores[job % len(cores)]] for job in range(jobs)]


def _keep_to_next(shares: queue.SimpleQueue[Sequence[int]]) -> None:
    """Keeps this thread, and the processes that it starts, to the next share of the cores.

    TensorFlow, OpenMP and our runtime all start as many threads as there are cores to run on; their
    environment variables reach only some of these.
    """
    share = shares.get()
    if share:
        os.sched_setaffinity(0, share)


def _command(run: RunDirectory, processes: _Processes, command: str, *flags: str) -> None:
    run.path.mkdir(parents=True, exist_ok=True)
    log = run.path / "log.txt"
    with open(log, "a", encoding="utf-8") as output:
        exit_code = processes.run(
            [sys.executable, "-m", "tff_autoprune", command, *flags, f"--run_dir={run.path}"],
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    if exit_code:
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        raise UserError(f"{run.path}: {command} failed: {lines[-1] if lines else ''} (see {log})")

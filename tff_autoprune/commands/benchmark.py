"""Times the exported models of a run on this host, dense and pruned interleaved.

    tff-autoprune benchmark --run_dir=DIR [--threads=2] [--rounds=30] [--runs=50]

Adds the section `benchmark` to DIR/summary.json: medians, 95 % bootstrap intervals and the
speed-up, for every exported format. For a phone, see `python -m android_bench run --help`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from absl import flags

from tff_autoprune import cli, settings
from tff_autoprune.export import benchmark as export_benchmark

FLAGS = cli.new_flags()
_RUN_DIR = flags.DEFINE_string("run_dir", None, "The run directory.", flag_values=FLAGS)
_ROUNDS = cli.define_override(settings.Benchmark, "rounds", FLAGS)
_RUNS = cli.define_override(settings.Benchmark, "runs", FLAGS)
_THREADS = cli.define_override(settings.Benchmark, "threads", FLAGS)


def _print_result(name: str, figures: Mapping[str, Any]) -> None:
    low, high = figures["speedup_interval95"]
    print(
        f"{name:14s} dense {figures['dense']['latency_ms_median']:.3f} ms"
        f"  pruned {figures['pruned']['latency_ms_median']:.3f} ms"
        f"  speed-up {figures['speedup']:.2f} (95 % {low:.2f} to {high:.2f})",
        flush=True,
    )


def main(argv: Sequence[str]) -> None:
    """Benchmarks; see the module."""
    cli.no_arguments(argv)
    cli.require(_RUN_DIR, "name the run directory, e.g. --run_dir=runs/demo.")
    from tff_autoprune.run_directory import RunDirectory

    export_benchmark.benchmark_run(
        RunDirectory(_RUN_DIR.value), _ROUNDS.value, _RUNS.value, _THREADS.value, _print_result
    )

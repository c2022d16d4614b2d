r"""Compares pruning methods: same data, clients, rounds and seeds for all.

  tff-autoprune compare --config=configs/demo.py --methods=none,paper,uniform,auto --seeds=3 \
      --out=runs/comparison

Writes a run directory for each method and seed, comparison.csv, .md and .html, and plots. What is
finished is not run again: call it again after an interruption. `uniform` and `unstructured` prune
to the parameters that `auto` found with the same seed. Further flags after `--` go to
`tff-autoprune train`, e.g. `-- --config.federated.rounds=50`.
"""

from __future__ import annotations

import pathlib
import sys
from collections.abc import Sequence

from absl import flags

from tff_autoprune import cli, settings
from tff_autoprune import config as config_lib
from tff_autoprune.errors import UserError

FLAGS = cli.new_flags()
_IMPORT = cli.define_import(FLAGS)
_CONFIG = flags.DEFINE_string("config", None, "A file of configs/.", flag_values=FLAGS)
_METHODS = flags.DEFINE_list(
    "methods", ["none", "paper", "uniform", "auto"], "Methods to compare.", flag_values=FLAGS
)
_SEEDS = flags.DEFINE_integer("seeds", 1, "Number of seeds.", lower_bound=1, flag_values=FLAGS)
_FIRST_SEED = flags.DEFINE_integer(
    "first_seed", 0, "The first of them.", lower_bound=0, flag_values=FLAGS
)
_OUT = flags.DEFINE_string("out", None, "Folder for the runs and the result.", flag_values=FLAGS)
_FLEET = flags.DEFINE_string(
    "fleet", "", "As of `tff-autoprune report`: devices to model.", flag_values=FLAGS
)
_JOBS = flags.DEFINE_integer("jobs", 2, "Runs at the same time.", lower_bound=1, flag_values=FLAGS)


def main(argv: Sequence[str]) -> None:
    """Runs what is missing, then writes the comparison."""
    if not _CONFIG.value or not pathlib.Path(_CONFIG.value).is_file():
        raise UserError(f"--config: expected a file of configs/, found {_CONFIG.value!r}.")
    cli.require(_OUT, "name a folder for the runs and the result.")
    for method in _METHODS.value:
        if method not in settings.METHODS:
            raise UserError(
                f"--methods: expected some of {', '.join(settings.METHODS)}, found {method!r}."
            )
    train_flags = [f"--config={pathlib.Path(_CONFIG.value).resolve()}", *argv[1:]]
    for method in _METHODS.value:
        config_lib.read_arguments([*train_flags, f"--config.pruning.method={method}"])
    from tff_autoprune.program import comparison
    from tff_autoprune.report import comparison as side_by_side
    from tff_autoprune.report import write

    plan = comparison.Plan(
        train_flags=train_flags,
        methods=list(dict.fromkeys(_METHODS.value)),
        seeds=range(_FIRST_SEED.value, _FIRST_SEED.value + _SEEDS.value),
        out=pathlib.Path(_OUT.value),
        imports=_IMPORT.value,
    )
    comparison.execute(plan, jobs=_JOBS.value, report=lambda line: print(line, file=sys.stderr))
    runs = [plan.run_directory(m, seed).path for m in plan.methods for seed in plan.seeds]
    page = plan.out / "comparison.html"
    found = write.write_comparison(runs, page, fleet_wanted=_FLEET.value)
    print(f"{side_by_side.headline(found)}\n{page.with_suffix('.md').read_text()}wrote {page}")

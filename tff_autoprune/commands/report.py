"""Writes the report of a run, or compares several.

    tff-autoprune report RUN            writes RUN/report.html and RUN/plots/*.png
    tff-autoprune report RUN RUN ...    the same for each, and a comparison (--out)

The pages need no network and no other file.
"""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

from absl import flags

from tff_autoprune import cli
from tff_autoprune.errors import UserError
from tff_autoprune.run_directory import RunDirectory

FLAGS = cli.new_flags()
cli.define_import(FLAGS)
_RUN_DIR = flags.DEFINE_string(
    "run_dir", None, "The run directory; or name it without a flag.", flag_values=FLAGS
)
_OUT = flags.DEFINE_string(
    "out",
    None,
    "Page of the comparison; comparison.html beside the first run by default.",
    flag_values=FLAGS,
)


def main(argv: Sequence[str]) -> None:
    """Writes reports; see the module."""
    runs = [pathlib.Path(name) for name in argv[1:]]
    if _RUN_DIR.value:
        runs.insert(0, pathlib.Path(_RUN_DIR.value))
    if not runs:
        raise UserError("report: name at least one run directory, e.g. runs/demo.")
    for run in runs:
        RunDirectory(run).require("config", "summary")
    from tff_autoprune.report import write

    for run in runs:
        print(f"wrote {write.write_report(run)}", flush=True)
    if len(runs) > 1:
        out = pathlib.Path(_OUT.value or runs[0].resolve().parent / "comparison.html")
        print(f"wrote {write.write_comparison(runs, out)}")

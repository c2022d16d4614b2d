"""Writes the report of a run, or compares several.

    tff-autoprune report RUN            writes RUN/report.html and RUN/plots/*.png
    tff-autoprune report RUN RUN ...    the same for each, and a comparison (--out)

With `--dense=DENSE_RUN`, a run of the same data and seed with pruning.method=none, the report says
what pruning cost on the same clients. `--fleet` models time and energy on other phones than those
of the configuration, without running again. The pages need no network and no other file.
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
_DENSE = flags.DEFINE_string(
    "dense", None, "A dense run of the same data and seed.", flag_values=FLAGS
)
_PEOPLE = flags.DEFINE_integer(
    "people",
    None,
    "With --dense, on rendered data: compare on so many unseen clients instead of the test's.",
    lower_bound=10,
    flag_values=FLAGS,
)
_FLEET = flags.DEFINE_string(
    "fleet",
    "",
    "Devices to model: a CSV of classes, measurements.csv of android_bench, or FIELD=NUMBER,...",
    flag_values=FLAGS,
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
    if _OUT.value and len(runs) == 1:
        raise UserError("--out: expected several runs to compare, found one.")
    if _PEOPLE.value and not _DENSE.value:
        raise UserError("--people: give --dense as well, the run to compare with.")
    dense = pathlib.Path(_DENSE.value) if _DENSE.value else None
    for run in (*runs, dense) if dense else runs:
        RunDirectory(run).require("config", "summary")
    from tff_autoprune.report import comparison, headline, write

    for run in runs:
        reported = write.write_report(
            run, dense_dir=dense, people=_PEOPLE.value, fleet_wanted=_FLEET.value
        )
        for line in headline.lines(reported):
            print(line)
        print(f"wrote {reported.directory.report}", flush=True)
    if len(runs) > 1:
        out = pathlib.Path(_OUT.value or runs[0].resolve().parent / "comparison.html")
        found = write.write_comparison(runs, out, fleet_wanted=_FLEET.value)
        print(f"{comparison.headline(found)}\nwrote {out}")

"""Renders the page of a comparison."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Optional

from tff_autoprune.report import comparison, comparison_charts, fleet, page
from tff_autoprune.report.comparison import Contender
from tff_autoprune.report.vega import Chart


def render(
    found: Sequence[Contender],
    latencies: Mapping[str, Mapping[str, Any]],
    device_fleet: Optional[fleet.Fleet],
    drawn: Optional[Mapping[str, Chart]] = None,
) -> str:
    """Returns a page that shows contenders side by side.

    Args:
      found: The contenders.
      latencies: By label, all measured in one session; empty if they were not measured.
      device_fleet: Whose time is modelled; None if it is not.
      drawn: The charts, if they exist already.
    """
    drawn = comparison_charts.of(found, device_fleet) if drawn is None else drawn
    count = sum(len(one.runs) for one in found)
    return page.render(
        "comparison.html",
        drawn,
        title=f"{count} runs · tff_autoprune",
        count=count,
        data=found[0].runs[0].config["data"]["name"],
        found=found,
        headline=comparison.headline(found),
        rows=comparison.rows(found, latencies),
        paired=comparison.same_seeds(found),
        against_dense=any("against_dense" in run.summary for one in found for run in one.runs),
        interleaved=bool(latencies),
        fleet_source=device_fleet.source if "accuracy_cost" in drawn and device_fleet else "",
        differences=comparison.differences(found),
    )

"""Charts as Vega-Lite specifications: one definition, drawn by the page and as PNG files.

A colour is the name of a CSS variable of the page, "var(--accent)". The page's script puts in the
value that the current theme gives it, and the width that the window leaves; `png` takes the light
theme and a fixed width. Dense is gray and pruned is the accent in every chart.
"""

from __future__ import annotations

import dataclasses
import functools
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any, Optional

import numpy as np
import vl_convert

DENSE = "var(--dense)"
PRUNED = "var(--accent)"
TAKEN_BACK = "var(--warn)"
SERIES = [f"var(--series-{index})" for index in range(6)]
DASHES = [[1, 0], [6, 3], [2, 3], [8, 3, 2, 3], [12, 4], [1, 5]]
STYLE = pathlib.Path(__file__).parent / "templates" / "style.css"

Spec = dict[str, Any]
_WIDTH = 760
_SCALE = 2.0
# What the labels of a vertical axis take beside the plot, in a column of plots.
_LABELS = 60
_VARIABLE = re.compile(r"var\((--[\w-]+)\)")


@dataclasses.dataclass(frozen=True)
class Chart:
    """A chart and what it says to those who cannot see it.

    Attributes:
      name: Its id on the page, and the name of its PNG file.
      spec: For Vega-Lite, without widths.
      description: Its message in words.
    """

    name: str
    spec: Spec
    description: str


def chart(name: str, description: str, *panels: Spec, **overrides: Any) -> Chart:
    """Returns a chart of one plot or of several, one above the other.

    Args:
      name: Its id.
      description: Its message in words.
      *panels: Specifications of the plots.
      **overrides: Top-level properties, e.g. `datasets`.
    """
    body = {"vconcat": list(panels), "spacing": 14} if len(panels) > 1 else dict(panels[0])
    if len(panels) == 1:
        body["autosize"] = {"type": "fit-x", "contains": "padding"}
    spec = {
        "$schema": "https://vega.github.io/schema/vega-lite/v6.json",
        "background": "var(--card)",
        "padding": 4,
        "config": _CONFIG,
        **body,
        **overrides,
    }
    return Chart(name, spec, description)


_CONFIG = {
    "font": "var(--font)",
    "view": {"stroke": None},
    "axis": {
        "domain": False,
        "ticks": False,
        "gridColor": "var(--grid)",
        "labelColor": "var(--muted)",
        "titleColor": "var(--muted)",
        "titleFontWeight": "normal",
        "labelFontSize": 12,
        "titleFontSize": 13,
        "labelPadding": 6,
        "labelLimit": 240,
    },
    "axisQuantitative": {"tickCount": 5},
    "axisY": {"minExtent": 46},
    "title": {"anchor": "start", "color": "var(--text)", "fontSize": 13, "frame": "group"},
    "legend": {
        "orient": "top",
        "title": None,
        "labelColor": "var(--text)",
        "labelFontSize": 13,
        "symbolSize": 120,
        "symbolStrokeWidth": 2.5,
        "labelLimit": 220,
    },
    "line": {"strokeWidth": 2.5},
    "area": {"color": "var(--accent-soft)"},
}


def quantity(field: str, title: str = "", *, scale: Optional[Spec] = None, **axis: Any) -> Spec:
    """Returns the encoding of a number along an axis."""
    return {
        "field": field,
        "type": "quantitative",
        "title": title or None,
        "scale": scale if scale and "type" in scale else {"zero": False, **(scale or {})},
        "axis": axis,
    }


def follow(name: str, x: Spec, tooltip: Sequence[Spec], data: Spec) -> Spec:
    """Returns a layer that shows all figures at the pointer's place, or the finger's.

    Args:
      name: Of the selection; another in every plot.
      x: The encoding along which the nearest place is looked for.
      tooltip: The figures.
      data: Rows with the fields of both.
    """
    select = {"type": "point", "fields": [x["field"]], "nearest": True, "on": "pointerover"}
    return {
        "data": data,
        "params": [{"name": name, "select": {**select, "clear": "pointerout"}}],
        "mark": {"type": "rule", "color": "var(--muted)", "strokeWidth": 1},
        "encoding": {
            "x": x,
            "opacity": {"condition": {"param": name, "empty": False, "value": 0.7}, "value": 0},
            "tooltip": list(tooltip),
        },
    }


def shown(field: str, title: str, number: str = "") -> Spec:
    """Returns a line of a tooltip; `number` is a format of d3, e.g. ".1%"."""
    kind = {"type": "quantitative", "format": number} if number else {"type": "nominal"}
    return {"field": field, "title": title, **kind}


def plain(values: Any) -> list[Any]:
    """Returns JSON numbers, with None for what is missing, at a precision that a plot can show."""
    array = np.asarray(values, float)
    return [float(f"{value:.6g}") if np.isfinite(value) else None for value in array]


def rows(**columns: Sequence[Any]) -> list[Spec]:
    """Returns columns of equal length as rows."""
    return [dict(zip(columns, values)) for values in zip(*columns.values())]


def png(drawn: Chart) -> bytes:
    """Draws a chart on white.

    Args:
      drawn: The chart.

    Returns:
      The content of a PNG file.
    """
    spec = _themed(drawn.spec, _light_colours())
    spec["background"] = "white"
    if "vconcat" in spec:
        for panel in spec["vconcat"]:
            panel["width"] = _WIDTH - _LABELS
    else:
        spec["width"] = _WIDTH
    spec["config"]["legend"]["columns"] = 4
    spec["config"]["font"] = "Roboto, sans-serif"
    return vl_convert.vegalite_to_png(spec, scale=_SCALE)


@functools.cache
def _light_colours() -> Mapping[str, str]:
    first_rule = STYLE.read_text(encoding="utf-8").partition("}")[0]
    return dict(re.findall(r"(--[\w-]+):\s*([^;]+);", first_rule))


def _themed(value: Any, colours: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        match = _VARIABLE.fullmatch(value)
        return colours[match.group(1)] if match else value
    if isinstance(value, list):
        return [_themed(item, colours) for item in value]
    if isinstance(value, dict):
        return {key: _themed(item, colours) for key, item in value.items()}
    return value

"""Draws a network: each layer a bar as wide as its channels, what pruning took left pale.

Layers lie in rows by their distance from the input; a row's order follows the rows above it, so
that few edges cross. Colours are classes that the page's style sheet fills in.
"""

from __future__ import annotations

import dataclasses
import html
from collections.abc import Sequence

from tff_autoprune.report.architecture import Node

_ROW_HEIGHT = 84
_BAR_HEIGHT = 22
_TEXT_HEIGHT = 34
_COLUMN_GAP = 28
_TEXT_WIDTH = 132
_PASS_WIDTH = 18
_MARGIN = 12
# One column of bars this wide reads well from a phone to a wide page.
_WIDEST_BAR = 300
_SWEEPS = 4


@dataclasses.dataclass
class _Place:
    """A layer, or the point where an edge passes a row, and where it is drawn."""

    row: int
    width: float
    sources: list[str]
    passing: bool = False
    x: float = 0.0


def draw(nodes: Sequence[Node]) -> str:
    """Returns an inline SVG of the graph; "" if there is nothing to draw."""
    if not nodes:
        return ""
    widest = max(max(node.before for node in nodes[1:] or nodes), 1)
    per_channel = _WIDEST_BAR / widest
    rows = _rows(nodes)
    crowd = max(sum(1 for row in rows.values() if row == r) for r in set(rows.values()))
    if crowd > 1:
        per_channel /= crowd / 1.5
    places = _places(nodes, rows, per_channel)
    order = _ordered_rows(places)
    width = max(_row_width(places, row) for row in order) + 2 * _MARGIN
    for row in order:
        x = (width - _row_width(places, row)) / 2
        for name in row:
            places[name].x = x + places[name].width / 2
            x += places[name].width + _COLUMN_GAP
    height = _ROW_HEIGHT * len(order) + _MARGIN
    edges = [_edge(places, name) for name in places]
    boxes = [_box(node, places[node.name], per_channel) for node in nodes]
    changed = [n for n in nodes if n.before != n.after]
    label = f"Network of {len(nodes)} layers; pruning narrowed {len(changed)} of them."
    return (
        f'<svg class="architecture" role="img" aria-label="{html.escape(label)}"'
        f' viewBox="0 0 {width:.0f} {height}" width="{width:.0f}" height="{height}">'
        + "".join(edges)
        + "".join(boxes)
        + "</svg>"
    )


def _rows(nodes: Sequence[Node]) -> dict[str, int]:
    rows: dict[str, int] = {}
    for node in nodes:
        rows[node.name] = 1 + max((rows[source] for source in node.inputs), default=-1)
    return rows


def _places(nodes: Sequence[Node], rows: dict[str, int], per_channel: float) -> dict[str, _Place]:
    """Returns places of layers and, for edges over several rows, of the rows they pass."""
    places: dict[str, _Place] = {}
    for node in nodes:
        sources = []
        for source in node.inputs:
            above = source
            for row in range(rows[source] + 1, rows[node.name]):
                name = f"{source}>{node.name}>{row}"
                places[name] = _Place(row, _PASS_WIDTH, [above], passing=True)
                above = name
            sources.append(above)
        width = max(_bar_width(node.before, per_channel), _TEXT_WIDTH)
        places[node.name] = _Place(rows[node.name], width, sources)
    return places


def _bar_width(channels: int, per_channel: float) -> float:
    return max(channels * per_channel, 2.0)


def _ordered_rows(places: dict[str, _Place]) -> list[list[str]]:
    """Orders each row by the mean position of its neighbours in the row above, then below."""
    rows: list[list[str]] = [[] for _ in range(1 + max(p.row for p in places.values()))]
    for name, place in places.items():
        rows[place.row].append(name)
    targets: dict[str, list[str]] = {name: [] for name in places}
    for name, place in places.items():
        for source in place.sources:
            targets[source].append(name)
    for sweep in range(_SWEEPS):
        downward = sweep % 2 == 0
        for index in range(len(rows)) if downward else reversed(range(len(rows))):
            position = {name: (i + 0.5) / len(row) for row in rows for i, name in enumerate(row)}
            row = rows[index]

            def key(
                name: str, position: dict[str, float] = position, downward: bool = downward
            ) -> float:
                near = places[name].sources if downward else targets[name]
                return sum(map(position.get, near)) / len(near) if near else position[name]

            row.sort(key=key)
    return rows


def _row_width(places: dict[str, _Place], row: Sequence[str]) -> float:
    return sum(places[name].width for name in row) + _COLUMN_GAP * (len(row) - 1)


def _top(place: _Place) -> float:
    return _MARGIN + place.row * _ROW_HEIGHT


def _bar_top(place: _Place) -> float:
    return _top(place) + _TEXT_HEIGHT


def _edge(places: dict[str, _Place], name: str) -> str:
    """Returns the curves into a place; where an edge only passes, it goes on straight."""
    place = places[name]
    end = _bar_top(place) if place.passing else _top(place)
    path = ""
    for source in place.sources:
        x, y = places[source].x, _bar_top(places[source]) + _BAR_HEIGHT
        middle = (y + end) / 2
        path += f"M{x:.1f} {y}C{x:.1f} {middle:.1f} {place.x:.1f} {middle:.1f} {place.x:.1f} {end}"
    if place.passing:
        path += f"v{_BAR_HEIGHT}"
    return f'<path class="edge" d="{path}"/>' if path else ""


def _box(node: Node, place: _Place, per_channel: float) -> str:
    before = _bar_width(node.before, per_channel)
    after = _bar_width(node.after, per_channel)
    top = _bar_top(place)
    pruned = node.after != node.before
    count = f"{node.before} → {node.after}" if pruned else f"{node.before}"
    rank = f", rank {node.rank}" if node.rank else ""
    follows = f", then {', '.join(node.followers)}" if node.followers else ""
    title = f"{node.name}: {node.kind}, {count} channels{rank}{follows}"
    kept = "kept" if pruned or node.prunable else "fixed"
    return (
        f"<g><title>{html.escape(title)}</title>"
        f'<text class="name" x="{place.x:.1f}" y="{top - 20:.1f}">{html.escape(node.name)}</text>'
        f'<text class="kind" x="{place.x:.1f}" y="{top - 6:.1f}">{html.escape(node.kind)} ·'
        f' <tspan class="count">{count}{rank}</tspan></text>'
        f'<rect class="gone" x="{place.x - before / 2:.1f}" y="{top}" width="{before:.1f}"'
        f' height="{_BAR_HEIGHT}" rx="3"/>'
        f'<rect class="{kept}" x="{place.x - after / 2:.1f}" y="{top}" width="{after:.1f}"'
        f' height="{_BAR_HEIGHT}" rx="3"/></g>'
    )

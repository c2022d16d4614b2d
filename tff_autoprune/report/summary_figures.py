"""Figures of summary.json, each shown with its exact value and where it stands."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Optional

import markupsafe


class SummaryFigures:
    """Looks up figures by a path such as "export/pruned.float32/bytes"."""

    def __init__(self, summary: Mapping[str, Any], run: str) -> None:
        """Reads from the summary of the run of that name; the summary may lack any part."""
        self._summary = summary
        self._run = run

    def at(self, path: str) -> Any:
        """Returns the value at a path, or None if there is none."""
        value: Any = self._summary
        for step in path.split("/"):
            if not isinstance(value, Mapping) or step not in value:
                return None
            value = value[step]
        return value

    def show(self, path: str, formatter: Callable[[Optional[float]], str]) -> markupsafe.Markup:
        """Returns a `<data>` element: rounded for people, exact and traceable for programs."""
        value = self.at(path)
        if value is None:
            return markupsafe.escape("–")
        return markupsafe.Markup('<data value="{}" data-run="{}" data-path="{}">{}</data>').format(
            value, self._run, path, formatter(value)
        )

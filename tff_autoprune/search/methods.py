"""From the section `pruning` of a configuration to a pruning method."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tff_autoprune.errors import UserError
from tff_autoprune.search.auto import AutoPruning
from tff_autoprune.search.base import PruningMethod
from tff_autoprune.search.none import NoPruning
from tff_autoprune.search.paper import PaperPruning
from tff_autoprune.search.uniform import UniformPruning
from tff_autoprune.search.unstructured import UnstructuredPruning

_METHODS: dict[str, Callable[[Any], PruningMethod]] = {
    "none": lambda settings: NoPruning(),
    "paper": lambda settings: PaperPruning(
        k=settings.paper_k, rounds=settings.paper_rounds, patience=settings.paper_patience
    ),
    "uniform": lambda settings: UniformPruning(
        fraction=settings.uniform_fraction,
        round_num=settings.uniform_round,
        target_parameters=settings.target_parameters,
    ),
    "unstructured": lambda settings: UnstructuredPruning(settings.target_parameters),
    "auto": AutoPruning.from_settings,
}


def names() -> tuple[str, ...]:
    """Returns the names of all methods."""
    return tuple(_METHODS)


def create(name: str, settings: Any) -> PruningMethod:
    """Creates a pruning method.

    Args:
      name: One of `names()`.
      settings: The section `pruning` of a configuration.

    Returns:
      The method, without state.

    Raises:
      UserError: If there is no such method, or a setting that it needs is missing.
    """
    if name not in _METHODS:
        raise UserError(f"pruning.method: expected one of {', '.join(_METHODS)}, found {name!r}.")
    return _METHODS[name](settings)

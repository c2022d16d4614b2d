"""From the section `pruning` of a configuration to a pruning method."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Optional

from tff_autoprune.errors import UserError
from tff_autoprune.search import importance
from tff_autoprune.search.auto import AutoPruning
from tff_autoprune.search.base import PruningMethod
from tff_autoprune.search.budget import Budget
from tff_autoprune.search.energy import Energy
from tff_autoprune.search.none import NoPruning
from tff_autoprune.search.paper import PaperPruning
from tff_autoprune.search.uniform import UniformPruning
from tff_autoprune.search.unstructured import UnstructuredPruning

#: What a filter can be worth, by the value of `pruning.importance`.
IMPORTANCES: dict[str, Callable[[], importance.Importance]] = {
    "energy": Energy,
    "l1": importance.L1,
    "l2": importance.L2,
    "geometric_median": importance.GeometricMedian,
    "batch_norm": importance.BatchNormScale,
    "random": importance.Random,
}


def _importance(settings: Any) -> Optional[importance.Importance]:
    return None if settings.importance is None else IMPORTANCES[settings.importance]()


_METHODS: dict[str, Callable[[Any, Optional[Budget]], PruningMethod]] = {
    "none": lambda settings, budget: NoPruning(),
    "paper": lambda settings, budget: PaperPruning(
        k=settings.paper_k, rounds=settings.paper_rounds, patience=settings.paper_patience
    ),
    "uniform": lambda settings, budget: UniformPruning(
        fraction=settings.uniform_fraction,
        round_num=settings.uniform_round,
        target_parameters=settings.target_parameters,
        factorize=settings.uniform_factorize,
        score=_importance(settings),
    ),
    "unstructured": lambda settings, budget: UnstructuredPruning(settings.target_parameters),
    "auto": lambda settings, budget: AutoPruning(
        tolerance=1.0 if settings.tolerance is None else settings.tolerance,
        budget=budget,
        factorize=settings.factorize,
        importance=_importance(settings),
        round_to=settings.round_to,
        penalty=settings.penalty,
    ),
}


def names() -> tuple[str, ...]:
    """Returns the names of all methods."""
    return tuple(_METHODS)


def create(name: str, settings: Any, budget: Optional[Budget] = None) -> PruningMethod:
    """Creates a pruning method.

    Args:
      name: One of `names()`.
      settings: The section `pruning` of a configuration.
      budget: What the pruned model may cost, for methods that follow one.

    Returns:
      The method, without state.

    Raises:
      UserError: If there is no such method, or a setting that it needs is missing.
    """
    if name not in _METHODS:
        raise UserError(f"pruning.method: expected one of {', '.join(_METHODS)}, found {name!r}.")
    return _METHODS[name](settings, budget)

"""From a configuration to a pruning method, with what it may measure.

The search knows structures only. How long a network takes on this host or on a phone is told to it
here, as a budget that measures.
"""

from __future__ import annotations

from typing import Any, Optional

import ml_collections

from tff_autoprune.program import device_profile, host_latency
from tff_autoprune.search import budget as budget_lib
from tff_autoprune.search import methods
from tff_autoprune.search.base import PruningMethod


def create(config: ml_collections.ConfigDict) -> PruningMethod:
    """Creates the pruning method that a configuration asks for.

    Args:
      config: A configuration.

    Raises:
      UserError: If there is no such method, or a setting that it needs is missing or wrong.
    """
    return methods.create(config.pruning.method, config.pruning, budget=_budget(config.pruning))


def _budget(settings: Any) -> Optional[budget_lib.Budget]:
    for what in ("parameters", "flops", "bytes"):
        if settings[f"target_{what}"] is not None:
            return budget_lib.counted(what, settings[f"target_{what}"])
    if settings.target_latency_ms is None:
        return None
    if settings.latency_profile is None:
        return host_latency.budget(settings.target_latency_ms)
    return device_profile.budget(settings.target_latency_ms, settings.latency_profile)

"""Surgery on any Keras model: dependency groups, cost, removal, factorization.

from tff_autoprune import surgery

groups = surgery.find_filter_groups(model)
smaller = surgery.remove_filters(model, {"conv2d": [0, 3, 5]})
narrow = surgery.factorize(model, {"conv2d": surgery.Factorization("spatial", rank=12)})
"""

from __future__ import annotations

import importlib
from typing import Any

# Where each public name lives. Looked up when first used, so that importing this package (command
# line tools do, for the names of the methods) does not import TensorFlow.
_PUBLIC = {
    "FilterGroup": "groups",
    "Member": "groups",
    "find_filter_groups": "network",
    "groups_table": "groups",
    "Role": "roles",
    "FixedBoundaryWarning": "network",
    "Network": "network",
    "Removal": "removal",
    "difference": "equivalence",
    "plan_removal": "removal",
    "remove_filters": "removal",
    "Candidate": "factor_layers",
    "Factorization": "factor_layers",
    "FactorizationPlan": "factorization",
    "candidates": "factor_layers",
    "factorize": "factorization",
    "lost_energy": "decomposition",
    "Branch": "branches",
    "BranchRemoval": "branches",
    "drop_branch": "branches",
    "plan_branch_removal": "branches",
    "residual_branches": "branches",
    "MergePlan": "recomposition",
    "merge": "recomposition",
    "plan_merge": "recomposition",
    "max_rank": "factor_layers",
    "refusal": "factor_layers",
    "plan_factorization": "factorization",
    "singular_values": "factor_layers",
    "register_activation": "layer_rules",
    "register_layer": "layer_rules",
    "register_operator": "layer_rules",
    "cost": "",
}

__all__ = sorted(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = _PUBLIC[name]
    if not module:
        return importlib.import_module(f"{__name__}.{name}")
    return getattr(importlib.import_module(f"{__name__}.{module}"), name)


def __dir__() -> list[str]:
    return __all__

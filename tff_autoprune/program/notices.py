"""What a configuration asks for and does not get: said in a line each, before training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tff_autoprune import config as config_lib
from tff_autoprune.surgery.cost import Cost

# The field of a section that chooses who reads the others.
_CHOOSES = {"aggregator": "name", "pruning": "method"}
_BUDGETS = ("parameters", "flops", "bytes")


def of(config: Mapping[str, Any], *, train_clients: int, dense: Cost) -> list[str]:
    """Returns a line for every field that is set and has no effect.

    Args:
      config: A valid configuration.
      train_clients: How many training clients there are.
      dense: Of the model before training.
    """
    lines = []
    wanted = config["federated"]["clients_per_round"]
    if wanted > train_clients:
        lines.append(
            f"federated.clients_per_round: {wanted} is more than the {train_clients} training"
            " clients; every round takes them all."
        )
    for section, choice in _CHOOSES.items():
        chosen = config[section][choice]
        for name, option in config_lib.SCHEMA[section].items():
            value = config[section][name]
            if option.only and chosen not in option.only and value != option.default:
                lines.append(
                    f"{option.name}: {value!r} is not read with {section}.{choice}={chosen}, only"
                    f" with {', '.join(option.only)}."
                )
            elif name in {f"target_{what}" for what in _BUDGETS} and value is not None:
                has = getattr(dense, name[len("target_") :])
                if value >= has:
                    lines.append(
                        f"{option.name}: {value:,} is not less than the {has:,} of the model, so"
                        " nothing has to be removed."
                    )
    return lines

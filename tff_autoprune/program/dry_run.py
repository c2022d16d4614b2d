"""What a run would do, said in seconds instead of after hours."""

from __future__ import annotations

import time

import ml_collections
import numpy as np
import pandas as pd

from tff_autoprune import config as config_lib
from tff_autoprune import data, federated, surgery
from tff_autoprune.program import cohort, notices, pruning_methods


def describe(config: ml_collections.ConfigDict) -> str:
    """Describes the run that a configuration asks for.

    Args:
      config: The configuration.

    Returns:
      Text: clients and their examples, the model layer by layer, its filter groups, bytes of a
      round, epsilon with aggregator.name=dp, and an estimate of the time, from one round that is
      tried and thrown away.

    Raises:
      UserError: If the configuration or the data is wrong.
    """
    config_lib.validate(config)
    loaded = config_lib.load_data(config)
    model = config_lib.build_model(config, loaded.spec)
    network = surgery.Network(model, config.pruning.ignore_layers)
    pruning_methods.create(config).initialize(network)  # Says what is wrong.
    sizes, groups, prunable = network.cost, network.groups, network.prunable
    settings = config.federated
    per_round = 2 * sizes.bytes * settings.clients_per_round
    with pd.option_context("display.width", 120, "display.max_columns", None):
        parts = [
            _describe_data(config, loaded),
            f"Model {config.model.name}: {sizes.parameters:,} parameters,"
            f" {sizes.flops / 1e6:.2f} MFLOP, {sizes.bytes:,} bytes\n{sizes.table.to_string()}",
            f"Filter groups: {len(prunable)} of {len(groups)} can be pruned\n"
            f"{surgery.groups_table(groups).to_string(index=False)}",
            f"Pruning: {config.pruning.method} may narrow"
            f" {', '.join(group.name for group in prunable) or 'nothing'}",
            f"Traffic with the dense model: {per_round / 1e6:.2f} MB a round,"
            f" {per_round * settings.rounds / 1e6:.1f} MB in {settings.rounds} rounds",
            *_describe_privacy(config, loaded),
            _estimate(config, loaded, model),
        ]
    parts += notices.of(config, train_clients=len(loaded.train.client_ids), dense=sizes)
    return "\n\n".join(parts)


def _describe_data(config: ml_collections.ConfigDict, loaded: data.FederatedData) -> str:
    rows = {}
    for name in ("train", "validation", "test"):
        table = data.statistics(getattr(loaded, name))
        examples = table["examples"]
        rows[name] = {
            "clients": len(table),
            "examples": int(examples.sum()),
            "per client (min)": int(examples.min()),
            "(median)": float(examples.median()),
            "(max)": int(examples.max()),
            "labels seen by a client (median)": float(table["labels"].median()),
        }
    spec = loaded.spec
    return (
        f"Data {config.data.name}: images {spec.image_shape}, {spec.num_classes} classes\n"
        f"{pd.DataFrame(rows).T.to_string()}"
    )


def _describe_privacy(config: ml_collections.ConfigDict, loaded: data.FederatedData) -> list[str]:
    settings = federated.Settings.from_config(config).aggregator
    if settings.name != "dp":
        return []
    epsilon = federated.privacy.epsilon(
        settings, rounds=config.federated.rounds, num_clients=len(loaded.train.client_ids)
    )
    return [
        f"Privacy: epsilon {epsilon:.2f} at delta {settings.delta:g} after"
        f" {config.federated.rounds} rounds, for the clients that train"
    ]


def _estimate(config: ml_collections.ConfigDict, loaded: data.FederatedData, model) -> str:
    """Times one round; the first, which also traces, is not counted."""
    settings = config.federated
    task = federated.Task.of_data(model, loaded.train, ignored_label=loaded.spec.ignored_label)
    engine = federated.Engine(model, federated.Settings.from_config(config), task=task)
    state = engine.initialize()
    seconds = []
    for round_num in (1, 2):
        sampled = cohort.sample(
            loaded.train.client_ids,
            count=settings.clients_per_round,
            dropout_probability=0.0,
            seed=config.seed,
            round_num=round_num,
        )
        datasets = cohort.training_datasets(
            loaded.train, sampled.sampled, config, round_num=round_num
        )
        started = time.monotonic()
        state = engine.next(state, datasets).state
        seconds.append(time.monotonic() - started)
    total = seconds[0] + np.multiply(seconds[1], settings.rounds - 1)
    return (
        f"Time: about {seconds[1]:.2f} s a round, {total / 60:.1f} minutes in all, if nothing were"
        " pruned"
    )

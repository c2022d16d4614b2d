"""Federated fine-tuning of a finished model for int8.

A few rounds on the clients of training, with the settings of training and a lower learning rate.
The clients' model rounds as int8 will (`fake_quantization`); the server keeps plain weights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from tff_autoprune import federated
from tff_autoprune.errors import UserError
from tff_autoprune.export import fake_quantization

if TYPE_CHECKING:
    from tff_autoprune.data import FederatedData

# Training has converged; larger steps would undo it rather than adapt it to the grid of int8.
_LEARNING_RATE_SCALE = 0.1


def fine_tune(
    model: tf.keras.Model,
    data: FederatedData,
    config: Mapping[str, Any],
    settings: federated.Settings,
    calibration: np.ndarray,
    on_round: Callable[[int, Mapping[str, float]], None] = lambda round_num, metrics: None,
) -> tf.keras.Model:
    """Trains a model for int8; the federated runtime must have been started.

    Args:
      model: The finished model; it is not changed.
      data: The data set, with the pixel options of training.
      config: The run's configuration; `export.qat_rounds` says how many rounds.
      settings: Of the federated engine, as in training.
      calibration: float32 [n, h, w, c], images as the model takes them, of validation clients.
      on_round: Called with the number of each round, from 1, and its training metrics.

    Returns:
      A plain model of the same architecture.

    Raises:
      UserError: If tfmot cannot quantize the model, or the run trained with differential privacy.
    """
    if config["aggregator"]["name"] == "dp":
        raise UserError(
            "export.qat_rounds: its rounds would spend privacy that the run's epsilon does not"
            " count; leave it at 0 with aggregator.name=dp."
        )
    options, seed = config["federated"], config["seed"]
    copy = fake_quantization.fake_quantized(model, calibration)
    task = federated.Task.of_data(model, data.train, ignored_label=data.spec.ignored_label)
    engine = federated.Engine(copy, settings, task=task)
    state = engine.set_learning_rate_scale(engine.initialize(), _LEARNING_RATE_SCALE)
    for index in range(1, config["export"]["qat_rounds"] + 1):
        # Rounds are counted on from training, so that clients and orders are drawn afresh.
        round_num = options["rounds"] + index
        sampled = federated.sample_clients(
            data.train.client_ids,
            count=options["clients_per_round"],
            seed=seed,
            round_num=round_num,
        )
        result = engine.next(
            state,
            [
                federated.client_dataset(
                    data.train,
                    client_id,
                    batch_size=options["batch_size"],
                    epochs=options["local_epochs"],
                    seed=seed,
                    round_num=round_num,
                    max_examples=options["max_examples"],
                )
                for client_id in sampled
            ],
            [
                federated.client_seed(client_id, seed=seed, round_num=round_num)
                for client_id in sampled
            ],
        )
        state = result.state
        on_round(index, result.metrics)
    return fake_quantization.without_fake_quantization(engine.keras_model(state), model)

"""What a run asks of its clients: training operations, examples, memory.

Counted from metrics.csv and the models, not measured on a device. What held-out clients do to
compare models is not in it: they only run them forward.
"""

from __future__ import annotations

import math
from typing import Any, Optional

import numpy as np
import tensorflow as tf

from tff_autoprune.report.run_data import RunData
from tff_autoprune.surgery import cost

#: Training costs the forward pass once, and about twice that for the two products of the backward
#: pass (gradients of the weights and of what the layer reads).
TRAINING_PASSES = 3
#: Arrays of the weights' size that an optimizer keeps.
_SLOTS = {"sgd": 0, "momentum": 1, "adam": 2, "adamw": 2, "yogi": 2}


def of(run: RunData) -> Optional[dict[str, Any]]:
    """Returns what training cost the clients, or None if the run has no counts of examples.

    Returns:
      The section "clients" of summary.json: "training_flops" and "dense_training_flops" of all
      rounds, "examples" (each as often as it was trained on), and of these the mean of a client in
      a round: "flops_per_client_round", "dense_flops_per_client_round",
      "examples_per_client_round".
    """
    if run.metrics is None or "examples" not in run.metrics or "dense" not in run.summary:
        return None
    visits = float((run.metrics["clients"] - run.metrics["failed_clients"]).sum())
    examples = float(run.metrics["examples"].sum())
    dense = TRAINING_PASSES * run.summary["dense"]["flops"] * examples
    spent = float(training_flops(run).sum())
    return {
        "training_flops": spent,
        "dense_training_flops": dense,
        "examples": int(examples),
        "flops_per_client_round": spent / max(visits, 1),
        "dense_flops_per_client_round": dense / max(visits, 1),
        "examples_per_client_round": examples / max(visits, 1),
    }


def training_flops(run: RunData) -> np.ndarray:
    """Returns the training operations of all clients in each round, float64 [rounds]."""
    spent = run.metrics["flops"] * run.metrics["examples"]
    if "race_flops" in run.metrics:  # What trained beside the networks that were kept.
        spent = spent + run.metrics["race_flops"]
    return TRAINING_PASSES * spent.to_numpy(float)


def memory(run: RunData, model: tf.keras.Model) -> int:
    """Estimates the bytes that a client holds at once while it trains a model.

    Weights, their gradients and the optimizer's arrays, and for one batch the images and every
    layer's output, which the backward pass reads. Frameworks add their own, and may drop what they
    can compute again.

    Args:
      run: The run.
      model: Its model.
    """
    settings = run.config["federated"]
    counted = cost.of(model)
    halved = settings.get("client_precision") == "bfloat16"
    images = sum(math.prod(tensor.shape[1:]) * tensor.dtype.size for tensor in model.inputs)
    activations = images + int(counted.table["activation_bytes"].sum())
    activations //= 2 if halved else 1
    weights = counted.bytes * (2 + _SLOTS[settings["client_optimizer"]])
    return weights + settings["batch_size"] * activations

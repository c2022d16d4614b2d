"""Optimizers and learning-rate schedules by name."""

from __future__ import annotations

import math
from collections.abc import Callable

import tensorflow as tf
import tensorflow_federated as tff

from tff_autoprune.federated.settings import Settings

# What Keras has. A client's optimizer starts anew in every round.
_CLIENT_BETA_2 = 0.999
# Reddi et al., "Adaptive Federated Optimization" (arXiv 2003.00295), section 5 and appendix. Adam
# and Yogi explode while the second moments are still near zero with a smaller epsilon. With a
# beta_2 of 0.999 one cohort's outlier makes a step three times as long as any other round, and
# what the second moments remember after a cut is the network before it.
_SERVER_MOMENTS = {"beta_2": 0.99, "epsilon": 1e-3}
_MOMENTUM = 0.9
# A schedule never reaches 0: a client that learns nothing would cost as much as one that does.
_FINAL_FRACTION = 1e-3

_BUILDERS: dict[str, Callable[..., tff.learning.optimizers.Optimizer]] = {
    "sgd": lambda rate, **_: tff.learning.optimizers.build_sgdm(rate),
    "momentum": lambda rate, **_: tff.learning.optimizers.build_sgdm(rate, momentum=_MOMENTUM),
    "adam": tff.learning.optimizers.build_adam,
    "adamw": tff.learning.optimizers.build_adamw,
    "yogi": tff.learning.optimizers.build_yogi,
}

# Their steps do not grow with the gradients.
ADAPTIVE = ("adam", "adamw", "yogi")


def is_adaptive(settings: Settings) -> bool:
    """Returns whether the optimizer whose learning rate is scaled is adaptive.

    That is the server's if it is adaptive, else the clients'; see `Engine.set_learning_rate_scale`.
    Of optimizers of one's own nobody knows.
    """
    return has_adaptive_server(settings) or (
        settings.tff_client_optimizer is None and settings.client_optimizer in ADAPTIVE
    )


def has_adaptive_server(settings: Settings) -> bool:
    """Returns whether the server's optimizer is adaptive."""
    return settings.tff_server_optimizer is None and settings.server_optimizer in ADAPTIVE


def build_client_optimizer(settings: Settings) -> tff.learning.optimizers.Optimizer:
    """Builds the optimizer that clients train with."""
    if settings.tff_client_optimizer is not None:
        return settings.tff_client_optimizer
    return _BUILDERS[settings.client_optimizer](
        settings.client_learning_rate, beta_2=_CLIENT_BETA_2, epsilon=settings.client_epsilon
    )


def build_server_optimizer(settings: Settings) -> tff.learning.optimizers.Optimizer:
    """Builds the optimizer that the server applies to the aggregated update."""
    if settings.tff_server_optimizer is not None:
        return settings.tff_server_optimizer
    return _BUILDERS[settings.server_optimizer](settings.server_learning_rate, **_SERVER_MOMENTS)


def schedule_factor(settings: Settings, round_num: tf.Tensor) -> tf.Tensor:
    """Returns what the client learning rate is multiplied with.

    Args:
      settings: Names the schedule and the number of rounds it runs over.
      round_num: int32 scalar, 0 in the first round.

    Returns:
      float32 scalar, 1 in the first round.
    """
    if settings.client_learning_rate_schedule == "constant":
        return tf.constant(1.0)
    progress = tf.cast(round_num, tf.float32) / float(max(settings.rounds - 1, 1))
    progress = tf.clip_by_value(progress, 0.0, 1.0)
    if settings.client_learning_rate_schedule == "linear":
        falling = 1.0 - progress
    else:
        falling = 0.5 * (1.0 + tf.cos(math.pi * progress))
    return _FINAL_FRACTION + (1.0 - _FINAL_FRACTION) * falling

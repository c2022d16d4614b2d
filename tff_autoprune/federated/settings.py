"""What a federated process is built from, checked once and immutable."""

from __future__ import annotations

import dataclasses
import math
from typing import Optional

from tff_autoprune.errors import UserError

OPTIMIZERS = ("sgd", "momentum", "adam", "adamw", "yogi")
SCHEDULES = ("constant", "linear", "cosine")
AGGREGATORS = ("mean", "robust", "secure", "dp", "compressed")
CLIENT_WEIGHTINGS = ("examples", "uniform")
BATCH_NORM_RULES = ("aggregate", "average")
PRECISIONS = ("float32", "bfloat16")


def _check_choice(field: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise UserError(f"{field}: expected one of {', '.join(choices)}, found {value!r}.")


def _check_number(
    field: str, value: object, *, least: float, strict: bool, below: float = math.inf
) -> None:
    words = f"a number {'>' if strict else '>='} {least}" + (
        f" and < {below}" if math.isfinite(below) else ""
    )
    good = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if not good or value < least or (strict and value == least) or value >= below:
        raise UserError(f"{field}: expected {words}, found {value!r}.")


@dataclasses.dataclass(frozen=True)
class AggregatorSettings:
    """How client updates become one update.

    Attributes:
      name: "mean", "robust" (adaptive zeroing and clipping before the mean), "secure" (robust, then
        fixed-point secure summation), "dp" (DP-FedAvg with adaptive clipping), or "compressed"
        (robust, then quantization to 8 bits).
      zeroing: robust, secure, compressed: whether extremely large updates count as zero.
      clipping: robust, secure, compressed: whether the norm of an update is clipped adaptively.
      noise_multiplier: dp: standard deviation of the Gaussian noise over the clipping norm.
      delta: dp: the delta at which epsilon is reported.
      clients_per_round: dp: the expected number of clients in a round, which must be fixed
        beforehand for the guarantee to hold.
      dp_initial_clip: dp: L2 norm to which updates are clipped in the first round.
      dp_target_quantile: dp: share of updates that shall stay unclipped.
      seed: dp: what the noise derives from. Whoever knows it can subtract the noise.
    """

    name: str = "mean"
    zeroing: bool = True
    clipping: bool = True
    noise_multiplier: float = 1.0
    delta: float = 1e-5
    clients_per_round: Optional[int] = None
    dp_initial_clip: float = 0.1
    dp_target_quantile: float = 0.5
    seed: int = 0

    def __post_init__(self) -> None:
        """Checks every field.

        Raises:
          UserError: If a field has a wrong value; names the field.
        """
        _check_choice("aggregator.name", self.name, AGGREGATORS)
        _check_number("aggregator.noise_multiplier", self.noise_multiplier, least=0, strict=False)
        _check_number("aggregator.delta", self.delta, least=0, strict=True, below=1)
        _check_number("aggregator.dp_initial_clip", self.dp_initial_clip, least=0, strict=True)
        _check_number(
            "aggregator.dp_target_quantile", self.dp_target_quantile, least=0, strict=True, below=1
        )
        if self.name == "dp" and not self.clients_per_round:
            raise UserError(
                "aggregator.clients_per_round: differential privacy needs the number of clients in"
                f" a round, found {self.clients_per_round!r}."
            )


@dataclasses.dataclass(frozen=True)
class Settings:
    """A federated averaging process, apart from its model.

    Attributes:
      client_optimizer: One of `OPTIMIZERS`; starts anew on a client in every round.
      client_learning_rate: Its learning rate.
      client_epsilon: What adaptive client optimizers add to the root of the second moment. With
        next to nothing, every weight moves by the learning rate however small its gradient is:
        also those of labels that the client does not have, which the others then have to mend.
      client_learning_rate_schedule: One of `SCHEDULES`: how the client learning rate falls over
        `total_rounds`; linear and cosine end at a tenth of a percent of it.
      total_rounds: Rounds over which the schedule runs; needed unless it is constant.
      server_optimizer: One of `OPTIMIZERS`, applied to the aggregated update; adaptive ones with
        the beta_2 of 0.99 and the epsilon of 1e-3 of Reddi et al. (arXiv 2003.00295).
      server_learning_rate: Its learning rate.
      client_weighting: "examples" weights a client by its number of examples, "uniform" by 1.
      batch_norm: "aggregate" combines the clients' statistics by the law of total variance,
        "average" takes the plain average of moving means and moving variances.
      client_precision: One of `PRECISIONS`: what clients compute in while they train; weights and
        updates are float32 with both.
      aggregator: How updates are aggregated.
    """

    client_optimizer: str = "adam"
    client_learning_rate: float = 1e-3
    client_epsilon: float = 1e-7
    client_learning_rate_schedule: str = "constant"
    total_rounds: Optional[int] = None
    server_optimizer: str = "sgd"
    server_learning_rate: float = 1.0
    client_weighting: str = "examples"
    batch_norm: str = "aggregate"
    client_precision: str = "float32"
    aggregator: AggregatorSettings = dataclasses.field(default_factory=AggregatorSettings)

    def __post_init__(self) -> None:
        """Checks every field.

        Raises:
          UserError: If a field has a wrong value; names the field.
        """
        _check_choice("federated.client_optimizer", self.client_optimizer, OPTIMIZERS)
        _check_choice("federated.server_optimizer", self.server_optimizer, OPTIMIZERS)
        _check_choice(
            "federated.client_learning_rate_schedule", self.client_learning_rate_schedule, SCHEDULES
        )
        _check_choice("federated.client_weighting", self.client_weighting, CLIENT_WEIGHTINGS)
        _check_choice("federated.batch_norm", self.batch_norm, BATCH_NORM_RULES)
        _check_choice("federated.client_precision", self.client_precision, PRECISIONS)
        _check_number(
            "federated.client_learning_rate", self.client_learning_rate, least=0, strict=True
        )
        _check_number(
            "federated.server_learning_rate", self.server_learning_rate, least=0, strict=True
        )
        _check_number("federated.client_epsilon", self.client_epsilon, least=0, strict=True)
        if self.client_learning_rate_schedule != "constant" and not self.total_rounds:
            raise UserError(
                "federated.rounds: the schedule"
                f" {self.client_learning_rate_schedule!r} needs the total number of rounds, found"
                f" {self.total_rounds!r}."
            )

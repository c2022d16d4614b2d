"""What a federated process is built from, checked once and immutable."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Optional

import tensorflow_federated as tff

from tff_autoprune import settings
from tff_autoprune.errors import UserError


@dataclasses.dataclass(frozen=True)
class AggregatorSettings(settings.Aggregator):
    """How client updates become one update: the section `aggregator`, and what it needs to know.

    Attributes:
      clients_per_round: dp: the expected number of clients in a round, which must be fixed
        beforehand for the guarantee to hold.
      seed: dp: what the noise derives from. Whoever knows it can subtract the noise.
    """

    clients_per_round: Optional[int] = None
    seed: int = 0

    def __post_init__(self) -> None:
        """Checks every field.

        Raises:
          UserError: If a field has a wrong value; names the field.
        """
        super().__post_init__()
        if self.name == "dp" and not self.clients_per_round:
            raise UserError(
                "aggregator.clients_per_round: differential privacy needs the number of clients in"
                f" a round, found {self.clients_per_round!r}."
            )

    @property
    def report_noise(self) -> float:
        """The noise multiplier of reports."""
        given = self.report_noise_multiplier
        return self.noise_multiplier if given is None else given

    def check_clients(self, what: str, count: int) -> None:
        """Checks that something is summed over enough clients.

        Args:
          what: Names it, e.g. "a round".
          count: The clients.

        Raises:
          UserError: If they are fewer than `min_clients`; says what to set.
        """
        least = max(1, self.min_clients)
        if count < least:
            raise UserError(
                f"aggregator.min_clients: {what} needs at least {least}"
                f" client{'s' * (least > 1)}, so that no single one's value can be told from the"
                f" sum, found {count}; take more clients, or set aggregator.min_clients={count} if"
                " these may be seen."
                if count
                else f"federated: {what} needs at least one client, found none."
            )


@dataclasses.dataclass(frozen=True)
class Settings(settings.Federated):
    """A federated averaging process, apart from its model: the section `federated`, aggregation.

    Attributes:
      aggregator: How updates are aggregated.
      tff_client_optimizer: Takes the place of `client_optimizer`, its rate and epsilon; the
        schedule multiplies its learning rate, if it has one.
      tff_server_optimizer: Takes the place of `server_optimizer` and its rate.
      tff_aggregator: Aggregates updates in place of `aggregator.name`, which then only says how
        reports are summed. Weighted, or unweighted.
    """

    aggregator: AggregatorSettings = dataclasses.field(default_factory=AggregatorSettings)
    tff_client_optimizer: Optional[tff.learning.optimizers.Optimizer] = None
    tff_server_optimizer: Optional[tff.learning.optimizers.Optimizer] = None
    tff_aggregator: Optional[tff.aggregators.WeightedAggregationFactory] = None

    def __post_init__(self) -> None:
        """Checks every field.

        Raises:
          UserError: If a field has a wrong value; names the field.
        """
        super().__post_init__()
        for name in ("tff_client_optimizer", "tff_server_optimizer"):
            value = getattr(self, name)
            if value is not None and not isinstance(value, tff.learning.optimizers.Optimizer):
                raise UserError(
                    f"{name}: expected a tff.learning.optimizers.Optimizer, found"
                    f" {type(value).__name__}."
                )
        factories = (
            tff.aggregators.WeightedAggregationFactory,
            tff.aggregators.UnweightedAggregationFactory,
        )
        if self.tff_aggregator is None:
            return
        if not isinstance(self.tff_aggregator, factories):
            raise UserError(
                "tff_aggregator: expected a factory of tff.aggregators, found"
                f" {type(self.tff_aggregator).__name__}."
            )
        if self.aggregator.name == "dp":
            raise UserError(
                "tff_aggregator: the guarantee of aggregator.name='dp' is that of its own"
                " aggregator; give one of the two."
            )

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Settings:
        """Returns the settings that a configuration asks for.

        Args:
          config: A ConfigDict, or as read from config.json.
        """
        section = dict(config["federated"])
        aggregator = AggregatorSettings(
            **config["aggregator"],
            clients_per_round=section["clients_per_round"],
            seed=config["seed"],
        )
        return cls(**section, aggregator=aggregator)

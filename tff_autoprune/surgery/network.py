"""One architecture and all that is known of it: found once, handed along.

network = surgery.Network(model, ignore_layers=["stem"])
network.groups, network.cost, network.saving("flops")
surgery.plan_removal(network, {"conv_1": [0]})
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Optional, Union

import tensorflow as tf

from tff_autoprune.errors import UserError
from tff_autoprune.surgery import counting
from tff_autoprune.surgery import layer_rules as registry
from tff_autoprune.surgery.groups import FilterGroup, groups_of
from tff_autoprune.surgery.roles import Role
from tff_autoprune.surgery.trace import Trace


class FixedBoundaryWarning(UserWarning):
    """A layer is not known; channels that reach it are kept."""


class Network:
    """One architecture: a model, its groups and its cost.

    The model's graph is walked once, at the first question. The network describes the model as it
    was then: after changing the graph or what is trainable, make another. Weights may change.

    Args:
      model: A built functional or sequential model.
      ignore_layers: Names of layers whose filters stay, also "outer" or "outer/inner" for layers of
        a nested model.

    Attributes:
      model: The model.

    Example:
    >>> from tff_autoprune import models, surgery
    >>> model = models.build("cnn", input_shape=(28, 28, 1), num_classes=62, filters=(4, 8))
    >>> network = surgery.Network(model, ignore_layers=["conv_1"])
    >>> [group.name for group in network.prunable]
    ['conv_2']
    >>> network.groups[0].reason
    'is ignored by the user'
    """

    def __init__(self, model: tf.keras.Model, ignore_layers: Sequence[str] = ()) -> None:
        self.model = model
        self._ignored = list(ignore_layers)

    @classmethod
    def of(cls, model: Union[tf.keras.Model, Network]) -> Network:
        """Returns a network as it is, and that of a model."""
        return model if isinstance(model, cls) else cls(model)

    @cached_property
    def trace(self) -> Trace:
        """The channels of the model; raises a UserError if its graph cannot be followed."""
        trace = Trace(self.model)
        stuck = _stuck(trace)
        if stuck:
            other = Trace(self.model, within_groups=stuck)
            if _prunable_filters(other) > _prunable_filters(trace):
                trace = other
        for name in self._ignored:
            _ignore(trace, name)
        return trace

    @cached_property
    def groups(self) -> list[FilterGroup]:
        """All groups in the order of the graph, fixed ones included; warns of unknown layers."""
        for path, layer in self.trace.unknown:
            warnings.warn(
                f"Layer '{path}' ({registry.describe(layer)}) is not known to "
                "tff_autoprune.surgery: the channels that reach it are kept. Register a rule "
                "with surgery.register_layer to prune them (docs/pruning_any_model.md).",
                FixedBoundaryWarning,
                stacklevel=3,
            )
        return groups_of(self.trace)

    @property
    def prunable(self) -> list[FilterGroup]:
        """The groups that can lose channels."""
        return [group for group in self.groups if group.prunable]

    @cached_property
    def cost(self) -> counting.Cost:
        """What the model costs; see `cost.of`."""
        return counting.of_trace(self.trace)

    def saving(
        self, what: str = "flops", latency: Optional[Mapping[str, float]] = None
    ) -> dict[str, float]:
        """Returns what removing one channel of each group saves; see `cost.per_channel`."""
        return counting.savings(self.trace, self.groups, what, latency)


def find_filter_groups(model: Union[tf.keras.Model, Network]) -> list[FilterGroup]:
    """Finds all dependency groups of a model.

    Args:
      model: A built functional or sequential model, nested or not; or its network.

    Returns:
      Groups in the order of the graph, fixed ones included. A group's channel `i` is the `i`-th
      filter of its first producing layer, unless filters of that layer depend on each other.

    Raises:
      UserError: If the model's graph cannot be followed.

    Example:
    >>> from tff_autoprune import models, surgery
    >>> model = models.build("cnn", input_shape=(28, 28, 1), num_classes=62, filters=(4, 8))
    >>> for group in surgery.find_filter_groups(model):
    ...     print(group.name, group.channels, group.prunable)
    conv_1 4 True
    conv_2 8 True
    logits 62 False
    """
    return Network.of(model).groups


def _stuck(trace: Trace) -> set[int]:
    """Returns by id the grouped convolutions that cannot lose whole groups.

    Between channel shuffles, say, or with an attention over channels behind them: losing the same
    places of all groups may be possible then.
    """
    prunable = {
        member.position
        for group in groups_of(trace)
        if group.prunable
        for member in group.producers
    }
    position = {id(weight): i for i, weight in enumerate(trace.model.weights)}
    return {
        id(layer)
        for layer in trace.record.grouped
        if position.get(id(layer.kernel)) not in prunable
    }


def _prunable_filters(trace: Trace) -> int:
    return sum(
        len(member.positions)
        for group in groups_of(trace)
        if group.prunable
        for member in group.producers
    )


def _ignore(trace: Trace, name: str) -> None:
    """Keeps the channels that a layer makes or scales."""
    ties = [
        tie
        for tie in trace.record.ties
        if tie.role != Role.CONSUMER and (tie.path == name or tie.path.startswith(f"{name}/"))
    ]
    if not any((node.path + "/").startswith(f"{name}/") for node in trace.nodes):
        paths = sorted({tie.path for tie in trace.record.ties if tie.role == Role.PRODUCER})
        raise UserError(
            f"ignore_layers: the model has no layer '{name}'. Layers with filters: "
            f"{', '.join(paths)}."
        )
    for tie in ties:
        trace.channels.fix(tie.ids, "is ignored by the user")

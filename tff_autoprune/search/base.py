"""The seam between the round loop and a pruning method.

A method is a pure state machine on the server:

    (state, Observation) -> (state, [Decision, ...])

    program ── Observation: aggregated weights, pseudo-gradient, federated feedback ──> method
    program <── Decisions: cut these filters, accept, restore, stop, penalty ────────── method

It is asked before the first round (`round_num` 0) and after every round. Its state is plain JSON
(dict, list, str, int, float, bool, None), which the program checkpoints: a resumed run decides as
an uninterrupted one. It sees only what the aggregator released; what guarantee that has, and for
whom, is in docs/privacy.md.
"""

from __future__ import annotations

import abc
import dataclasses
import enum
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Optional

import numpy as np

if TYPE_CHECKING:
    import tensorflow as tf

State = dict[str, Any]
Feedback = Mapping[str, float]


class Action(str, enum.Enum):
    """What the program shall do.

    Attributes:
      CUT: Remove `selection` from the model. The first cut since the last ACCEPT or RESTORE makes
        the program keep a snapshot (model and process state) from just before it.
      REFUSE: Nothing; removing `selection` was tried and does not pay. For the record.
      ACCEPT: The cuts since the snapshot have healed; drop the snapshot.
      RESTORE: They have not; go back to the snapshot.
      ASSIGN: Replace the weights by `weights`; the architecture stays.
      STOP: Pruning is over; the method is not asked again.
    """

    CUT = "cut"
    REFUSE = "refuse"
    ACCEPT = "accept"
    RESTORE = "restore"
    ASSIGN = "assign"
    STOP = "stop"


@dataclasses.dataclass(frozen=True)
class Decision:
    """One decision: a line in the log and a row in pruning.csv.

    Attributes:
      action: See `Action`.
      reason: Why, in a few words a person understands.
      selection: For CUT: indices of the channels to remove, by filter-group name.
      weights: For CUT and ASSIGN: values aligned with `model.weights` that replace the model's
        weights, for CUT just before the removal (e.g. consumers that compensate for what is
        removed). None keeps them.
      reinitialize: For CUT: the smaller model starts from new random weights (the paper's rule)
        instead of inheriting those of the surviving filters.
      predicted_effect: Expected change of held-out loss or accuracy, if the method predicts one.
      measured_effect: The measured change, for ACCEPT and RESTORE.
    """

    action: Action
    reason: str
    selection: Mapping[str, Sequence[int]] = dataclasses.field(default_factory=dict)
    weights: Optional[Sequence[np.ndarray]] = None
    reinitialize: bool = False
    predicted_effect: Optional[float] = None
    measured_effect: Optional[float] = None


@dataclasses.dataclass(frozen=True)
class Controls:
    """Scalars that the clients of the next round receive with the model.

    Attributes:
      penalty: Strength of the group-lasso term in the clients' loss; 0 is off.
      learning_rate_scale: Multiplies the learning rate of adaptive optimizers (see
        `Engine.scale_for_width`).
    """

    penalty: float = 0.0
    learning_rate_scale: float = 1.0


@dataclasses.dataclass(frozen=True)
class Observation:
    """All that a method may know.

    Attributes:
      round_num: Rounds completed, 0 before the first.
      total_rounds: Rounds that the run will have.
      model: The server's model with the aggregated weights of now; not to be modified.
      pseudo_gradient: Aggregated client update of the last round, aligned with
        `model.trainable_weights`: weights before the round minus after it. None before the first
        round and in the round after a change of architecture.
      train_metrics: Aggregated metrics of the last round's training: "loss", "accuracy",
        "num_examples". Empty before the first round.
      examine: Asks the held-out clients of `evaluate` about `model`, which they download once: how
        well it does, and what layers read (the arguments and the results of
        `federated.Engine.examine`). A federated computation, whose bytes count as communication.
      try_candidates: Evaluates candidates that differ from `model` in what layers read, on the
        clients of `examine`, which have the model (the arguments after the clients and the results
        of `federated.Engine.try_candidates`). The bytes of what they read instead count.
      evaluate: Evaluates any candidate model with the present architecture or another on the
        held-out examples of a sample of validation clients, the same in every call: a federated
        computation. Its download counts as communication, so methods call it sparingly.
    """

    round_num: int
    total_rounds: int
    model: tf.keras.Model
    pseudo_gradient: Optional[Sequence[np.ndarray]]
    train_metrics: Mapping[str, float]
    examine: Callable[[Mapping[str, int]], tuple[Feedback, Mapping[str, np.ndarray]]]
    try_candidates: Callable[[Mapping[str, int], Mapping[str, np.ndarray]], Sequence[Feedback]]
    evaluate: Callable[[tf.keras.Model], Feedback]


class PruningMethod(abc.ABC):
    """Decides on the server, between rounds, which filters go."""

    #: Called with each architecture; returns a function of the list of trainable tensors whose
    #: value, times `Controls.penalty`, the clients add to their loss. None: no penalty.
    regularizer_fn: Optional[Callable[[tf.keras.Model], Callable[[list], tf.Tensor]]] = None

    @abc.abstractmethod
    def initialize(self, model: tf.keras.Model) -> State:
        """Returns the state before the first round, for the dense `model`."""

    @abc.abstractmethod
    def step(self, state: State, observation: Observation) -> tuple[State, list[Decision]]:
        """Returns the next state and the decisions to carry out in order.

        At most one CUT, as the last of the list. A RESTORE or CUT changes the architecture that
        the next observation shows.
        """

    def controls(self, state: State) -> Controls:
        """Returns the scalars for the clients of the next round."""
        del state
        return Controls()

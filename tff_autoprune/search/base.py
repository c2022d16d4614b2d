"""The seam between the round loop and a pruning method.

    program ── Observation: the network with its aggregated weights ──────> method
    program <── requests: a race of structures (`requests`) ──────────────  method
    program ── answers: paired differences of accuracy ───────────────────> method
    program <── decisions: move, refuse, assign, stop ────────────────────  method

A method is a pure function of its state, the observation and the answers. It is asked before the
first round (`round_num` 0) and after every round. Its state is a frozen dataclass of JSON values,
which the program checkpoints; a resumed run decides as an uninterrupted one. A method never reaches
a client itself: what it may learn, and what that costs, is the program's business.
It sees only what the aggregator released; what guarantee that has, and for whom, is in
docs/privacy.md.
"""

from __future__ import annotations

import abc
import dataclasses
import enum
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Optional

import numpy as np

from tff_autoprune.search.requests import Request
from tff_autoprune.search.structure import Structure

if TYPE_CHECKING:
    import tensorflow as tf

    from tff_autoprune import surgery


class Action(str, enum.Enum):
    """What the program shall do.

    Attributes:
      MOVE: Change the network to `structure`.
      REFUSE: Nothing; `structure` was tried and costs too much. For the record.
      ASSIGN: Replace the weights by `weights`; the architecture stays.
      STOP: The search is over; the method is not asked again.
    """

    MOVE = "move"
    REFUSE = "refuse"
    ASSIGN = "assign"
    STOP = "stop"


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A difference of accuracy.

    Attributes:
      points: Points of accuracy gained; negative if lost.
      error: Its standard error over clients.
    """

    points: float
    error: float


@dataclasses.dataclass(frozen=True)
class Decision:
    """One decision: a line in the log and a row in pruning.csv.

    Attributes:
      action: See `Action`.
      reason: Why, in a few words that a person understands.
      structure: For MOVE and REFUSE.
      raced: For MOVE: the index of the structure in the race of this step whose network goes on,
        with what it learned in the race; None inherits from the present network.
      reinitialize: For MOVE: start from new random weights (the paper's rule).
      weights: For ASSIGN: values aligned with `model.weights`.
      measured: What a race has shown: the structure's network against the present one, after as
        many rounds of training.
    """

    action: Action
    reason: str
    structure: Structure = dataclasses.field(default_factory=Structure)
    raced: Optional[int] = None
    reinitialize: bool = False
    weights: Optional[Sequence[np.ndarray]] = None
    measured: Optional[Estimate] = None


@dataclasses.dataclass(frozen=True)
class Controls:
    """Scalars that the clients of the next round receive with the model.

    Attributes:
      penalty: Strength of the group-lasso term in the clients' loss; 0 is off.
    """

    penalty: float = 0.0


@dataclasses.dataclass(frozen=True)
class Observation:
    """What a method sees without asking.

    Attributes:
      round_num: Rounds completed, 0 before the first.
      total_rounds: Rounds that the run will have.
      network: The present architecture with the aggregated weights of now; not to be modified.
      train_metrics: Aggregated metrics of the last round's training: "loss", "accuracy",
        "num_examples". Empty before the first round.
    """

    round_num: int
    total_rounds: int
    network: surgery.Network
    train_metrics: Mapping[str, float]


State = Any
Outcome = tuple[State, list[Decision]]
Steps = Generator[Request, Any, Outcome]


class PruningMethod(abc.ABC):
    """Decides on the server, between rounds, what goes."""

    #: Called with each architecture; returns a function of the list of trainable tensors whose
    #: value, times `Controls.penalty`, the clients add to their loss. None: no penalty.
    regularizer_fn: Optional[Callable[[tf.keras.Model], Callable[[list], tf.Tensor]]] = None
    #: Whether the method asks held-out clients.
    asks_clients: bool = False

    @abc.abstractmethod
    def initialize(self, network: surgery.Network) -> State:
        """Returns the state before the first round, for the dense network.

        Raises:
          UserError: If what the method was asked for cannot be reached with this network.
        """

    @abc.abstractmethod
    def state_from_json(self, document: dict[str, Any]) -> State:
        """Returns a state from `dataclasses.asdict` of it."""

    def step(self, state: State, observation: Observation) -> Outcome:
        """Decides without asking: the next state, and decisions with at most one MOVE."""
        raise NotImplementedError

    def steps(self, state: State, observation: Observation) -> Steps:
        """Decides: yields requests, is sent their answers, returns what `step` does."""
        return self.step(state, observation)
        yield  # Makes this a generator.

    def controls(self, state: State) -> Controls:
        """Returns the scalars for the clients of the next round."""
        del state
        return Controls()


def decide(
    method: PruningMethod,
    state: State,
    observation: Observation,
    answer: Callable[[Request], Any],
) -> Outcome:
    """Runs a method's decision.

    Args:
      method: The method.
      state: Its state.
      observation: What it sees.
      answer: Carries out a request.

    Returns:
      The next state and the decisions.
    """
    steps = method.steps(state, observation)
    try:
        request = next(steps)
        while True:
            request = steps.send(answer(request))
    except StopIteration as stop:
        return stop.value

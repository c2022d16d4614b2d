"""Federated averaging of one architecture, and the step to another one.

next:         state ──TFF round──> state
with_model:   engine, smaller model ──> engine of the new architecture
carry_state:  state of the old engine ──> state of the new one
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Optional, Protocol

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

from tff_autoprune.errors import UserError
from tff_autoprune.federated import (
    aggregators,
    batches,
    comparison,
    evaluation,
    optimizers,
    reports,
)
from tff_autoprune.federated import process as process_lib
from tff_autoprune.federated import state as state_lib
from tff_autoprune.federated.client_work import Regularizer
from tff_autoprune.federated.settings import Settings
from tff_autoprune.federated.stateless import StatelessModel
from tff_autoprune.federated.task import Task

State = tff.learning.templates.LearningAlgorithmState


class Removal(Protocol):
    """What a removal of filters tells about the weights (`surgery.Removal`)."""

    def slice_trainable(self, values: Sequence[np.ndarray]) -> Sequence[np.ndarray]:
        """Keeps of arrays shaped like the old trainable weights what survives."""


@dataclasses.dataclass(frozen=True)
class RoundResult:
    """What a round did.

    Attributes:
      state: The state after the round.
      metrics: "loss", "accuracy" and "num_examples" of training, over clients.
      clients: Clients that took part.
      failed_clients: Those of them whose update was not finite and was left out.
      failed: Whether nothing was learned: no client returned a usable update, or the aggregate was
        not finite. The weights are then those from before the round.
      download_bytes: Bytes of weights sent to clients.
      upload_bytes: Bytes of updates sent by clients.
    """

    state: State
    metrics: Mapping[str, float]
    clients: int
    failed_clients: int
    failed: bool
    download_bytes: int
    upload_bytes: int


def _nbytes(variables: Sequence[tf.Variable]) -> int:
    return sum(v.shape.num_elements() * v.dtype.size for v in variables)


class Engine:
    """Federated averaging of a Keras model.

    An engine is immutable and serves one architecture: all that changes between rounds is in the
    state. Another architecture is another engine (`with_model`), which takes the old one's state
    over (`carry_state`). What an engine computes is traced when it is first needed: a few seconds
    for training, less for the rest.

    Attributes:
      model: The model whose architecture it serves.
      settings: What the process is built from.
      task: What the model learns.

    Example:
    >>> from tff_autoprune import data, federated, models, runtime, surgery
    >>> runtime.start()
    >>> clients = data.load("digits").train
    >>> model = models.build("cnn", input_shape=(8, 8, 1), num_classes=10, filters=(4,))
    >>> engine = federated.Engine(model, federated.Settings(client_learning_rate=0.01))
    >>> batches = [
    ...     clients.create_tf_dataset_for_client(client).batch(20)
    ...     for client in clients.client_ids[:3]
    ... ]
    >>> result = engine.next(engine.initialize(), batches)
    >>> result.clients, result.failed_clients
    (3, 0)

    Cut a filter and go on with everything that was learned:

    >>> removal = surgery.plan_removal(engine.keras_model(result.state), {"conv_1": [2]})
    >>> smaller = engine.with_model(removal.apply())
    >>> state = smaller.carry_state(result.state, removal)
    >>> smaller.next(state, batches).state.global_model_weights.trainable[0].shape
    (5, 5, 1, 3)
    """

    def __init__(
        self,
        model: tf.keras.Model,
        settings: Optional[Settings] = None,
        *,
        task: Optional[Task] = None,
        regularizer_fn: Optional[Callable[[tf.keras.Model], Regularizer]] = None,
    ):
        """Builds the engine of a model; traces nothing yet.

        Args:
          model: A built functional or sequential model.
          settings: Defaults to `Settings()`.
          task: What it learns; inferred by default, see `Task.of`.
          regularizer_fn: Called with the model; returns a function of the list of trainable
            tensors, which is added to the clients' loss times the strength of `set_penalty`.
        """
        self.model = model
        self.settings = settings or Settings()
        self._regularizer_fn = regularizer_fn
        self._stateless = StatelessModel(model)
        self.task = task or Task.of(model)
        self._built: dict[tuple, Any] = {}

    def with_model(self, model: tf.keras.Model) -> Engine:
        """Returns an engine for another model, with the same settings."""
        return Engine(model, self.settings, task=self.task, regularizer_fn=self._regularizer_fn)

    @functools.cached_property
    def process(self) -> tff.learning.templates.LearningProcess:
        """The TFF process that runs the rounds; its initial weights are the model's."""
        return process_lib.build_learning_process(
            self._stateless,
            self.task,
            self.settings,
            regularizer=self._regularizer_fn(self.model) if self._regularizer_fn else None,
        )

    @functools.cached_property
    def _reports(self) -> reports.Plain:
        return aggregators.build_reports(self.settings.aggregator, self.task)

    def _once(self, key: tuple, build: Callable[[], Any]) -> Any:
        """Returns what was built for a key; builds it the first time."""
        if key not in self._built:
            self._built[key] = build()
        return self._built[key]

    def _clients(
        self, what: str, client_datasets: Sequence[tf.data.Dataset]
    ) -> list[tf.data.Dataset]:
        """Returns batches as the task wants them, of enough clients."""
        self.settings.aggregator.check_clients(what, len(client_datasets))
        return batches.of_clients(self.task, client_datasets)

    def check_comparable(self) -> None:
        """Checks that clients may be asked to compare models.

        Raises:
          UserError: If the aggregator has a guarantee that this would break.
        """
        self._check_exact("comparison of models")

    def _check_exact(self, what: str) -> None:
        if not self._reports.exact:
            raise UserError(
                f"aggregator.name: with {self.settings.aggregator.name!r} there is no {what}: no"
                " noise covers what clients would tell. Use a pruning method that asks nothing of"
                " clients (none, paper, uniform, unstructured)."
            )

    @functools.cached_property
    def _initial_state(self) -> State:
        return self.process.initialize()

    def initialize(self) -> State:
        """Returns the state before the first round; its weights are the model's."""
        return self._initial_state

    def set_weights(self, state: State, model: tf.keras.Model) -> State:
        """Returns the state with a model's weights; the model must have the same architecture."""
        return state._replace(global_model_weights=evaluation.weights_of(model))

    def next(
        self,
        state: State,
        client_datasets: Sequence[tf.data.Dataset],
        seeds: Optional[Sequence[Sequence[int]]] = None,
    ) -> RoundResult:
        """Runs a round.

        Args:
          state: The state before it.
          client_datasets: Batches (inputs, labels) of each client; see `batches.of_clients`.
          seeds: Two numbers for each client, from which its dropout and augmentation derive,
            together with the round and the step (see `client_seed`). By default the clients are
            numbered. Read only if the model has random layers.

        Returns:
          What the round did.

        Raises:
          UserError: If there are fewer clients than `aggregator.min_clients`.
        """
        data = self._clients("a round", client_datasets)
        if self._stateless.has_randomness:
            seeds = seeds or [(0, number) for number in range(len(data))]
            data = list(map(batches.with_seed, data, seeds))
        with batches.errors_explained():
            output = self.process.next(state, data)
        report = output.metrics["client_work"]
        # A noised count is no whole number, and may be anything.
        failed_clients = min(max(round(float(report["non_finite_clients"])), 0), len(data))
        rejected = bool(output.metrics["finalizer"]["rejected"])
        return RoundResult(
            state=output.state,
            metrics=self.task.finalize(report["train"]),
            clients=len(data),
            failed_clients=failed_clients,
            failed=rejected or (self._reports.exact and failed_clients == len(data)),
            download_bytes=_nbytes(self.model.weights) * len(data),
            upload_bytes=len(data)
            * aggregators.update_bytes(
                self.settings.aggregator, [tuple(v.shape) for v in self.model.weights]
            ),
        )

    def evaluate(
        self,
        state: State,
        client_datasets: Sequence[tf.data.Dataset],
        *,
        question: int = 0,
        public: bool = False,
    ) -> dict[str, float]:
        """Evaluates the server's model on clients.

        Args:
          state: Whose weights to evaluate.
          client_datasets: Batches of each client.
          question: dp: tells apart what is asked of the same round's model; two questions with the
            same number would get the same noise, which could then be subtracted.
          public: Whether these clients' figures may be seen as they are: no noise, any number of
            clients. For the test clients of a simulation, or clients that have agreed.

        Returns:
          See `Task.finalize`; aggregated by TFF. With dp every client counts alike, and
          "num_examples" is the number of clients.

        Raises:
          UserError: If there are fewer clients than `aggregator.min_clients`.
        """
        reporting = self._reports
        if public:
            data = batches.of_clients(self.task, client_datasets)
            reporting = reporting if reporting.exact else reports.Plain()
        else:
            data = self._clients("an evaluation", client_datasets)
        if not data:
            raise UserError("federated: an evaluation needs at least one client, found none.")
        computation = self._once(
            ("evaluate", public),
            lambda: process_lib.build_evaluation(self._stateless, self.task, reporting),
        )
        with batches.errors_explained():
            sums = computation(state.global_model_weights, data)
        seed = (self.settings.aggregator.seed, 2 + question, int(state.client_work["round_num"]))
        return self.task.finalize(reporting.release(sums, np.asarray(seed, np.int32)))

    def compare(
        self,
        state: State,
        client_datasets: Sequence[tf.data.Dataset],
        models: Sequence[tf.keras.Model],
    ) -> comparison.Comparison:
        """Compares models with the server's model on the same clients.

        Args:
          state: Whose weights the server's model has.
          client_datasets: Batches of each client.
          models: Models of any architecture, with their weights, for the same task.

        Raises:
          UserError: If there are fewer clients than `aggregator.min_clients`, or with dp.
        """
        self.check_comparable()
        data = self._clients("a comparison", client_datasets)
        # Not kept: the models come and go, and what is traced for them would only fill the memory.
        computation = comparison.build_comparison(
            self._stateless, self.task, self._reports, [StatelessModel(model) for model in models]
        )
        present = state.global_model_weights
        weights = tuple(map(evaluation.weights_of, models))
        with batches.errors_explained():
            report = computation(present, weights, data)
        finite = [
            comparison.is_finite((*own.trainable, *own.non_trainable))
            for own in (present, *weights)
        ]
        return comparison.finalize(report, self.task, len(data), finite)

    def keras_model(self, state: State) -> tf.keras.Model:
        """Returns a new Keras model with the server's weights and statistics."""
        model = tf.keras.models.clone_model(self.model)
        for variables, values in (
            (model.trainable_weights, state.global_model_weights.trainable),
            (model.non_trainable_weights, state.global_model_weights.non_trainable),
        ):
            for variable, value in zip(variables, values):
                variable.assign(value)
        return model

    def carry_state(self, state: State, removal: Optional[Removal] = None) -> State:
        """Takes the state of another architecture over.

        Args:
          state: A state of the engine that this one was made from.
          removal: Says which parts of the old weights survive, so that the moments of the server
            optimizer are kept; None starts that optimizer anew.

        Returns:
          A state of this engine: the weights of `model`, everything else carried over.
        """
        initial = self.initialize()
        return initial._replace(
            distributor=state_lib.carry_matching(state.distributor, initial.distributor),
            client_work=state.client_work,
            aggregator=state_lib.carry_matching(state.aggregator, initial.aggregator),
            finalizer=state_lib.carry_optimizer_state(
                state.finalizer,
                initial.finalizer,
                [np.asarray(w) for w in state.global_model_weights.trainable],
                None if removal is None else removal.slice_trainable,
            ),
        )

    def set_penalty(self, state: State, strength: float) -> State:
        """Returns the state with another strength of the regularizer, without retracing."""
        return self._set_client_scalar(state, "penalty", strength)

    def set_learning_rate_scale(self, state: State, scale: float) -> State:
        """Returns the state with another factor on the learning rate.

        It is that of the clients, unless the server's optimizer is adaptive: then it is the
        server's, since such an optimizer takes the scale of the clients' updates out again.
        """
        if not optimizers.has_adaptive_server(self.settings):
            return self._set_client_scalar(state, "learning_rate_scale", scale)
        finalizer = state.finalizer.copy()
        finalizer["learning_rate"] = np.float32(self.settings.server_learning_rate * scale)
        return state._replace(finalizer=finalizer)

    def _set_client_scalar(self, state: State, name: str, value: float) -> State:
        client_work = state.client_work.copy()
        client_work[name] = np.float32(value)
        return state._replace(client_work=client_work)

    def state_to_arrays(self, state: State) -> dict[str, np.ndarray]:
        """Returns the state as a flat dict of arrays, bit exact."""
        return state_lib.to_arrays(state)

    def state_from_arrays(self, arrays: Mapping[str, Any]) -> State:
        """Undoes `state_to_arrays` for this engine."""
        return state_lib.from_arrays(self.initialize(), arrays)

"""The round loop: federated averaging, and the pruning method between rounds.

sample cohort ─> train ─> aggregate ─> decide ─> record
      ^                                  │
      └─ smaller model, its state kept <─┘
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import platform
import signal
import statistics
import time
from collections.abc import Mapping, Sequence
from typing import Any, Optional

import ml_collections
import numpy as np
import tensorflow as tf
from absl import logging

from tff_autoprune import config as config_lib
from tff_autoprune import data as data_lib
from tff_autoprune import federated, files, models, randomness, surgery
from tff_autoprune.errors import UserError
from tff_autoprune.program import checkpoint as checkpoint_lib
from tff_autoprune.program import cohort as cohort_lib
from tff_autoprune.program import notices, privacy, tensorboard
from tff_autoprune.program import records as records_lib
from tff_autoprune.program.progress import Progress
from tff_autoprune.run_directory import RunDirectory
from tff_autoprune.search import base, methods
from tff_autoprune.surgery import cost

_PACKAGES = (
    "tensorflow",
    "tensorflow-federated",
    "tensorflow-model-optimization",
    "tflite-runtime",
    "numpy",
    "pandas",
)
# Larger batches than in training: evaluation keeps no activations.
_EVALUATION_BATCH = 256


@dataclasses.dataclass(frozen=True)
class _Attempt:
    """A cohort that was asked to train in a round; no result if nobody answered."""

    cohort: cohort_lib.Cohort
    result: Optional[federated.RoundResult]


class Training:
    """One run: trains, prunes, and writes everything but exports and reports.

    Attributes:
      interrupted: Whether the run was asked to stop; it then ends after the current round.
    """

    def __init__(
        self,
        config: ml_collections.ConfigDict,
        run_dir: str,
        *,
        resume: bool = False,
        overwrite: bool = False,
        quiet: bool = False,
    ) -> None:
        """Checks the configuration, loads data and model, and finds where to start.

        Args:
          config: A configuration, see `tff_autoprune.config`.
          run_dir: The run directory; made if missing.
          resume: Whether to go on from the newest checkpoint, if there is one.
          overwrite: Whether an earlier run in `run_dir` is replaced.
          quiet: Whether to show no progress.

        Raises:
          UserError: If the configuration or the data is wrong, or `run_dir` holds a run and neither
            `resume` nor `overwrite` is set, or `resume` finds another configuration.
        """
        self._config = config_lib.validate(config)
        self._files = RunDirectory(run_dir)
        self._quiet = quiet
        self.interrupted = False
        self._check_run_directory(resume=resume, overwrite=overwrite)

        self._data = config_lib.load_data(config)
        self._dense = config_lib.build_model(config, self._data.spec)
        _warn_of_inputs(self._dense, self._data)
        self._dense_cost = cost.of(self._dense)
        self._method = methods.create(config.pruning.method, config.pruning)
        self._method_state = self._method.initialize(self._dense)
        self._engine = federated.Engine(
            self._dense,
            federated.Settings.from_config(config),
            task=federated.Task.of_data(
                self._dense, self._data.train, ignored_label=self._data.spec.ignored_label
            ),
            regularizer_fn=self._method.regularizer_fn,
        )
        metric = self._engine.task.metric
        if config.pruning.method == "auto" and not metric.higher_is_better:
            raise UserError(
                f"pruning.method: auto decides by accuracy, and this task has a {metric.name}; use"
                " uniform or none."
            )
        self._round_num = 0
        self._state = self._engine.initialize()
        self._snapshot: Optional[checkpoint_lib.ModelState] = None
        self._snapshot_engine: Optional[federated.Engine] = None
        self._method_stopped = False
        self._accuracy: Optional[float] = None
        self._validations = 0
        self._retried_cohorts = 0
        self._earlier_seconds = 0.0
        self._rebuild_seconds = 0.0
        self._feedback_bytes = 0
        self._architecture_changed()
        privacy.check(config, self._data, self._engine.settings.aggregator)
        self._privacy()  # Whether it can be told, before training spends it.

        # An earlier run is lost only when nothing is wrong with the one that replaces it.
        if overwrite and not resume:
            self._files.clear()
        self._records = records_lib.Records(
            self._files.metrics,
            self._files.pruning,
            tensorboard.release_manager(
                self._files.tensorboard, config_lib.flat(config), self._filters()
            ),
        )
        self._checkpoints = checkpoint_lib.CheckpointFolder(self._files.checkpoints)
        if resume:
            self._load_checkpoint()

    # ---------------------------------------------------------------- life of a run

    def run(self) -> dict[str, Any]:
        """Trains to the last round, or to the end of the round in which it is interrupted.

        The first Ctrl-C asks for that, the second raises KeyboardInterrupt at once.

        Returns:
          The summary; of the rounds so far if the run was interrupted, {} if there are none.
        """
        self._started = time.monotonic()
        self._write_config()
        if self._round_num < self._config.federated.rounds:
            # Of a model that is about to change.
            self._files.forget("export", "benchmark", "against_dense", "clients", "fleet")
        with files.replacing(self._files.dense_model) as path:
            self._dense.save(path)
        self._progress = Progress(
            self._config.federated.rounds, first_round=self._round_num, quiet=self._quiet
        )
        for line in notices.of(
            self._config,
            train_clients=len(self._data.train.client_ids),
            dense=self._dense_cost,
        ):
            self._progress.message(line)
        previous_handler = signal.signal(signal.SIGINT, self._interrupt)
        try:
            if self._round_num == 0:
                self._decide(pseudo_gradient=None, train_metrics={})
            while self._round_num < self._config.federated.rounds and not self.interrupted:
                self._run_round()
                due = self._round_num % self._config.federated.checkpoint_every == 0
                if due or self.interrupted:
                    self._save_checkpoint()
            if self.interrupted:
                # What there is can be exported and reported.
                summary = self._finish() if self._round_num else {}
                self._progress.message(
                    f"stopped after round {self._round_num}; go on with the same command and"
                    " --resume"
                )
                return summary
            self._save_checkpoint()
            return self._finish()
        finally:
            signal.signal(signal.SIGINT, previous_handler)
            self._progress.close()

    def _interrupt(self, signum: int, frame: object) -> None:
        del signum, frame
        if self.interrupted:
            raise KeyboardInterrupt
        self.interrupted = True
        self._progress.message("stopping after this round (Ctrl-C again stops at once)")

    def _check_run_directory(self, *, resume: bool, overwrite: bool) -> None:
        if resume and self._files.is_run():
            used = self._files.read_config()["config"]
            # More rounds extend a run; its learning-rate schedule is then that of the longer run.
            section = used["federated"]
            section["rounds"] = max(section["rounds"], self._config.federated.rounds)
            config_lib.check_same("--resume", self._config, used)
        else:
            self._files.check_writable(overwrite=overwrite)

    # ---------------------------------------------------------------- one round

    def _run_round(self) -> None:
        started = time.monotonic()
        rebuild_before = self._rebuild_seconds
        feedback_bytes_before = self._feedback_bytes
        self._round_num += 1
        controls = self._method.controls(self._method_state)
        self._state = self._engine.set_penalty(self._state, controls.penalty)
        self._state = self._engine.scale_for_width(self._state, controls.learning_rate_scale)
        weights_before = self._trainable_weights()
        parameters, model_bytes = self._cost.parameters, self._cost.bytes

        attempts = self._train_cohort()
        result = attempts[-1].result
        self._state = result.state
        weights_after = self._trainable_weights()
        pseudo_gradient = [b - a for b, a in zip(weights_before, weights_after)]
        sampled = sum(len(attempt.cohort.sampled) for attempt in attempts)
        # A cohort that is sampled again has received the model, and has answered in vain.
        trained = [attempt.result for attempt in attempts if attempt.result is not None]
        row = {
            "round": self._round_num,
            "clients": sampled,
            "failed_clients": sampled - (result.clients - result.failed_clients),
            "examples": int(result.metrics["num_examples"]),
            "train_loss": result.metrics["loss"],
            "train_accuracy": result.metrics["metric"],
            "parameters": parameters,
            "flops": self._cost.flops,
            "model_bytes": model_bytes,
            "download_bytes": sampled * result.download_bytes // result.clients,
            "upload_bytes": sum(one.upload_bytes for one in trained),
            "dense_download_bytes": sampled * self._dense_cost.bytes,
            "dense_upload_bytes": sum(one.clients for one in trained) * self._dense_cost.bytes,
            "penalty": controls.penalty,
            **{f"filters/{name}": count for name, count in self._filters().items()},
        }
        # Before a cut: the row tells of the model that this round trained.
        validation = self._validate_if_due()
        self._decide(pseudo_gradient, result.metrics)
        row["validation_loss"] = validation.get("loss")
        row["validation_accuracy"] = validation.get("metric")
        row["feedback_bytes"] = self._feedback_bytes - feedback_bytes_before
        row["rebuild_seconds"] = self._rebuild_seconds - rebuild_before
        row["seconds"] = time.monotonic() - started
        self._records.add_round(row)
        self._progress.round(row, accuracy=self._accuracy, total_bytes=self._total_bytes())

    def _train_cohort(self) -> list[_Attempt]:
        """Trains one cohort; another one if all of its clients failed. The last is the one."""
        settings = self._config.federated
        attempts = []
        for attempt in range(settings.max_attempts):
            cohort = cohort_lib.sample(
                self._data.train.client_ids,
                count=settings.clients_per_round,
                dropout_probability=settings.dropout_probability,
                seed=self._config.seed,
                round_num=self._round_num,
                attempt=attempt,
            )
            enough = len(cohort.returning) >= self._config.aggregator.min_clients
            if not enough:
                # A sum over so few is never made: nobody sends anything.
                cohort = dataclasses.replace(cohort, returning=())
            result = self._train_clients(cohort.returning) if enough else None
            attempts.append(_Attempt(cohort, result))
            if result is not None and not result.failed:
                return attempts
            self._retried_cohorts += 1
            self._progress.message(
                f"round {self._round_num}: no update of the cohort can be used; sampling another"
                " cohort"
            )
        raise UserError(
            f"round {self._round_num}: {settings.max_attempts} cohorts in a row returned no usable"
            " update (federated.max_attempts); look at federated.client_learning_rate,"
            " federated.dropout_probability, aggregator.min_clients. The last checkpoint is kept."
        )

    def _train_clients(self, client_ids: Sequence[str]) -> federated.RoundResult:
        datasets = cohort_lib.training_datasets(
            self._data.train, client_ids, self._config, round_num=self._round_num
        )
        seeds = [
            federated.client_seed(client_id, seed=self._config.seed, round_num=self._round_num)
            for client_id in client_ids
        ]
        return self._engine.next(self._state, datasets, seeds)

    def _validate_if_due(self) -> base.Feedback:
        settings = self._config.federated
        last = self._round_num == settings.rounds
        if not last and self._round_num % settings.evaluate_every:
            return {}
        result = self._engine.evaluate(
            self._state, self._validation_datasets(settings.evaluation_clients)
        )
        self._accuracy = result["metric"]
        self._validations += 1
        return result

    def _evaluation_datasets(self, client_data: Any, client_ids: Sequence[str]) -> list:
        return [
            client_data.create_tf_dataset_for_client(client_id).batch(_EVALUATION_BATCH)
            for client_id in client_ids
        ]

    def _validation_datasets(self, count: int) -> list:
        chosen = cohort_lib.sample_feedback_clients(
            self._data.validation.client_ids,
            count=count,
            seed=self._config.seed,
        )
        return self._evaluation_datasets(self._data.validation, chosen)

    # ---------------------------------------------------------------- pruning

    def _decide(
        self,
        pseudo_gradient: Optional[Sequence[np.ndarray]],
        train_metrics: base.Feedback,
    ) -> None:
        if self._method_stopped:
            return

        def feedback_datasets() -> list:
            return self._validation_datasets(self._config.federated.feedback_clients)

        def examine(
            layers: Mapping[str, int],
        ) -> tuple[base.Feedback, Mapping[str, np.ndarray]]:
            datasets = feedback_datasets()
            found, moments = self._engine.examine(self._state, datasets, layers)
            # A client sends one half of a symmetric matrix.
            sent = sum(m.itemsize * len(m) * (len(m) + 1) // 2 for m in moments.values())
            self._feedback_bytes += len(datasets) * (self._cost.bytes + sent)
            return found, moments

        def try_candidates(
            layers: Mapping[str, int], mixes: Mapping[str, np.ndarray]
        ) -> Sequence[base.Feedback]:
            datasets = feedback_datasets()
            self._feedback_bytes += len(datasets) * sum(map(_bytes_of_mixes, mixes.values()))
            return self._engine.try_candidates(self._state, datasets, layers, mixes)

        def evaluate(model: tf.keras.Model) -> base.Feedback:
            datasets = feedback_datasets()
            self._feedback_bytes += len(datasets) * cost.of(model).bytes
            return federated.evaluate_model(model, datasets, self._engine.task)

        observation = base.Observation(
            round_num=self._round_num,
            total_rounds=self._config.federated.rounds,
            model=self._engine.keras_model(self._state),
            pseudo_gradient=pseudo_gradient,
            train_metrics=train_metrics,
            examine=examine,
            try_candidates=try_candidates,
            evaluate=evaluate,
        )
        self._method_state, decisions = self._method.step(self._method_state, observation)
        for decision in decisions:
            self._carry_out(decision)

    def _carry_out(self, decision: base.Decision) -> None:
        started = time.monotonic()
        if decision.action is base.Action.CUT:
            self._cut(decision)
        elif decision.action is base.Action.ACCEPT:
            self._snapshot = None
        elif decision.action is base.Action.RESTORE:
            if self._snapshot is None:
                raise RuntimeError("The pruning method restores, but nothing was cut before.")
            latest = self._state
            self._restore(self._snapshot, self._snapshot_engine)
            self._state = self._engine.with_progress_of(self._state, latest)
            self._snapshot = None
        elif decision.action is base.Action.ASSIGN:
            model = self._engine.keras_model(self._state)
            model.set_weights(decision.weights)
            self._state = self._engine.set_weights(self._state, model)
        elif decision.action is base.Action.STOP:
            self._method_stopped = True
        self._rebuild_seconds += time.monotonic() - started
        self._records.add_decision(
            self._round_num, decision, parameters=self._cost.parameters, flops=self._cost.flops
        )
        removed = sum(len(indices) for indices in decision.selection.values())
        self._progress.message(
            f"pruning after round {self._round_num}: {decision.action.value}"
            + (f" {removed} filters, {self._cost.parameters:,} parameters left" if removed else "")
            + f" ({decision.reason})"
        )

    def _cut(self, decision: base.Decision) -> None:
        model = self._engine.keras_model(self._state)
        if self._snapshot is None and not decision.reinitialize:
            self._snapshot = checkpoint_lib.ModelState(
                model, self._engine.state_to_arrays(self._state)
            )
            self._snapshot_engine = self._engine
        if decision.weights is not None:
            model = tf.keras.models.clone_model(model)
            model.set_weights(decision.weights)
        removal = surgery.plan_removal(model, decision.selection)
        smaller = removal.apply()
        if decision.reinitialize:
            (seed,) = randomness.integers(self._config.seed, "reinitialization", self._round_num)
            tf.keras.utils.set_random_seed(int(seed))
            smaller = tf.keras.models.clone_model(smaller)
        self._engine = self._engine.with_model(smaller)
        self._state = self._engine.carry_state(
            self._state, None if decision.reinitialize else removal
        )
        self._architecture_changed()

    def _restore(
        self, saved: checkpoint_lib.ModelState, engine: Optional[federated.Engine] = None
    ) -> None:
        self._engine = engine or self._engine.with_model(saved.model)
        self._state = self._engine.state_from_arrays(saved.arrays)
        self._architecture_changed()

    def _architecture_changed(self) -> None:
        model = self._engine.keras_model(self._state)
        self._groups = surgery.find_filter_groups(model)
        self._cost = cost.of(model)

    def _filters(self) -> dict[str, int]:
        """Returns the channels of each prunable group, in network order."""
        return {group.name: group.channels for group in self._groups if group.prunable}

    def _trainable_weights(self) -> list[np.ndarray]:
        return [np.asarray(w) for w in self._state.global_model_weights.trainable]

    # ---------------------------------------------------------------- checkpoints

    def _save_checkpoint(self) -> None:
        self._checkpoints.save(
            checkpoint_lib.Checkpoint(
                round_num=self._round_num,
                current=checkpoint_lib.ModelState(
                    self._engine.keras_model(self._state),
                    self._engine.state_to_arrays(self._state),
                ),
                snapshot=self._snapshot,
                document={
                    "method_state": self._method_state,
                    "method_stopped": self._method_stopped,
                    "accuracy": self._accuracy,
                    "validations": self._validations,
                    "retried_cohorts": self._retried_cohorts,
                    "seconds": self._seconds(),
                    "rebuild_seconds": self._rebuild_seconds,
                    "feedback_bytes": self._feedback_bytes,
                    "metrics": self._records.metrics,
                    "pruning": self._records.pruning,
                },
            )
        )

    def _load_checkpoint(self) -> None:
        found = self._checkpoints.load_newest()
        if found is None:
            return
        self._round_num = found.round_num
        self._restore(found.current)
        self._snapshot, self._snapshot_engine = found.snapshot, None
        document = found.document
        self._method_state = document["method_state"]
        self._method_stopped = document["method_stopped"]
        self._accuracy = document["accuracy"]
        self._validations = document["validations"]
        self._retried_cohorts = document["retried_cohorts"]
        self._earlier_seconds = document["seconds"]
        self._rebuild_seconds = document["rebuild_seconds"]
        self._feedback_bytes = document["feedback_bytes"]
        self._records.restore(document["metrics"], document["pruning"])

    # ---------------------------------------------------------------- results

    def _seconds(self) -> float:
        return self._earlier_seconds + time.monotonic() - self._started

    def _total_bytes(self) -> float:
        columns = ("download_bytes", "upload_bytes", "feedback_bytes")
        return sum(self._records.total(column) for column in columns)

    def _write_config(self) -> None:
        versions = {name: importlib.metadata.version(name) for name in _PACKAGES}
        versions["python"] = platform.python_version()
        files.write_json(
            self._files.config,
            {
                "config": config_lib.to_json(self._config),
                "versions": versions,
                "data_spec": self._data.spec.to_json(),
            },
        )

    def _finish(self) -> dict[str, Any]:
        model = self._engine.keras_model(self._state)
        with files.replacing(self._files.pruned_model) as path:
            model.save(path)
        accuracy = {}
        for name in ("validation", "test"):
            clients = getattr(self._data, name)
            datasets = self._evaluation_datasets(clients, clients.client_ids)
            if name == "test":
                # The yardstick of the simulation, which nobody would have in a deployment.
                result = self._engine.evaluate(self._state, datasets, public=True)
            else:
                result = self._engine.evaluate(self._state, datasets, question=1)
                self._validations += 1
            accuracy[name] = result["metric"]
        total = self._records.total
        summary = self._files.update_summary(
            seed=self._config.seed,
            method=self._config.pruning.method,
            rounds_completed=self._round_num,
            data={
                "name": self._data.spec.name,
                "train_clients": len(self._data.train.client_ids),
                "classes": self._data.spec.num_classes,
            },
            dense=_sizes(self._dense_cost, self._dense),
            pruned=_sizes(self._cost, model),
            # The columns and keys named "accuracy" hold this metric.
            metric=self._engine.task.metric._asdict(),
            accuracy=accuracy,
            communication={
                "download_bytes": int(total("download_bytes") + total("feedback_bytes")),
                "upload_bytes": int(total("upload_bytes")),
                "feedback_bytes": int(total("feedback_bytes")),
                "dense_equivalent_bytes": int(
                    total("dense_download_bytes") + total("dense_upload_bytes")
                ),
            },
            faults={
                "failed_clients": int(total("failed_clients")),
                "retried_cohorts": self._retried_cohorts,
            },
            privacy=self._privacy(),
            time={
                "total_seconds": self._seconds(),
                "seconds_per_round_median": statistics.median(
                    row["seconds"] for row in self._records.metrics
                ),
                "rebuild_seconds_total": self._rebuild_seconds,
            },
        )
        self._progress.message(_headline(summary))
        return summary

    def _privacy(self) -> Optional[dict[str, Any]]:
        """What differential privacy clients have; None without it."""
        return privacy.describe(
            self._engine.settings.aggregator,
            # A cohort that was tried again has received the model and been aggregated, too.
            rounds=self._round_num + self._retried_cohorts,
            num_clients=len(self._data.train.client_ids),
            questions=self._validations,
        )


def _warn_of_inputs(model: tf.keras.Model, data: data_lib.FederatedData) -> None:
    """Says so if the model scales its inputs to nearly nothing, before hours are spent."""
    inputs, *_ = data_lib.client_arrays(data.train, data.train.client_ids[0])
    warning = models.squashed_inputs(model, inputs)
    if warning is not None:
        logging.warning(warning)


def _bytes_of_mixes(mixes: np.ndarray) -> int:
    """Returns the bytes of what survivors take over, [candidates, channels, channels].

    What is sent are the numbers of the channels that go, and their columns at those that stay.
    """
    channels = mixes.shape[-1]
    going = [int((np.diagonal(mix) == 0).sum()) for mix in mixes]
    return sum(4 * gone * (1 + channels - gone) for gone in going)


def _sizes(model_cost: cost.Cost, model: tf.keras.Model) -> dict[str, Any]:
    widths = {
        layer.name: int(getattr(layer, "filters", None) or getattr(layer, "units", 0))
        for layer in model.layers
    }
    return {
        "parameters": model_cost.parameters,
        "flops": model_cost.flops,
        "bytes": model_cost.bytes,
        "nonzero_parameters": int(sum(np.count_nonzero(w) for w in model.get_weights())),
        "filters": {name: width for name, width in widths.items() if width},
    }


def _headline(summary: dict[str, Any]) -> str:
    dense, pruned = summary["dense"], summary["pruned"]
    traffic = summary["communication"]
    used = traffic["download_bytes"] + traffic["upload_bytes"]
    share = used / max(1, traffic["dense_equivalent_bytes"])
    privacy = summary["privacy"]
    epsilon = f", epsilon {privacy['epsilon']:.2f}" if privacy and privacy["epsilon"] else ""
    return (
        f"done: {dense['parameters']:,} -> {pruned['parameters']:,} parameters,"
        f" {dense['flops'] / 1e6:.2f} -> {pruned['flops'] / 1e6:.2f} MFLOP,"
        f" test {summary['metric']['name']} {summary['accuracy']['test']:.3f},"
        f" traffic {used / 1e6:.1f} MB ({share:.0%} of the dense model's){epsilon}"
    )

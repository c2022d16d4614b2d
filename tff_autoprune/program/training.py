"""The round loop: federated averaging, and the pruning method between rounds.

round ─> evaluate ─> record ─> decide ── no change ──────────────> next round
                                 ├── race: the winner's rounds are recorded ─┤
                                 └── move: learner of the smaller network ───┘
"""

from __future__ import annotations

import dataclasses
import signal
import time
from collections.abc import Sequence
from typing import Any, Optional

import ml_collections
import tensorflow as tf

from tff_autoprune import config as config_lib
from tff_autoprune import data as data_lib
from tff_autoprune import federated, files, models, randomness, surgery
from tff_autoprune.program import checkpoint as checkpoint_lib
from tff_autoprune.program import cohort as cohort_lib
from tff_autoprune.program import notices, privacy, pruning_methods, summary, tensorboard
from tff_autoprune.program import records as records_lib
from tff_autoprune.program.averaging import WeightAverage
from tff_autoprune.program.feedback import Feedback
from tff_autoprune.program.learner import Learner
from tff_autoprune.program.progress import Progress
from tff_autoprune.program.rounds import Round, Rounds
from tff_autoprune.run_directory import RunDirectory
from tff_autoprune.search import base
from tff_autoprune.search.change import Change


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
        dense = config_lib.build_model(config, self._data.spec)
        self._method = pruning_methods.create(config)
        engine = federated.Engine(
            dense,
            federated.Settings.from_config(config),
            task=federated.Task.of_data(
                dense, self._data.train, ignored_label=self._data.spec.ignored_label
            ),
            regularizer_fn=self._method.regularizer_fn,
        )
        self._ignored = tuple(config.pruning.ignore_layers)
        self._dense = surgery.Network(dense, self._ignored)
        self._method_state = self._method.initialize(self._dense)
        self._learner = Learner.of(engine, engine.initialize(), self._ignored)
        self._rounds = Rounds(config, self._data.train, report=self._say)
        self._validation = cohort_lib.Validation.of(
            self._data.validation.client_ids,
            seed=config.seed,
            least=config.aggregator.min_clients,
        )
        self._average = WeightAverage()
        self._round_num = 0
        self._method_stopped = False
        self._accuracy: Optional[float] = None
        self._validations = 0
        self._earlier_seconds = 0.0
        self._progress: Optional[Progress] = None
        privacy.check(config, self._data, engine.settings.aggregator)
        if self._method.asks_clients:
            engine.check_comparable()
        # Whether the guarantee can be told, before training spends it.
        summary.guarantee(self._learner, self._data, rounds=0, questions=0)

        # An earlier run is lost only when nothing is wrong with the one that replaces it.
        if overwrite and not resume:
            self._files.clear()
        self._records = records_lib.Records(
            self._files.metrics,
            self._files.pruning,
            tensorboard.release_manager(
                self._files.tensorboard, config_lib.flat(config), _filters(self._dense)
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
        summary.write_config(self._files, self._config, self._data)
        if self._round_num < self._config.federated.rounds:
            # Of a model that is about to change.
            self._files.forget("export", "benchmark", "client", "against_dense", "clients", "fleet")
        with files.replacing(self._files.dense_model) as path:
            self._dense.model.save(path)
        self._progress = Progress(
            self._config.federated.rounds, first_round=self._round_num, quiet=self._quiet
        )
        for line in self._notices():
            self._say(line)
        previous_handler = signal.signal(signal.SIGINT, self._interrupt)
        try:
            if self._round_num == 0:
                self._decide({})
            while self._round_num < self._config.federated.rounds and not self.interrupted:
                self._run_round()
                due = self._round_num % self._config.federated.checkpoint_every == 0
                if due or self.interrupted:
                    self._save_checkpoint()
            if self.interrupted:
                # What there is can be exported and reported.
                written = self._finish() if self._round_num else {}
                self._say(
                    f"stopped after round {self._round_num}; go on with the same command and"
                    " --resume"
                )
                return written
            self._save_checkpoint()
            return self._finish()
        finally:
            signal.signal(signal.SIGINT, previous_handler)
            self._progress.close()

    def _notices(self) -> list[str]:
        """Returns what a user should know before hours are spent."""
        train = self._data.train
        lines = notices.of(
            self._config, train_clients=len(train.client_ids), dense=self._dense.cost
        )
        inputs, *_ = data_lib.client_arrays(train, train.client_ids[0])
        squashed = models.squashed_inputs(self._dense.model, inputs)
        return [*lines, squashed] if squashed else lines

    def _interrupt(self, signum: int, frame: object) -> None:
        del signum, frame
        if self.interrupted:
            raise KeyboardInterrupt
        self.interrupted = True
        self._say("stopping after this round (Ctrl-C again stops at once)")

    def _say(self, line: str) -> None:
        if self._progress is not None:
            self._progress.message(line)

    def _check_run_directory(self, *, resume: bool, overwrite: bool) -> None:
        if resume and self._files.is_run():
            used = self._files.read_config()["config"]
            # More rounds extend a run; its learning-rate schedule is then that of the longer run.
            section = used["federated"]
            section["rounds"] = max(section["rounds"], self._config.federated.rounds)
            config_lib.check_same("--resume", self._config, used)
        else:
            self._files.check_writable(overwrite=overwrite)

    # ---------------------------------------------------------------- rounds

    def _run_round(self) -> None:
        started = time.monotonic()
        done = self._train(self._learner, self._round_num + 1)
        self._record(done, seconds=time.monotonic() - started)
        self._decide(done.metrics)

    def _train(self, learner: Learner, round_num: int) -> Round:
        """Runs the next round of a learner."""
        controls = self._method.controls(self._method_state)
        return self._rounds.run(learner, round_num, penalty=controls.penalty)

    def _record(self, done: Round, *, seconds: float, others: Sequence[int] = (0, 0)) -> None:
        """Takes a round as the run's own, evaluates if it is time, and writes its row.

        Args:
          done: The round.
          seconds: What it took.
          others: Bytes and operations of the networks that trained beside it and were not kept.
        """
        self._round_num, self._learner = done.round_num, done.learner
        if (
            self._round_num
            > (1 - self._config.federated.average_share) * self._config.federated.rounds
        ):
            self._average.add(self._learner.weights())
        validation = self._validate_if_due()
        traffic, dense_bytes = done.traffic, self._dense.cost.bytes
        network = done.learner.network
        row = {
            "round": done.round_num,
            "clients": traffic.sampled,
            "failed_clients": done.failed_clients,
            "retried_cohorts": done.retried_cohorts,
            "examples": int(done.metrics["num_examples"]),
            "train_loss": done.metrics["loss"],
            "train_accuracy": done.metrics["metric"],
            "validation_loss": validation.get("loss"),
            "validation_accuracy": validation.get("metric"),
            "parameters": network.cost.parameters,
            "flops": network.cost.flops,
            "model_bytes": network.cost.bytes,
            "download_bytes": traffic.download,
            "upload_bytes": traffic.upload,
            "race_bytes": others[0],
            "race_flops": others[1],
            "feedback_bytes": 0,
            "dense_download_bytes": traffic.sampled * dense_bytes,
            "dense_upload_bytes": traffic.trained * dense_bytes,
            "penalty": self._method.controls(self._method_state).penalty,
            "rebuild_seconds": 0.0,
            "seconds": seconds,
            **{f"filters/{name}": count for name, count in _filters(network).items()},
        }
        self._records.add_round(row)
        self._progress.round(row, accuracy=self._accuracy, total_bytes=self._total_bytes())

    def _validate_if_due(self) -> dict[str, float]:
        settings = self._config.federated
        last = self._round_num == settings.rounds
        if not last and self._round_num % settings.evaluate_every:
            return {}
        clients = self._validation.evaluation[: settings.evaluation_clients]
        datasets = cohort_lib.evaluation_datasets(self._data.validation, clients)
        result = self._learner.engine.evaluate(self._learner.state, datasets)
        self._accuracy = result["metric"]
        self._validations += 1
        return result

    # ---------------------------------------------------------------- pruning

    def _decide(self, train_metrics: dict[str, float]) -> None:
        """Asks the method, and carries out what it decides."""
        if self._method_stopped:
            return
        started = time.monotonic()
        feedback = Feedback(
            self._config,
            self._data.validation,
            self._validation,
            self._learner,
            self._round_num,
            self._train,
        )
        observation = base.Observation(
            round_num=self._round_num,
            total_rounds=self._config.federated.rounds,
            network=self._learner.present(),
            train_metrics=train_metrics,
        )
        self._method_state, decisions = base.decide(
            self._method, self._method_state, observation, feedback.answer
        )
        if self._records.metrics:
            self._records.metrics[-1]["feedback_bytes"] += feedback.bytes
            self._records.metrics[-1]["rebuild_seconds"] += (
                0.0 if feedback.race else time.monotonic() - started
            )
        raced = next((d.raced for d in decisions if d.raced is not None), None)
        if feedback.race is not None:
            self._adopt(feedback, raced, time.monotonic() - started)
        for decision in decisions:
            if decision.action is base.Action.MOVE and decision.raced is None:
                self._move(decision, observation.network)
            elif decision.action is base.Action.ASSIGN:
                self._learner = self._learner.assigned(decision.weights)
            elif decision.action is base.Action.STOP:
                self._method_stopped = True
            self._note(observation.round_num, decision)

    def _adopt(self, feedback: Feedback, raced: Optional[int], seconds: float) -> None:
        """Takes the rounds of one learner of a race as the run's own."""
        race = feedback.race
        kept: Sequence[Round] = race.stayed if raced is None else race.raced[raced]
        others = [count(kept) // len(kept) for count in (race.other_bytes, race.other_flops)]
        for done in kept:
            self._record(done, seconds=seconds / len(kept), others=others)

    def _move(self, decision: base.Decision, network: surgery.Network) -> None:
        """Changes the network without a race."""
        change = Change(network, decision.structure)
        if not decision.reinitialize:
            self._learner = self._learner.changed(change, self._ignored)
            return
        (seed,) = randomness.integers(self._config.seed, "reinitialization", self._round_num)
        tf.keras.utils.set_random_seed(int(seed))
        self._learner = self._learner.restarted(
            tf.keras.models.clone_model(change.model), self._ignored
        )

    def _note(self, round_num: int, decision: base.Decision) -> None:
        """Writes a decision down, and says it."""
        sizes = self._learner.network.cost
        self._records.add_decision(
            round_num, decision, parameters=sizes.parameters, flops=sizes.flops
        )
        what = ""
        if decision.structure.changes:
            removed = sum(len(ids) for ids in decision.structure.removed.values())
            what = f" {removed} filters, {len(decision.structure.factorized)} layers factorized;"
            what += f" {sizes.parameters:,} parameters now"
        self._say(
            f"pruning after round {round_num}: {decision.action.value}{what} ({decision.reason})"
        )

    # ---------------------------------------------------------------- checkpoints

    def _save_checkpoint(self) -> None:
        self._checkpoints.save(
            checkpoint_lib.Checkpoint(
                round_num=self._round_num,
                model=self._learner.present().model,
                arrays=self._learner.to_arrays(),
                average=self._average.to_arrays(),
                document={
                    "method_state": dataclasses.asdict(self._method_state),
                    "method_stopped": self._method_stopped,
                    "accuracy": self._accuracy,
                    "validations": self._validations,
                    "seconds": self._seconds(),
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
        self._learner = self._learner.restored(found.model, found.arrays, self._ignored)
        self._average = WeightAverage.from_arrays(found.average)
        document = found.document
        self._method_state = self._method.state_from_json(document["method_state"])
        self._method_stopped = document["method_stopped"]
        self._accuracy = document["accuracy"]
        self._validations = document["validations"]
        self._earlier_seconds = document["seconds"]
        self._records.restore(document["metrics"], document["pruning"])

    # ---------------------------------------------------------------- results

    def _seconds(self) -> float:
        return self._earlier_seconds + time.monotonic() - self._started

    def _total_bytes(self) -> float:
        return sum(self._records.total(column) for column in summary.TRAFFIC)

    def _finish(self) -> dict[str, Any]:
        mean = self._average.mean()
        if mean is not None:
            self._learner = self._learner.assigned(mean)
        network = self._learner.present()
        with files.replacing(self._files.pruned_model) as path:
            network.model.save(path)
        written = summary.write(
            self._files,
            config=self._config,
            data=self._data,
            learner=self._learner,
            dense=self._dense,
            records=self._records,
            evaluation_clients=self._validation.evaluation,
            validations=self._validations,
            seconds=self._seconds(),
        )
        for line in (summary.at_chance(written), summary.headline(written)):
            if line is not None:
                self._say(line)
        return written


def _filters(network: surgery.Network) -> dict[str, int]:
    """Returns the channels of each prunable group, in network order."""
    return {group.name: group.channels for group in network.prunable}

"""The whole job on real handwriting: files, figures, reproducibility, interruption, resumption."""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import psutil
import pytest
import tensorflow as tf

from tff_autoprune import federated

ROOT = pathlib.Path(__file__).parents[2]
SMALL = (
    "--config=configs/demo.py",
    "--config.data.name=digits",
    "--config.model.filters=(6,8)",
    "--config.federated.rounds=8",
    "--config.federated.clients_per_round=3",
    "--config.aggregator.min_clients=2",
    "--config.federated.local_epochs=1",
    "--config.federated.evaluate_every=4",
    "--config.federated.checkpoint_every=2",
    "--config.data.resize=16",
)


def command(run_dir, *flags):
    return [sys.executable, "scripts/train.py", *SMALL, f"--run_dir={run_dir}", *flags]


def train(run_dir, *flags, check=True):
    done = subprocess.run(
        command(run_dir, *flags), cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    if check:
        assert done.returncode == 0, done.stderr
    return done


def figures(run_dir):
    """Everything of summary.json but what a clock says."""
    summary = json.loads((run_dir / "summary.json").read_text())
    del summary["time"]
    return summary


def weights(run_dir):
    return tf.keras.models.load_model(run_dir / "models" / "pruned.keras").get_weights()


def assert_same_run(one, other):
    assert figures(one) == figures(other)
    for a, b in zip(weights(one), weights(other)):
        np.testing.assert_array_equal(a, b)
    clocks = ["seconds", "rebuild_seconds"]
    pd.testing.assert_frame_equal(
        pd.read_csv(one / "metrics.csv").drop(columns=clocks),
        pd.read_csv(other / "metrics.csv").drop(columns=clocks),
    )
    assert (one / "pruning.csv").read_text() == (other / "pruning.csv").read_text()


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "paper"
    train(path, "--config.pruning.method=paper", "--config.pruning.paper_k=1.2")
    return path


def test_a_run_writes_what_it_promises(run_dir):
    summary = figures(run_dir)
    metrics = pd.read_csv(run_dir / "metrics.csv")
    model = tf.keras.models.load_model(run_dir / "models" / "pruned.keras")
    dense = tf.keras.models.load_model(run_dir / "models" / "dense.keras")
    assert summary["rounds_completed"] == 8
    assert list(metrics["round"]) == list(range(1, 9))
    assert summary["pruned"]["parameters"] == model.count_params() < dense.count_params()
    assert summary["dense"]["parameters"] == dense.count_params()
    assert metrics["parameters"].iloc[-1] == model.count_params()
    assert summary["pruned"]["filters"]["conv_1"] == model.get_layer("conv_1").filters
    traffic = summary["communication"]
    columns = ["download_bytes", "upload_bytes", "race_bytes", "feedback_bytes"]
    assert [traffic[name] for name in columns] == [metrics[name].sum() for name in columns]
    assert traffic["total_bytes"] == metrics[columns].to_numpy().sum()
    assert traffic["dense_equivalent_bytes"] == 8 * 3 * 2 * 4 * dense.count_params()
    assert 0 <= summary["accuracy"]["test"] <= 1
    assert metrics["validation_accuracy"].notna().sum() == 2
    config = json.loads((run_dir / "config.json").read_text())
    assert config["config"]["federated"]["rounds"] == 8
    assert config["versions"]["tensorflow"] == tf.__version__
    moves = pd.read_csv(run_dir / "pruning.csv").query("action == 'move'")
    assert len(moves) and moves["filters_removed"].gt(0).all()


def test_tensorboard_shows_scalars_filters_and_hyper_parameters(run_dir):
    from tensorboard.backend.event_processing import event_accumulator

    events = event_accumulator.EventAccumulator(str(run_dir / "tensorboard"))
    events.Reload()
    assert {"train_loss", "parameters", "filters/conv_1"} <= set(events.Tags()["tensors"])
    assert len(events.Tensors("train_loss")) == 8
    image = tf.image.decode_png(events.Tensors("filters")[-1].tensor_proto.string_val[2])
    assert image.shape[-1] == 4 and len(np.unique(image)) > 2
    session = events.summary_metadata["_hparams_/session_start_info"].plugin_data
    assert b"federated.rounds" in session.content


def test_the_same_seed_gives_the_same_run(run_dir, tmp_path):
    train(tmp_path / "again", "--config.pruning.method=paper", "--config.pruning.paper_k=1.2")
    assert_same_run(run_dir, tmp_path / "again")


def test_an_earlier_run_is_not_lost_by_mistake(run_dir):
    before = (run_dir / "summary.json").read_text()
    done = train(run_dir, check=False)
    assert done.returncode == 2
    assert "--resume" in done.stderr and "--overwrite" in done.stderr
    other = train(run_dir, "--resume", "--config.seed=9", check=False)
    assert other.returncode == 2
    assert "seed" in other.stderr
    assert (run_dir / "summary.json").read_text() == before


@pytest.mark.parametrize(
    "flags, expected",
    [
        (["--config.data.name=npz", "--config.data.path=absent.npz"], "absent.npz"),
        (["--config.model.filters=(0,3)"], "model.filters: expected integers > 0"),
        (["--config.data.resize=4"], "cannot be built for images of 4x4 pixels"),
        (["--config.pruning.target_parameters=1"], "pruning.target_parameters: expected at least"),
        (["--config.pruning.method=unstructured"], "unstructured pruning needs the parameters"),
        (
            ["--config.pruning.method=uniform", "--config.pruning.uniform_round=8"],
            "pruning.uniform_round: expected less than the 8",
        ),
        (
            [
                "--config.pruning.method=uniform",
                "--config.pruning.uniform_round=2",
                "--config.pruning.target_parameters=1",
            ],
            "pruning.target_parameters: expected at least",
        ),
        (
            [
                "--config.aggregator.name=dp",
                "--config.federated.clients_per_round=11",
                "--config.pruning.method=none",
            ],
            "federated.clients_per_round: expected at most the 10 training clients",
        ),
        (
            ["--config.aggregator.name=dp"],
            "pruning.method: 'auto' asks validation clients",
        ),
        (
            ["--config.aggregator.min_clients=3"],
            "aggregator.min_clients: an evaluation on validation clients needs at least 3 clients",
        ),
    ],
)
def test_what_is_wrong_is_said_before_an_earlier_run_is_lost(run_dir, flags, expected):
    before = (run_dir / "summary.json").read_text()
    done = train(run_dir, "--overwrite", *flags, check=False)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert expected in done.stderr
    assert (run_dir / "summary.json").read_text() == before
    assert len(weights(run_dir))


@pytest.mark.parametrize("where", ["/proc/no/run", __file__ + "/run"])
def test_a_folder_that_cannot_be_made_is_named(where):
    done = train(where, check=False)
    assert done.returncode == 2
    assert f"--run_dir: {where} cannot be made" in done.stderr


def _rounds(run_dir):
    try:
        return len(pd.read_csv(run_dir / "metrics.csv"))
    except (OSError, pd.errors.EmptyDataError):
        return 0


def _kill_after(run_dir, moment, *flags):
    """Starts or resumes a run and kills it without warning, some seconds after its first round."""
    process = subprocess.Popen(
        command(run_dir, "--resume", *flags), cwd=ROOT, stderr=subprocess.DEVNULL
    )
    before = _rounds(run_dir)
    deadline = time.monotonic() + 120
    while process.poll() is None and _rounds(run_dir) <= before and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(moment)
    process.send_signal(signal.SIGKILL)
    process.wait()


def _check_killed_runs_go_on(run_dir, tmp_path, moments):
    path = tmp_path / "killed"
    flags = ("--config.pruning.method=paper", "--config.pruning.paper_k=1.2")
    for moment in moments:
        _kill_after(path, moment, *flags)
    train(path, "--resume", *flags)
    assert_same_run(run_dir, path)


def test_a_killed_run_goes_on_as_if_nothing_had_happened(run_dir, tmp_path):
    _check_killed_runs_go_on(run_dir, tmp_path, [0.3])


def test_a_race_is_part_of_the_run(tmp_path):
    """Its rounds are the run's; what else trained and who judged is counted; a kill repeats it."""
    flags = ("--config.pruning.tolerance=50.0", "--config.federated.rounds=8")
    train(tmp_path / "one", *flags)
    metrics = pd.read_csv(tmp_path / "one" / "metrics.csv")
    moves = pd.read_csv(tmp_path / "one" / "pruning.csv").query("action == 'move'")
    assert list(metrics["round"]) == list(range(1, 9))
    raced = metrics[metrics["race_bytes"] > 0]
    assert len(moves) and moves["measured_error"].notna().all()
    assert list(raced["round"][:3]) == [moves["round"].iloc[0] + n for n in (1, 2, 3)]
    assert raced["parameters"].iloc[0] == moves["parameters"].iloc[0]
    assert metrics["feedback_bytes"].sum() > 0
    assert (raced["race_flops"] > 0).all()
    _kill_after(tmp_path / "killed", 0.3, *flags)
    train(tmp_path / "killed", "--resume", *flags)
    assert_same_run(tmp_path / "one", tmp_path / "killed")


@pytest.mark.slow
def test_twenty_kills_change_nothing(run_dir, tmp_path):
    moments = np.random.default_rng(0).uniform(0, 0.6, 20)
    _check_killed_runs_go_on(run_dir, tmp_path, moments)


def test_a_damaged_checkpoint_is_passed_over(run_dir, tmp_path):
    path = tmp_path / "damaged"
    shutil.copytree(run_dir, path)
    (path / "summary.json").unlink()
    older, newest = sorted((path / "checkpoints").iterdir())
    newest.write_bytes(newest.read_bytes()[:-100])
    done = train(path, "--resume", "--config.pruning.method=paper", "--config.pruning.paper_k=1.2")
    assert f"{newest.name} is damaged" in done.stderr
    assert older.name in [p.name for p in (path / "checkpoints").iterdir()]
    assert_same_run(run_dir, path)


def test_ctrl_c_ends_after_the_round_and_says_how_to_go_on(tmp_path):
    path = tmp_path / "stopped"
    process = subprocess.Popen(
        command(path, "--config.federated.rounds=500"),
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    while _rounds(path) < 1 and process.poll() is None:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)  # As a terminal does: to the whole process group.
    _, stderr = process.communicate(timeout=300)
    assert process.returncode == 130
    assert "--resume" in stderr
    rounds = _rounds(path)
    # What there is can be exported and reported.
    assert figures(path)["rounds_completed"] == rounds
    assert (path / "models" / "pruned.keras").exists()
    [checkpoint] = list((path / "checkpoints").iterdir())[-1:]
    assert f"{rounds:08d}" in checkpoint.name
    assert "Traceback" not in stderr


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_left_running(tmp_path, how):
    process = subprocess.Popen(
        command(tmp_path / "ended", "--config.federated.rounds=500"),
        cwd=ROOT,
        stderr=subprocess.DEVNULL,
    )
    while _rounds(tmp_path / "ended") < 1 and process.poll() is None:
        time.sleep(0.05)
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(how)
    process.wait(timeout=300)
    _, alive = psutil.wait_procs(children, timeout=60)
    assert not alive


def test_a_pipe_behind_the_command_ends(tmp_path):
    line = " ".join(command(tmp_path / "piped")) + " --config.federated.rounds=1 2>&1 | tail -1"
    line = line.replace("(", "'(").replace(")", ")'")
    done = subprocess.run(
        ["bash", "-c", line], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert done.stdout.startswith("done: ")


def test_drop_outs_are_counted_and_failed_cohorts_tried_again(tmp_path):
    train(
        tmp_path / "run",
        "--config.federated.dropout_probability=0.7",
        "--config.federated.max_attempts=20",
        "--config.pruning.method=none",
    )
    faults = figures(tmp_path / "run")["faults"]
    assert faults["failed_clients"] > 0
    assert faults["retried_cohorts"] > 0
    # Who is sampled in vain has downloaded the model all the same.
    metrics = pd.read_csv(tmp_path / "run" / "metrics.csv")
    assert metrics["clients"].sum() == 3 * (8 + faults["retried_cohorts"])
    assert metrics["failed_clients"].sum() == faults["failed_clients"]
    assert metrics["download_bytes"].sum() == (metrics["clients"] * metrics["model_bytes"]).sum()
    answers = metrics["clients"].sum() - faults["failed_clients"]
    assert metrics["upload_bytes"].sum() == answers * metrics["model_bytes"].iloc[0]


def test_a_row_is_of_one_model(tmp_path):
    """The accuracy beside the sizes of a round is that of the model with these sizes."""
    quick = ["--config.federated.rounds=2", "--config.federated.evaluate_every=1"]
    train(tmp_path / "dense", "--config.pruning.method=none", *quick)
    uniform = ["--config.pruning.method=uniform", "--config.pruning.uniform_round=1"]
    train(tmp_path / "cut", *uniform, *quick)
    columns = ["parameters", "flops", "model_bytes", "validation_loss", "validation_accuracy"]
    dense, cut = (
        pd.read_csv(tmp_path / name / "metrics.csv")[columns] for name in ("dense", "cut")
    )
    pd.testing.assert_series_equal(dense.iloc[0], cut.iloc[0])
    assert cut["parameters"][1] < dense["parameters"][1]


def test_a_run_that_no_client_answers_ends_in_one_line(tmp_path):
    done = train(
        tmp_path / "run",
        "--config.federated.dropout_probability=0.999",
        "--config.federated.max_attempts=2",
        "--config.pruning.method=none",
        check=False,
    )
    assert done.returncode == 2
    assert "2 cohorts in a row" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_run_with_noise_says_what_it_promises_to_whom(tmp_path):
    train(
        tmp_path / "run",
        "--config.aggregator.name=dp",
        "--config.aggregator.noise_multiplier=2.0",
        "--config.pruning.method=uniform",
        "--config.pruning.uniform_round=2",
        "--config.federated.rounds=4",
    )
    found = figures(tmp_path / "run")["privacy"]
    settings = federated.AggregatorSettings(name="dp", noise_multiplier=2.0, clients_per_round=3)
    epsilon = federated.privacy.epsilon(settings, rounds=4, num_clients=10)
    assert found["epsilon"] == pytest.approx(epsilon)
    # After the last round, and of all validation clients at the end.
    assert found["validation_questions"] == 2
    held_out = federated.privacy.held_out_epsilon(settings, questions=2)
    assert found["validation_epsilon"] == pytest.approx(held_out)


def test_a_finished_run_is_extended_by_more_rounds(run_dir, tmp_path):
    path = tmp_path / "longer"
    shutil.copytree(run_dir, path)
    stale = figures(path)
    (path / "summary.json").write_text(json.dumps({**stale, "export": {"of": "the old model"}}))
    flags = ["--resume", "--config.pruning.method=paper", "--config.pruning.paper_k=1.2"]
    train(path, *flags, "--config.federated.rounds=10")
    summary = figures(path)
    assert summary["rounds_completed"] == 10 and "export" not in summary
    longer, shorter = (pd.read_csv(one / "metrics.csv") for one in (path, run_dir))
    assert list(longer["round"]) == list(range(1, 11))
    pd.testing.assert_frame_equal(longer[:8], shorter, check_dtype=False)
    fewer = train(path, *flags, "--config.federated.rounds=9", check=False)
    assert fewer.returncode == 2 and "federated.rounds is 9" in fewer.stderr


def test_dry_run_describes_without_training(tmp_path):
    done = train(
        tmp_path / "run", "--dry_run", "--config.aggregator.name=dp", "--config.pruning.method=none"
    )
    assert not (tmp_path / "run").exists()
    for expected in ("Data digits", "conv_1", "Traffic", "Privacy: epsilon", "Time: about"):
        assert expected in done.stdout


def test_a_run_that_ends_at_chance_says_so(tmp_path):
    flags = ["--config.federated.client_learning_rate=100.0", "--config.pruning.method=none"]
    done = train(tmp_path / "run", *flags)
    assert "the model has learned next to nothing" in done.stderr + done.stdout

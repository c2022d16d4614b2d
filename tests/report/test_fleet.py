"""What a run asks of its clients: counted, estimated, modelled."""

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from tff_autoprune import config as config_lib
from tff_autoprune.errors import UserError
from tff_autoprune.report import bill, fleet, run_data

# Two rounds: 1e6 FLOPs an example with 100 examples, then half of both; two clients a round.
METRICS = pd.DataFrame(
    {
        "round": [1, 2],
        "clients": [2, 2],
        "failed_clients": [0, 1],
        "examples": [100, 50],
        "flops": [1_000_000, 500_000],
        "validation_accuracy": [0.5, 0.6],
        "download_bytes": [2_000_000, 1_000_000],
        "upload_bytes": [2_000_000, 500_000],
        "feedback_bytes": [0, 0],
        "dense_download_bytes": [2_000_000, 2_000_000],
        "dense_upload_bytes": [2_000_000, 1_000_000],
    }
)


@pytest.fixture
def run(tmp_path):
    return run_data.RunData(
        directory=run_data.RunDirectory(tmp_path),
        name="run",
        config=config_lib.to_json(config_lib.default()),
        versions={},
        summary={"dense": {"flops": 1_000_000}, "pruned": {"flops": 500_000}},
        metrics=METRICS.copy(),
        cuts=[],
    )


def test_training_is_three_forward_passes_of_the_model_of_the_round(run):
    found = bill.of(run)
    assert found["training_flops"] == 3 * (100e6 + 25e6)
    assert found["dense_training_flops"] == 3 * 150e6
    assert found["examples"] == 150
    # Three clients returned something.
    assert found["examples_per_client_round"] == 50
    assert found["flops_per_client_round"] == 125e6
    run.metrics.drop(columns="examples", inplace=True)
    assert bill.of(run) is None


def test_memory_is_weights_gradients_optimizer_and_outputs(run):
    image = tf.keras.Input((10,))
    model = tf.keras.Model(image, tf.keras.layers.Dense(5)(image))
    weights, outputs = 4 * 55, 4 * (10 + 5)
    run.config["federated"].update(batch_size=20, client_optimizer="adam")
    assert bill.memory(run, model) == 4 * weights + 20 * outputs
    run.config["federated"].update(client_optimizer="sgd")
    assert bill.memory(run, model) == 2 * weights + 20 * outputs
    run.config["federated"].update(client_precision="bfloat16")
    assert bill.memory(run, model) == 2 * weights + 10 * outputs


EXACT = "gflops=0.1,download_mbps=8,upload_mbps=4,gflops_spread=0,mbps_spread=0,"
EXACT += "joules_per_gflop=10,joules_per_megabyte=2"


def test_a_round_is_download_training_and_upload(run):
    seconds, joules = fleet.per_round(run, fleet.load(run, EXACT))
    # A client of round 1: 1 MB down at 1 MB/s, 150 MFLOP at 100 MFLOP/s, 1 MB up at 0.5 MB/s.
    # Of round 2: 0.5 MB, 75 MFLOP by the one that returns, 0.5 MB.
    assert seconds == pytest.approx([1 + 1.5 + 2, 0.5 + 0.75 + 1])
    assert joules == pytest.approx([2 * (1.5 + 4), 2 * (0.75 + 2)])
    dense_seconds, _ = fleet.per_round(run, fleet.load(run, EXACT), as_dense=True)
    assert dense_seconds == pytest.approx([4.5, 1 + 1.5 + 2])


def test_time_to_accuracy_ends_with_the_round_that_reached_it(run):
    phones = fleet.load(run, EXACT)
    arrived = [fleet.model(run, phones, t)["seconds_to_arrive"] for t in (0.4, 0.6, 0.7)]
    assert arrived == [pytest.approx(4.5), pytest.approx(6.75), None]


def test_a_round_lasts_as_long_as_its_slowest_client(run, tmp_path):
    table = tmp_path / "classes.csv"
    table.write_text("share,gflops,download_mbps,upload_mbps\n1,0.1,8,4\n1,0.01,8,4\n")
    phones = fleet.load(run, str(table))
    lasts = []
    for seed in range(200):
        run.config["seed"] = seed
        lasts.append(fleet.per_round(run, phones)[0][0])
    # Of two clients at least one is slow three times in four.
    assert set(np.round(lasts, 6)) == {1 + 1.5 + 2, 1 + 15 + 2}
    assert np.mean(np.array(lasts) > 10) == pytest.approx(0.75, abs=0.1)


def test_runs_of_one_seed_meet_the_same_devices(run):
    phones = fleet.load(run)
    first, again = (fleet.per_round(run, phones)[0] for _ in range(2))
    assert (first == again).all()
    run.config["seed"] = 5
    assert (fleet.per_round(run, phones)[0] != first).all()


def test_speeds_measured_on_phones_are_taken(run, tmp_path):
    table = tmp_path / "measurements.csv"
    table.write_text(
        "device_title,configuration,model,valid,latency_us\n"
        "Pixel,cpu,dense.float32,True,1000\n"
        "Pixel,cpu,dense.float32,False,10\n"
        "Old,cpu,dense.float32,True,4000\n"
        "Old,cpu,other.float32,True,4\n"
    )
    # 1 MFLOP in a millisecond is 1 GFLOP/s.
    assert sorted(fleet.load(run, str(table)).table["gflops"]) == pytest.approx([0.25, 1.0])


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ("absent.csv", "absent.csv: expected a CSV table"),
        ("speed=3", "expected a .csv file or FIELD=NUMBER with a field of gflops"),
        ("gflops=fast", "gflops: expected a number, found 'fast'"),
        ("gflops=0", "gflops: expected numbers > 0"),
    ],
)
def test_a_wrong_fleet_is_named(run, wanted, message):
    with pytest.raises(UserError, match=message):
        fleet.load(run, wanted)


def test_a_table_without_speeds_or_with_words_is_named(run, tmp_path):
    table = tmp_path / "classes.csv"
    table.write_text("share\n1\n")
    with pytest.raises(UserError, match="expected a column 'gflops'"):
        fleet.load(run, str(table))
    table.write_text("gflops\nfast\n")
    with pytest.raises(UserError, match="expected numbers"):
        fleet.load(run, str(table))

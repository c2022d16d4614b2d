"""What is asked for and has no effect is said."""

import pytest
import tensorflow as tf

from tff_autoprune import config as config_lib
from tff_autoprune.program import notices
from tff_autoprune.surgery import cost

DENSE = cost.of(
    tf.keras.Sequential(
        [tf.keras.Input((4, 4, 1)), tf.keras.layers.Flatten(), tf.keras.layers.Dense(3)]
    )
)


def lines(**fields):
    config = config_lib.default()
    config.update_from_flattened_dict(fields)
    return notices.of(config_lib.validate(config), train_clients=10, dense=DENSE)


def test_the_defaults_are_all_read():
    assert lines() == []


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (
            {"federated.clients_per_round": 11},
            "federated.clients_per_round: 11 is more than the 10",
        ),
        (
            {"pruning.target_parameters": 51},
            "pruning.target_parameters: 51 is not less than the 51",
        ),
        ({"pruning.target_bytes": 1000}, "pruning.target_bytes: 1,000 is not less than the 204"),
        ({"pruning.paper_k": 3.0}, "pruning.paper_k: 3.0 is not read with pruning.method=auto"),
        (
            {"pruning.method": "none", "pruning.tolerance": 2.0},
            "pruning.tolerance: 2.0 is not read with pruning.method=none, only with auto",
        ),
        (
            {"aggregator.delta": 1e-6},
            "aggregator.delta: 1e-06 is not read with aggregator.name=mean",
        ),
    ],
)
def test_what_has_no_effect_is_one_line(fields, expected):
    [line] = lines(**fields)
    assert line.startswith(expected)


def test_what_is_read_is_not_mentioned():
    assert (
        lines(**{"pruning.method": "none", "aggregator.name": "dp", "aggregator.delta": 1e-6}) == []
    )
    assert lines(**{"pruning.target_parameters": 50}) == []

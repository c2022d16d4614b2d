"""Settings name the field that is wrong."""

from __future__ import annotations

import dataclasses

import pytest

from tff_autoprune import federated
from tff_autoprune.errors import UserError
from tff_autoprune.federated import privacy


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"client_optimizer": "lion"}, r"federated.client_optimizer: .*adam.*found 'lion'"),
        ({"server_optimizer": None}, r"federated.server_optimizer: .*found None"),
        ({"client_learning_rate": 0}, r"federated.client_learning_rate: .*> 0, found 0"),
        ({"client_learning_rate": float("nan")}, r"federated.client_learning_rate: .*found nan"),
        ({"client_epsilon": 0.0}, r"federated.client_epsilon: .*> 0, found 0.0"),
        ({"server_learning_rate": -1.0}, r"federated.server_learning_rate: .*found -1.0"),
        ({"server_learning_rate": True}, r"federated.server_learning_rate: .*found True"),
        ({"client_weighting": "size"}, r"federated.client_weighting: .*found 'size'"),
        ({"batch_norm": "ignore"}, r"federated.batch_norm: .*found 'ignore'"),
        ({"rounds": 0}, r"federated.rounds: expected an integer > 0, found 0"),
    ],
)
def test_a_wrong_setting_is_named(fields, message):
    with pytest.raises(UserError, match=message):
        federated.Settings(**fields)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": "median"}, r"aggregator.name: .*found 'median'"),
        ({"name": "dp"}, r"aggregator.clients_per_round: .*found None"),
        ({"noise_multiplier": -0.1}, r"aggregator.noise_multiplier: .*found -0.1"),
        ({"delta": 1.0}, r"aggregator.delta: .*< 1, found 1.0"),
        ({"dp_initial_clip": 0.0}, r"aggregator.dp_initial_clip: .*found 0.0"),
        ({"dp_target_quantile": 1.5}, r"aggregator.dp_target_quantile: .*found 1.5"),
    ],
)
def test_a_wrong_aggregator_setting_is_named(fields, message):
    with pytest.raises(UserError, match=message):
        federated.AggregatorSettings(**fields)


def test_settings_do_not_change():
    with pytest.raises(dataclasses.FrozenInstanceError):
        federated.Settings().client_optimizer = "sgd"


_DP = federated.AggregatorSettings(name="dp", noise_multiplier=2.0, clients_per_round=50)


def test_epsilon_grows_with_rounds_and_falls_with_noise_and_population():
    base = privacy.epsilon(_DP, rounds=100, num_clients=3400)
    assert 0 < base < float("inf")
    assert privacy.epsilon(_DP, rounds=200, num_clients=3400) > base
    assert privacy.epsilon(_DP, rounds=100, num_clients=6800) < base
    noisier = dataclasses.replace(_DP, noise_multiplier=4.0)
    assert privacy.epsilon(noisier, rounds=100, num_clients=3400) < base
    assert privacy.epsilon(_DP, rounds=0, num_clients=3400) == 0
    silent = dataclasses.replace(_DP, noise_multiplier=0.0)
    assert privacy.epsilon(silent, rounds=1, num_clients=3400) == float("inf")


def test_epsilon_of_one_full_round_is_near_that_of_the_gaussian_mechanism():
    settings = dataclasses.replace(_DP, noise_multiplier=10.0)
    # Exact for one Gaussian of sensitivity 2 C and noise 10 C at delta 1e-5 (Balle and Wang 2018):
    # 0.7245. Renyi accounting may only be above.
    found = privacy.epsilon(settings, rounds=1, num_clients=50)
    assert 0.72 < found < 1.0


def test_epsilon_is_refused_where_it_makes_no_sense():
    with pytest.raises(UserError, match="only 'dp'"):
        privacy.epsilon(federated.AggregatorSettings(), rounds=1, num_clients=10)
    with pytest.raises(UserError, match="at most the 10 training clients"):
        privacy.epsilon(_DP, rounds=1, num_clients=10)

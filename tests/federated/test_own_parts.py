"""Parts that users bring from TFF, and FedProx."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff
from federated_doubles import (
    assert_same_bits,
    few_clients,
    make_datasets,
    make_model,
    weights_of,
)

from tff_autoprune import federated, surgery
from tff_autoprune.errors import UserError

_SIZES = (20, 9, 8)
_RATE = 0.05


def _round(**fields):
    engine = federated.Engine(make_model(), few_clients(**fields))
    return weights_of(engine.next(engine.initialize(), make_datasets(_SIZES)).state)


def test_fed_prox_pulls_clients_back_to_the_received_weights():
    # Not against TFF 0.87, whose term has the wrong sign: it adds mu (w_received - w) to gradients.
    strength, [dataset] = 5.0, make_datasets((20,))
    model = make_model()
    received = [tf.constant(v) for v in model.trainable_weights]
    loss_of = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    for images, labels in dataset:
        with tf.GradientTape() as tape:
            loss = loss_of(labels, model(images, training=True))
            for weight, start in zip(model.trainable_weights, received):
                loss += strength / 2 * tf.reduce_sum((weight - start) ** 2)
        for weight, step in zip(
            model.trainable_weights, tape.gradient(loss, model.trainable_weights)
        ):
            weight.assign_sub(_RATE * step)
    settings = few_clients(
        client_optimizer="sgd", client_learning_rate=_RATE, proximal_strength=strength
    )
    engine = federated.Engine(make_model(), settings)
    found = weights_of(engine.next(engine.initialize(), [dataset]).state)
    for ours, expected, start in zip(found, model.trainable_weights, received):
        np.testing.assert_allclose(ours, expected, atol=1e-6)
        assert np.abs(ours - start).max() > 1e-5


def test_optimizers_of_tff_take_the_place_of_named_ones():
    build = tff.learning.optimizers.build_sgdm
    named = _round(client_optimizer="sgd", client_learning_rate=_RATE, server_optimizer="momentum")
    own = _round(tff_client_optimizer=build(_RATE), tff_server_optimizer=build(1.0, momentum=0.9))
    assert_same_bits(named, own)


def test_the_state_of_an_own_server_optimizer_survives_a_cut():
    optimizer = tff.learning.optimizers.build_adagrad(0.1)
    engine = federated.Engine(make_model(), few_clients(tff_server_optimizer=optimizer))
    datasets = make_datasets(_SIZES)
    old = engine.next(engine.initialize(), datasets).state
    removal = surgery.plan_removal(engine.keras_model(old), {engine.model.layers[1].name: [1]})
    smaller = engine.with_model(removal.apply())
    state = smaller.carry_state(old, removal)
    expected = removal.slice_trainable([np.asarray(v) for v in old.finalizer["preconditioner"]])
    assert_same_bits(list(state.finalizer["preconditioner"]), list(expected))
    assert not smaller.next(state, datasets).failed


@pytest.mark.parametrize(
    "factory",
    [
        lambda: tff.aggregators.clipping_factory(0.001, tff.aggregators.MeanFactory()),
        tff.aggregators.UnweightedMeanFactory,
    ],
    ids=["weighted", "unweighted"],
)
def test_any_aggregator_of_tff_aggregates_updates(factory):
    fields = {"client_optimizer": "sgd", "client_learning_rate": _RATE}
    own = _round(tff_aggregator=factory(), **fields)
    assert all(np.isfinite(w).all() for w in own)
    assert any(np.abs(a - b).max() > 1e-7 for a, b in zip(own, _round(**fields)))


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"tff_client_optimizer": "adam"}, "tff_client_optimizer: expected a tff.learning.opti"),
        ({"tff_server_optimizer": tf.keras.optimizers.SGD()}, "tff_server_optimizer: expected"),
        ({"tff_aggregator": "mean"}, "tff_aggregator: expected a factory of tff.aggregators"),
        (
            {
                "tff_aggregator": tff.aggregators.MeanFactory(),
                "aggregator": federated.AggregatorSettings(name="dp", clients_per_round=3),
            },
            "tff_aggregator: the guarantee of aggregator.name='dp'",
        ),
        ({"proximal_strength": -1.0}, "federated.proximal_strength: expected a number >= 0"),
    ],
)
def test_what_is_no_such_part_is_named(fields, expected):
    with pytest.raises(UserError, match=expected):
        federated.Settings(**fields)

"""One ranking of filters and ranks: estimates hold, ladders fall, structures work."""

import numpy as np
import pytest
import tensorflow as tf

from tff_autoprune import models, surgery
from tff_autoprune.search import change, counted_cost, structure

TARGETS = (0.6, 0.4, 0.25, 0.12)


def cnn():
    return models.build("cnn", input_shape=(28, 28, 1), num_classes=62, seed=0, filters=(16, 24))


def resnet():
    return models.build(
        "resnet", input_shape=(28, 28, 1), num_classes=62, normalization="group", group_size=4
    )


def inception():
    return models.build("inception", input_shape=(28, 28, 1), num_classes=62)


def space(network, **options):
    cost = network.cost
    weights = counted_cost.CostWeights(0.5 / cost.parameters, 0.5 / cost.flops)
    return structure.Space(network, weights, **options)


@pytest.mark.parametrize("make", [cnn, resnet, inception])
def test_estimates_are_what_the_built_network_costs(make):
    network = surgery.Network(make())
    ranked = space(network)
    assert ranked.cost == pytest.approx(1.0)
    for found in ranked.ladder(TARGETS):
        built = surgery.Network(change.Change(network, found).model).cost
        share = (built.parameters / network.cost.parameters + built.flops / network.cost.flops) / 2
        assert found.cost == pytest.approx(share, abs=0.015)


@pytest.mark.parametrize("make", [cnn, resnet])
def test_a_ladder_falls_and_loses_more_and_more(make):
    ladder = space(surgery.Network(make())).ladder(TARGETS)
    assert [found.cost <= target for found, target in zip(ladder, TARGETS)] == [True] * len(TARGETS)
    lost = [found.lost for found in ladder]
    assert lost == sorted(lost)


def test_dead_filters_go_first_and_a_low_rank_is_found():
    model = cnn()
    weights = model.get_weights()
    weights[0][..., 5] = 0.0
    # conv_2 separates into three products of a column and a row.
    rng = np.random.default_rng(0)
    columns, rows = rng.normal(size=(5, 16, 3)), rng.normal(size=(3, 5, 24))
    weights[2] = np.einsum("aer,rbo->abeo", columns, rows).astype(np.float32) / 10
    model.set_weights(weights)
    (found,) = space(surgery.Network(model)).ladder([0.4])
    assert 3 <= found.factorized["conv_2"].rank < 12
    assert found.removed.get("conv_1", (5,))[0] == 5
    assert found.lost < 1e-4


def test_the_cost_decides_what_goes():
    """Parameters lie in the second layer, operations in the first."""
    network = surgery.Network(cnn())
    few = {}
    for name, weights in (
        ("parameters", counted_cost.CostWeights(1 / network.cost.parameters, 0.0)),
        ("flops", counted_cost.CostWeights(0.0, 1 / network.cost.flops)),
    ):
        ranked = structure.Space(network, weights, factorize=False)
        (few[name],) = ranked.ladder([0.4])

    def gone(what, layer):
        return len(few[what].removed.get(layer, ()))

    assert gone("flops", "conv_1") > gone("parameters", "conv_1")
    assert gone("parameters", "conv_2") > gone("flops", "conv_2")


@pytest.mark.parametrize("make", [cnn, resnet, inception])
@pytest.mark.parametrize("target", [0.5, 0.2])
def test_a_change_carries_the_weights_and_what_belongs_to_them(make, target):
    model = make()
    network = surgery.Network(model)
    (found,) = space(network).ladder([target])
    made = change.Change(network, found)
    smaller = made.model
    carried = made.slice_trainable([w.numpy() for w in model.trainable_weights])
    assert [c.shape for c in carried] == [tuple(w.shape) for w in smaller.trainable_weights]
    # What is neither refitted nor factorized is inherited.
    names = [w.name for w in smaller.trainable_weights]
    bias = next(i for i, name in enumerate(names) if "bias" in name or "beta" in name)
    np.testing.assert_array_equal(carried[bias], smaller.trainable_weights[bias])
    outputs = smaller(tf.ones([2, *model.input_shape[1:]]))
    assert outputs.shape == (2, 62) and np.isfinite(outputs).all()

"""Each way in which channels meet: the groups found, and the equality of what is left."""

import graph_cases
import numpy as np
import pytest
import tensorflow as tf

from tff_autoprune import surgery

pytestmark = pytest.mark.filterwarnings(
    "ignore::tff_autoprune.surgery.network.FixedBoundaryWarning"
)


@pytest.mark.parametrize("name", list(graph_cases.CASES))
def test_groups_and_equality(name):
    model = graph_cases.build(name)
    groups = {group.name: group for group in surgery.find_filter_groups(model)}
    for expected, channels in graph_cases.CASES[name][1].items():
        assert groups[expected].prunable == (channels > 0), groups[expected].reason
        if channels:
            assert groups[expected].channels == channels
        else:
            assert groups[expected].reason
    generator = np.random.default_rng(2)
    selection = {
        group.name: generator.permutation(group.channels)[: max(1, group.channels // 2)]
        for group in groups.values()
        if group.prunable
    }
    removal = surgery.plan_removal(model, selection)
    smaller = removal.apply()
    images = generator.normal(size=(2, 8, 8, 3)).astype(np.float32)
    assert surgery.difference(removal, smaller, images) <= 1e-5
    if selection:
        assert smaller.count_params() < model.count_params()
    for old, new in zip(model.layers, smaller.layers):
        assert (old.name, type(old)) == (new.name, type(new))


# Neither Keras' own reload of the original nor ours of the copy is at stake here, but that nothing
# of the cut depends on the objects in memory. Keras reloads none of NOT_RELOADED, cut or not.
NOT_RELOADED = ("unknown_layer", "gather", "virtual_batches", "shared_kernel")


@pytest.mark.parametrize("name", [n for n in graph_cases.CASES if n not in NOT_RELOADED])
def test_config_round_trip(name):
    model = graph_cases.build(name)
    groups = [group for group in surgery.find_filter_groups(model) if group.prunable]
    smaller = surgery.remove_filters(model, {group.name: [0] for group in groups})
    again = tf.keras.Model.from_config(smaller.get_config())
    again.set_weights(smaller.get_weights())
    images = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype(np.float32)
    np.testing.assert_allclose(again(images), smaller(images), rtol=1e-5, atol=1e-5)

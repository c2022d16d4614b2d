"""Energies and the selection of the weakest channels."""

import numpy as np
import pytest

from tff_autoprune import models, surgery
from tff_autoprune.search import ranking


def cnn(filters=(6, 8)):
    return models.build("cnn", input_shape=(28, 28, 1), num_classes=5, seed=1, filters=filters)


def prunable(model):
    return [group for group in surgery.find_filter_groups(model) if group.prunable]


@pytest.mark.parametrize("name,options", [("cnn", {}), ("inception", {}), ("resnet", {})])
def test_the_energies_of_a_group_sum_to_one(name, options):
    model = models.build(name, input_shape=(28, 28, 1), num_classes=5, **options)
    groups = prunable(model)
    energies = ranking.energies(groups, model.get_weights())
    assert set(energies) == {group.name for group in groups}
    for group in groups:
        assert energies[group.name].shape == (group.channels,)
        assert energies[group.name].sum() == pytest.approx(1.0)
        assert (energies[group.name] >= 0).all()


def test_a_filter_may_grow_if_its_readers_shrink():
    model = cnn()
    groups = prunable(model)
    before = ranking.energies(groups, model.get_weights())
    weights = model.get_weights()
    kernel, reader = weights[0], weights[2]
    factor = np.linspace(0.1, 10, 6).astype(np.float32)
    # All by the same power of the factor, so that the shares of the sums do not move either.
    norm = np.sqrt((kernel**2).sum(axis=(0, 1, 2)))
    kernel /= norm
    reader *= norm[None, None, :, None]
    same = ranking.energies(groups, weights)["conv_1"]
    kernel *= factor
    reader /= factor[None, None, :, None]
    scaled = ranking.energies(groups, weights)["conv_1"]
    np.testing.assert_allclose(scaled, same, rtol=1e-5)
    np.testing.assert_allclose(same, before["conv_1"], rtol=1e-5)


def test_a_channel_that_nothing_reads_goes_first():
    model = cnn()
    weights = model.get_weights()
    weights[2][:, :, 3, :] = 0
    groups = prunable(model)
    savings = {group.name: 1.0 for group in groups}
    energies = ranking.energies(groups, weights)
    assert ranking.weakest(groups, energies, savings, 1.0, least_left=0.5) == {"conv_1": [3]}


def test_with_a_normalization_its_scale_counts():
    model = models.build("resnet", input_shape=(28, 28, 1), num_classes=5, seed=0)
    weights = model.get_weights()
    names = [weight.name for weight in model.weights]
    gamma = names.index("block_1_conv_1_norm/gamma:0")
    weights[gamma][:] = 1.0
    weights[gamma][4] = 1e-3
    energies = ranking.energies(prunable(model), weights)["block_1_conv_1"]
    assert np.argmin(energies) == 4


def test_what_saves_more_goes_first_and_something_always_stays():
    model = cnn()
    groups = prunable(model)
    energies = {group.name: np.full(group.channels, 1 / group.channels) for group in groups}
    cheap_first = ranking.weakest(
        groups, energies, {"conv_1": 5.0, "conv_2": 1.0}, 14.0, least_left=0.5
    )
    assert {name: len(ids) for name, ids in cheap_first.items()} == {"conv_1": 3}
    everything = ranking.weakest(
        groups, energies, {"conv_1": 1.0, "conv_2": 1.0}, 1e9, least_left=0.0
    )
    assert {name: len(ids) for name, ids in everything.items()} == {"conv_1": 5, "conv_2": 7}
    half = ranking.weakest(groups, energies, {"conv_1": 1.0, "conv_2": 1.0}, 1e9, least_left=0.5)
    assert {name: len(ids) for name, ids in half.items()} == {"conv_1": 3, "conv_2": 4}


def test_channels_that_save_nothing_stay():
    model = cnn()
    groups = prunable(model)
    energies = ranking.energies(groups, model.get_weights())
    assert ranking.weakest(groups, energies, {g.name: 0.0 for g in groups}, 1, least_left=0) == {}

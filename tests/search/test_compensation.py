"""Survivors stand in for removed channels."""

import numpy as np
import pytest
import tensorflow as tf
from pruning_round_loop import feature_moments

from tff_autoprune import models, surgery
from tff_autoprune.search import compensation

IMAGES = np.random.default_rng(0).random((32, 28, 28, 1), np.float32)


def prunable(model):
    return [group for group in surgery.find_filter_groups(model) if group.prunable]


def refitted(model, selection):
    groups = prunable(model)
    found = compensation.readers(model, groups)
    moments = feature_moments(model, {reader.layer: reader.places for reader in found})
    mixes = compensation.stand_ins(groups, found, selection, moments)
    return compensation.compensate(found, model.get_weights(), mixes)


def difference(model, selection, compensated):
    """Relative change of the logits when the channels go."""
    removal = surgery.plan_removal(model, selection)
    smaller = removal.apply()
    if compensated:
        smaller.set_weights(removal.slice_weights(refitted(model, selection)))
    before, after = model(IMAGES), smaller(IMAGES)
    return float(tf.norm(after - before) / tf.norm(before))


def flatten_model():
    image = tf.keras.Input((28, 28, 1))
    x = tf.keras.layers.Conv2D(6, 5, strides=4, activation="relu", name="conv")(image)
    x = tf.keras.layers.Flatten()(x)
    return tf.keras.Model(image, tf.keras.layers.Dense(4, name="logits")(x))


@pytest.mark.parametrize("build", ["gap", "flatten"])
def test_a_copy_is_merged_into_its_twin(build):
    tf.keras.utils.set_random_seed(0)
    if build == "flatten":
        model, name = flatten_model(), "conv"
    else:
        model = models.build("cnn", input_shape=(28, 28, 1), num_classes=5, filters=(6, 8))
        name = "conv_1"
    weights = model.get_weights()
    weights[0][..., 5] = weights[0][..., 2]
    model.set_weights(weights)
    plain = difference(model, {name: [5]}, compensated=False)
    assert difference(model, {name: [5]}, compensated=True) < 0.1 * plain


@pytest.mark.parametrize("seed", range(3))
def test_survivors_take_over_no_larger_weights_than_those_that_go(seed):
    model = models.build("cnn", input_shape=(28, 28, 1), num_classes=5, filters=(6, 8))
    groups = prunable(model)
    found = compensation.readers(model, groups)
    # Nearly the same feature six times: least squares alone gives weights of about a hundred.
    generator = np.random.default_rng(seed)
    features = generator.random((1000, 1)) + 1e-3 * generator.random((1000, 6))
    moments = {found[0].layer: features.T @ features}
    mix = compensation.stand_ins(groups, found[:1], {"conv_1": [1, 4]}, moments)[found[0].layer]
    taken_over = mix[np.ix_([0, 2, 3, 5], [1, 4])]
    assert np.all(np.linalg.norm(taken_over, axis=0) < 1.01)
    assert np.allclose(features @ mix[:, 4], features[:, 4], atol=0.01)
    assert not mix[[1, 4]].any()


@pytest.mark.parametrize("seed", range(3))
def test_random_filters_are_partly_replaced(seed):
    model = models.build("cnn", input_shape=(28, 28, 1), num_classes=5, seed=seed)
    selection = {"conv_1": [0, 5, 9, 20], "conv_2": list(range(12))}
    plain = difference(model, selection, compensated=False)
    assert difference(model, selection, compensated=True) < 0.7 * plain


def test_what_is_not_cut_does_not_change():
    model = models.build("inception", input_shape=(28, 28, 1), num_classes=5, seed=0)
    before = model.get_weights()
    name = next(group.name for group in prunable(model))
    after = refitted(model, {name: [1]})
    members = {m.position for m in prunable(model)[0].members if m.role == surgery.Role.CONSUMER}
    for position, (one, other) in enumerate(zip(before, after)):
        assert np.array_equal(one, other) == (position not in members)


@pytest.mark.parametrize("normalization", ["batch", "group"])
def test_normalized_residual_networks_stay_finite(normalization):
    model = models.build(
        "resnet", input_shape=(28, 28, 1), num_classes=5, normalization=normalization
    )
    selection = {group.name: [0] for group in prunable(model)}
    for value in refitted(model, selection):
        assert np.isfinite(value).all()


def unexplained(model, weights, features):
    groups = prunable(model)
    found = compensation.readers(model, groups)
    moments = {reader.layer: features[reader.layer] for reader in found}
    return compensation.unexplained(groups, found, weights, moments)


@pytest.mark.parametrize("build", ["gap", "flatten"])
def test_nothing_hangs_on_a_copy_or_on_what_nothing_reads(build):
    tf.keras.utils.set_random_seed(0)
    if build == "flatten":
        model, name, reader = flatten_model(), "conv", "logits"
    else:
        model = models.build("cnn", input_shape=(28, 28, 1), num_classes=5, filters=(6, 8))
        name, reader = "conv_1", "conv_2"
    features = np.random.default_rng(0).random((1000, 6))
    features[:, 5] = features[:, 2]
    moments = {found.layer: np.eye(8) for found in compensation.readers(model, prunable(model))}
    moments[reader] = features.T @ features
    kernel = model.get_layer(reader).kernel
    rows = kernel.numpy().reshape(-1, 6, kernel.shape[-1])
    rows[:, 1] = 0.0
    kernel.assign(rows.reshape(kernel.shape))
    scores = unexplained(model, model.get_weights(), moments)[name]
    assert scores.shape == (6,)
    assert scores[1] == 0.0
    assert scores[[2, 5]].max() < 0.2 * scores[[0, 3, 4]].min()


def test_what_a_concatenation_moves_is_found_at_its_readers():
    model = models.build("inception", input_shape=(28, 28, 1), num_classes=5, seed=0)
    found = compensation.readers(model, prunable(model))
    moments = feature_moments(model, {reader.layer: reader.places for reader in found})
    before = unexplained(model, model.get_weights(), moments)
    weights = model.get_weights()
    # Channel 3 of the second branch of the second block lies behind the 32 channels of the first.
    position = next(reader.position for reader in found if reader.layer == "conv_1")
    weights[position][:, :, 32 + 3] = 0.0
    after = unexplained(model, weights, moments)
    assert set(after) == {group.name for group in prunable(model)}
    assert before["block_2_conv_3x3"][3] > 0
    assert np.argmin(after["block_2_conv_3x3"]) == 3
    assert after["block_2_conv_3x3"][3] == 0.0


def test_nothing_is_taken_over_where_nothing_is_read():
    model = models.build("cnn", input_shape=(28, 28, 1), num_classes=5, filters=(6, 8))
    groups = prunable(model)
    found = compensation.readers(model, groups)
    moments = {r.layer: np.zeros((model.weights[r.position].shape[-2],) * 2) for r in found}
    mixes = compensation.stand_ins(groups, found, {"conv_1": [5], "conv_2": [0, 3]}, moments)
    for mix in mixes.values():
        np.testing.assert_array_equal(mix, np.diag(np.diag(mix)))

import numpy as np
import pruning_models
import pytest
import tensorflow as tf

from tff_autoprune import search, surgery
from tff_autoprune.errors import UserError

L = tf.keras.layers


def two_layers():
    """A dense layer of 3 units and one that reads them, with known weights."""
    model = tf.keras.Sequential(
        [L.Input((2,)), L.Dense(3, name="first"), L.Dense(1, name="second")]
    )
    model.set_weights(
        [
            np.array([[1.0, -2, 0], [3, 0, -4]]),
            np.array([0.5, 0.0, -1]),
            np.array([[1.0], [0], [2]]),
            np.zeros(1),
        ]
    )
    return model, surgery.find_filter_groups(model)[0]


def test_l1_is_the_sum_of_absolute_weights():
    model, group = two_layers()
    scores = search.importance.L1(normalize=None)(group, model.get_weights())
    np.testing.assert_allclose(scores, [4, 2, 4])


def test_l2_is_the_euclidean_norm():
    model, group = two_layers()
    scores = search.importance.L2(normalize=None)(group, model.get_weights())
    np.testing.assert_allclose(scores, [np.sqrt(10), 2, 4])


def test_geometric_median_sums_distances():
    model, group = two_layers()
    scores = search.importance.GeometricMedian(normalize=None)(group, model.get_weights())
    a, b, c = np.array([1.0, 3]), np.array([-2.0, 0]), np.array([0.0, -4])
    ab, ac, bc = (np.linalg.norm(p - q) for p, q in ((a, b), (a, c), (b, c)))
    np.testing.assert_allclose(scores, [ab + ac, ab + bc, ac + bc])


def test_taylor_multiplies_weights_and_update():
    model, group = two_layers()
    update = search.importance.align_with_weights(
        model, [np.full(w.shape, 2.0) for w in model.trainable_weights]
    )
    score = search.importance.Taylor(normalize=None)
    np.testing.assert_allclose(score(group, model.get_weights(), update=update), [8, 4, 8])
    every = search.importance.Taylor(normalize=None, members="all", combine="sum")
    # Kernel 8, 4, 8; bias 1, 0, 2; reader 2, 0, 4.
    np.testing.assert_allclose(every(group, model.get_weights(), update=update), [11, 4, 14])
    with pytest.raises(UserError, match="pseudo-gradient"):
        score(group, model.get_weights())


def test_members_are_normalized_and_combined():
    model, group = two_layers()
    # Producer [4, 2, 4] and reader [1, 0, 2], each divided by its mean.
    first, second = np.array([1.2, 0.6, 1.2]), np.array([1.0, 0, 2])
    expected = {"mean": (first + second) / 2, "max": np.maximum(first, second)}
    for combine, scores in expected.items():
        found = search.importance.L1(combine=combine, members="all")(group, model.get_weights())
        np.testing.assert_allclose(found, scores)


def test_filters_of_one_channel_count_together():
    model = pruning_models.resnet("group")
    group = next(g for g in surgery.find_filter_groups(model) if g.name == "stem")
    weights = model.get_weights()
    scores = search.importance.L1(normalize=None)(group, weights)
    expected = np.abs(weights[0]).sum(axis=(0, 1, 2)).reshape(4, 4).sum(axis=1)
    np.testing.assert_allclose(scores, expected, rtol=1e-6)


def test_batch_norm_scale():
    model = pruning_models.resnet()
    groups = {g.name: g for g in surgery.find_filter_groups(model)}
    scores = search.importance.BatchNormScale(normalize=None)(groups["stem"], model.get_weights())
    np.testing.assert_allclose(scores, np.abs(model.get_layer("stem_norm").gamma), rtol=1e-6)
    with pytest.raises(UserError, match="no normalization"):
        model, group = two_layers()
        search.importance.BatchNormScale()(group, model.get_weights())


def test_random_depends_on_seed_and_group_only():
    model = pruning_models.resnet()
    first, second = surgery.find_filter_groups(model)[:2]
    score = search.importance.Random(3)
    np.testing.assert_array_equal(score(first, []), score(first, model.get_weights()))
    assert not np.array_equal(score(first, []), search.importance.Random(4)(first, []))
    assert not np.array_equal(score(first, [])[:8], score(second, [])[:8])


def test_zero_weights_do_not_divide_by_zero():
    model, group = two_layers()
    scores = search.importance.L1()(group, [np.zeros_like(w) for w in model.get_weights()])
    np.testing.assert_array_equal(scores, np.zeros(3))


@pytest.mark.parametrize("setting", ["combine", "normalize", "members"])
def test_wrong_settings(setting):
    with pytest.raises(UserError, match=f"{setting} must be one of"):
        search.importance.L2(**{setting: "wrong"})

import numpy as np
import pruning_models
import pytest
import tensorflow as tf

from tff_autoprune import surgery
from tff_autoprune.search import penalty

L = tf.keras.layers


def flattened_branches():
    """A Dense layer that reads pixels of two concatenated branches."""
    i = L.Input((6, 6, 2))
    branches = [L.Conv2D(f, 3, activation="relu", name=f"branch_{f}")(i) for f in (4, 6)]
    x = L.Flatten()(L.Concatenate()(branches))
    return pruning_models.randomized(tf.keras.Model(i, L.Dense(3, name="head")(x)))


MODELS = {
    "cnn": pruning_models.cnn,
    "flatten": pruning_models.cnn_with_flatten,
    "batch_norm": pruning_models.resnet,
    "group_norm": lambda: pruning_models.resnet("group"),
    "inception": pruning_models.inception,
    "flattened_branches": flattened_branches,
}


def expected(model):
    """Sums over channels the norm of what makes them (gamma, if there is one) and reads them.

    Each counts the square root of its number of weights.
    """
    total = 0.0
    for group in surgery.find_filter_groups(model):
        kinds = {m.kind for m in group.members}
        squares, sizes = np.zeros((2, group.channels))
        for m in group.members:
            makes = m.kind == "gamma" if "gamma" in kinds else m.role == "producer"
            if group.prunable and (makes or m.role == "consumer"):
                rows = np.moveaxis(model.weights[m.position].numpy(), m.axis, 0)
                for place, channel in zip(m.positions, m.channel_of):
                    squares[channel] += np.square(rows[place]).sum()
                    sizes[channel] += rows[place].size
        total += np.sqrt(sizes * squares).sum()
    return total


@pytest.mark.parametrize("name", MODELS)
def test_the_lasso_counts_all_weights_that_make_or_read_a_channel(name):
    model = MODELS[name]()
    value = penalty.group_lasso(model)(model.trainable_weights)
    assert float(value) == pytest.approx(expected(model), rel=1e-4)


@pytest.mark.parametrize("name", MODELS)
def test_the_lasso_of_a_model_serves_its_narrower_versions(name):
    model = MODELS[name]()
    groups = [g for g in surgery.find_filter_groups(model) if g.prunable]
    cut = {g.name: range(0, g.channels, 2 + number % 2) for number, g in enumerate(groups)}
    narrow = surgery.plan_removal(model, {n: [*ids][:-1] for n, ids in cut.items()}).apply()
    assert narrow.count_params() < model.count_params()
    value = penalty.group_lasso(model)(narrow.trainable_weights)
    assert float(value) == pytest.approx(expected(narrow), rel=1e-4)


def test_frozen_weights_do_not_count():
    model = pruning_models.cnn()
    model.get_layer("conv_1").trainable = False
    whole = expected(pruning_models.cnn())
    assert 0 < float(penalty.group_lasso(model)(model.trainable_weights)) < whole

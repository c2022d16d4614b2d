"""Learning rates of narrower networks, on real models."""

import pytest
import tensorflow as tf

from tff_autoprune import models, pruning
from tff_autoprune.pruning.methods import learning_rates


def branching():
    """A network with a concatenation, a depthwise convolution and a flattened picture."""
    layers = tf.keras.layers
    x = inputs = tf.keras.Input((8, 8, 3))
    x = layers.Conv2D(6, 3, name="stem")(x)
    x = layers.DepthwiseConv2D(3, name="depthwise")(x)
    branches = [layers.Conv2D(4, 1, name="one")(x), layers.Conv2D(8, 3, padding="same")(x)]
    x = layers.BatchNormalization()(layers.Concatenate()(branches))
    x = layers.Dense(10, name="hidden")(layers.Flatten()(x))
    return tf.keras.Model(inputs, layers.Dense(5)(x))


def test_only_what_is_summed_over_counts():
    model = branching()
    names = [variable.name for variable in model.trainable_weights]
    by_name = dict(zip(names, learning_rates.fan_ins(model)))
    assert len(by_name) == len(names)
    assert by_name["stem/kernel:0"] == 1  # The picture's channels cannot go.
    assert by_name["depthwise/depthwise_kernel:0"] == 1
    assert by_name["one/kernel:0"] == 6
    assert by_name["hidden/kernel:0"] == 4 * 4 * (4 + 8)
    assert all(value == 1 for name, value in by_name.items() if "kernel" not in name)


@pytest.mark.parametrize(
    "build",
    [
        branching,
        lambda: models.build("inception", input_shape=(28, 28, 1), num_classes=9),
        lambda: models.build(
            "resnet", input_shape=(28, 28, 1), num_classes=9, normalization="batch"
        ),
    ],
    ids=["branching", "inception", "resnet"],
)
def test_a_selection_counts_as_its_removal(build):
    model = build()
    selection = {
        group.name: range(group.channels // 2)
        for group in pruning.find_filter_groups(model)
        if group.prunable
    }
    smaller = pruning.remove_filters(model, selection)
    before = learning_rates.fan_ins(model)
    after = learning_rates.fan_ins(model, selection)
    assert after == learning_rates.fan_ins(smaller)
    scales = learning_rates.learning_rate_scales(before, after)
    assert len(scales) == len(smaller.trainable_weights)
    assert min(scales) == 1 and max(scales) == pytest.approx(2, rel=0.3)

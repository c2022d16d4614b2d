import graph_cases
import numpy as np
import pruning_models
import pytest
import tensorflow as tf
from applications_benchmark import load

from tff_autoprune import surgery
from tff_autoprune.errors import UserError

L = tf.keras.layers
profiler_flops = load().profiler_flops


def test_reference_network():
    cost = surgery.cost.of(pruning_models.cnn())
    assert cost.parameters == 56_126
    assert round(cost.flops / 1e6, 2) == 7.53
    assert cost.bytes == 4 * 56_126
    assert cost.table.layer.iloc[0] == "conv_1"
    assert cost.table.flops.sum() == cost.flops


@pytest.mark.parametrize(
    "make",
    [
        pruning_models.cnn,
        pruning_models.resnet,
        lambda: pruning_models.resnet("group"),
        pruning_models.inception,
    ],
)
def test_operations_equal_the_profilers(make):
    model = make()
    assert surgery.cost.of(model).flops == profiler_flops(model)


# What the profiler does not count (einsum) or counts once for all steps is left out.
@pytest.mark.parametrize(
    "name",
    [
        "squeeze_and_excite",
        "grouped_convolution",
        "separable",
        "depthwise_with_multiplier",
        "transposed_convolution",
        "softmax_as_activation",
        "layer_normalization",
        "constant_normalization",
        "prelu",
        "nested_model",
        "shared_layer",
        "split_in_halves",
        "time_distributed",
        "decoder",
    ],
)
def test_operations_of_layers_equal_the_profilers(name):
    model = graph_cases.build(name)
    assert surgery.cost.of(model).flops == profiler_flops(model)


@pytest.mark.parametrize("what", ["flops", "parameters", "bytes"])
@pytest.mark.parametrize(
    "name",
    [
        "residual",
        "squeeze_and_excite",
        "concatenate",
        "grouped_convolution",
        "separable",
        "transposed_convolution",
        "depthwise_with_multiplier",
        "decoder",
        "multi_head_attention",
        "lstm",
        "bidirectional",
        "einsum_dense",
        "nested_model",
        "shared_layer",
        "prelu",
        "time_distributed",
        "time_distributed_model",
        "groups_shuffled",
        "tile_by_computed_sizes",
    ],
)
def test_saving_of_a_channel_is_what_its_removal_saves(name, what):
    model = graph_cases.build(name)
    groups = surgery.find_filter_groups(model)
    savings = surgery.cost.per_channel(model, groups, what)
    before = getattr(surgery.cost.of(model), what)
    for group in groups:
        if group.prunable:
            smaller = surgery.remove_filters(model, {group.name: [0]})
            after = getattr(surgery.cost.of(smaller), what)
            assert savings[group.name] == pytest.approx(before - after, abs=0.5), group.name
        else:
            assert savings[group.name] == 0


def test_a_model_of_frames_costs_what_the_model_costs_for_each_frame():
    layers = [L.Input((6, 6, 3)), L.Conv2D(4, 3, name="c"), L.ReLU(), L.Flatten()]
    frame = tf.keras.Sequential(layers, name="frame")
    i = L.Input((7, 6, 6, 3))
    x = L.TimeDistributed(frame, name="frames")(i)
    model = tf.keras.Model(i, L.Dense(2)(L.GlobalAveragePooling1D()(x)))
    table = surgery.cost.of(model).table.set_index("layer")
    assert table.flops["frames"] == 7 * surgery.cost.of(frame).flops
    network = surgery.Network(model)
    saved = surgery.cost.per_channel(network, network.groups, "latency", {"frames": 8.0})
    assert saved["frames/frame/c"] == pytest.approx(8.0 / 4)


def test_measured_latency_is_shared_out():
    model = pruning_models.cnn()
    groups = surgery.find_filter_groups(model)
    times = {"conv_1": 1.0, "conv_2": 10.0}
    savings = surgery.cost.per_channel(model, groups, "latency", latency=times)
    # One of 32 filters and the 1/32 of the second layer that reads it; the bias stays.
    table = surgery.cost.of(model).table.set_index("layer")
    reading = (table.flops["conv_2"] - 8 * 8 * 64) / 32 / table.flops["conv_2"]
    assert savings["conv_1"] == pytest.approx(1 / 32 + 10 * reading)
    with pytest.raises(UserError, match="latency"):
        surgery.cost.per_channel(model, groups, "latency")
    with pytest.raises(UserError, match="one of flops"):
        surgery.cost.per_channel(model, groups, "time")


def test_activation_memory_of_a_branch():
    i = L.Input((4, 4, 1))
    x = L.Conv2D(8, 1)(i)
    model = tf.keras.Model(i, L.Add()([x, L.ReLU()(x)]))
    # Input 16 values; x and its rectified copy and their sum, 128 each, at the end.
    assert surgery.cost.of(model).activation_bytes == 4 * 3 * 128


def test_lstm_counts_every_step():
    i = L.Input((7, 3))
    cost = surgery.cost.of(tf.keras.Model(i, L.LSTM(5)(i)))
    assert cost.flops == 7 * (2 * (3 + 5) * 20 + 20 + 4 * 5)


def test_shared_layers_have_their_parameters_counted_once():
    model = graph_cases.build("shared_layer")
    cost = surgery.cost.of(model)
    assert cost.parameters == model.count_params()
    assert cost.table.set_index("layer").calls["b"] == 2


def test_image_size_must_be_known():
    i = L.Input((None, None, 3))
    model = tf.keras.Model(i, L.GlobalAveragePooling2D()(L.Conv2D(4, 3)(i)))
    with pytest.raises(UserError, match="fixed size"):
        surgery.cost.of(model)
    assert np.isfinite(len(surgery.find_filter_groups(model)))

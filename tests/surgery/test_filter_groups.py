import numpy as np
import pruning_models
import pytest
import tensorflow as tf

from tff_autoprune import surgery
from tff_autoprune.errors import UserError

L = tf.keras.layers


def named(model):
    return {group.name: group for group in surgery.find_filter_groups(model)}


def places(group):
    return {(m.layer, m.kind, m.axis, m.role.value) for m in group.members}


def test_chain():
    group = named(pruning_models.cnn())["conv_1"]
    assert group.channels == 32
    assert group.prunable
    assert places(group) == {
        ("conv_1", "kernel", 3, "producer"),
        ("conv_1", "bias", 0, "passenger"),
        ("conv_2", "kernel", 2, "consumer"),
    }


def test_output_layer_is_fixed():
    group = named(pruning_models.cnn())["head"]
    assert not group.prunable
    assert "feeds the model's output 'head'" in group.reason


def test_flatten_gives_each_channel_all_its_pixels():
    group = named(pruning_models.cnn_with_flatten())["conv_1"]
    reader = next(m for m in group.members if m.layer == "head")
    assert reader.size == 8 * 8 * 8
    assert [len(indices) for indices in reader.indices] == [64] * 8
    assert reader.indices[3].tolist() == list(range(3, 512, 8))


def test_residual_block_prunes_trunk_shortcut_and_both_convolutions():
    groups = named(pruning_models.resnet())
    assert {name for name, group in groups.items() if group.prunable} == {
        "stem",
        "conv_1",
        "shortcut",
    }
    together = groups["shortcut"]
    assert [m.layer for m in together.producers] == ["shortcut", "conv_2"]
    assert {m.layer for m in together.members} == {
        "shortcut",
        "conv_2",
        "norm_s",
        "norm_2",
        "head",
    }


def test_group_normalization_goes_by_whole_groups():
    group = named(pruning_models.resnet("group"))["stem"]
    assert group.channels == 4
    assert group.filters_of.tolist() == [4] * 4
    assert group.members[0].indices[1].tolist() == [4, 5, 6, 7]
    assert str(group).startswith("stem: 4 channels of up to 4 filters, prunable\n")


def test_concatenation_shifts_the_places_of_the_reader():
    group = named(pruning_models.inception())["branch_3"]
    reader = next(m for m in group.members if m.role.value == "consumer")
    assert (reader.layer, reader.size) == ("conv", 18)
    assert reader.positions.tolist() == list(range(8, 14))


def test_positions_point_into_the_weights_of_the_model():
    model = pruning_models.resnet()
    for group in surgery.find_filter_groups(model):
        for member in group.members:
            weight = model.weights[member.position]
            assert weight.name == member.weight
            assert weight.shape[member.axis] == member.size


def test_report():
    text = str(named(pruning_models.inception())["branch_3"])
    assert text.splitlines()[0] == "branch_3: 6 channels, prunable"
    assert text.splitlines()[-1].split() == [
        "consumer", "conv", "conv/kernel:0", "axis", "2", "[8-13]", "of", "18",
    ]  # fmt: skip


def test_table_has_one_row_for_each_member():
    groups = surgery.find_filter_groups(pruning_models.resnet())
    table = surgery.groups_table(groups)
    assert len(table) == sum(len(group.members) for group in groups)
    row = table[(table.layer == "head") & (table.role == "consumer")].iloc[0]
    assert (row.group, row.places, row["size"]) == ("shortcut", 256, 256)


def test_unknown_layer_is_a_boundary_with_a_warning_that_names_it():
    class Mystery(L.Layer):
        def call(self, x):
            return tf.cumsum(x, axis=-1)

    i = L.Input((8, 8, 3))
    x = L.Conv2D(4, 3, name="before")(i)
    x = L.Conv2D(4, 3, name="after")(Mystery(name="riddle")(x))
    model = tf.keras.Model(i, L.Dense(2)(L.Flatten()(x)))
    with pytest.warns(surgery.FixedBoundaryWarning, match="'riddle' \\(Mystery\\)"):
        groups = named(model)
    assert not groups["before"].prunable
    assert "riddle" in groups["before"].reason
    assert groups["after"].prunable


def test_unknown_operator_is_named():
    i = L.Input((8, 4))
    model = tf.keras.Model(i, L.Dense(2)(tf.sort(L.Dense(4, name="before")(i))))
    with pytest.warns(surgery.FixedBoundaryWarning, match="tf.sort"):
        assert not named(model)["before"].prunable


def test_a_subclass_that_computes_something_else_is_not_taken_for_its_base():
    class Shuffled(L.Dense):
        def call(self, x):
            return tf.reverse(super().call(x), [-1])

    i = L.Input((4,))
    model = tf.keras.Model(i, L.Dense(2)(Shuffled(4)(L.Dense(4, name="before")(i))))
    with pytest.warns(surgery.FixedBoundaryWarning, match="Shuffled"):
        assert not named(model)["before"].prunable


class Residual(tf.keras.Sequential):
    """Holds a chain of layers and adds its input to what they give."""

    def call(self, inputs, training=None, mask=None):
        return inputs + super().call(inputs, training=training)


class FunctionalResidual(tf.keras.Model):
    def call(self, inputs, training=None, mask=None):
        return inputs + super().call(inputs, training=training)


def residual(cls, layers):
    if cls is Residual:
        return cls([L.InputLayer((4,)), *layers], name="block")
    x = i = L.Input((4,))
    for layer in layers:
        x = layer(x)
    return cls(i, x, name="block")


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("cls", [Residual, FunctionalResidual])
def test_a_model_with_a_call_of_its_own_is_a_boundary(cls, wrapped):
    block = residual(cls, [L.Dense(4, name="inside")])
    i = L.Input((5, 3) if wrapped else (3,))
    x = L.Dense(4, name="before")(i)
    x = L.TimeDistributed(block, name="wrapper")(x) if wrapped else block(x)
    model = tf.keras.Model(i, L.Dense(2)(L.Flatten()(L.Dense(3, name="after")(x))))
    with pytest.warns(surgery.FixedBoundaryWarning, match=rf"block' \({cls.__name__}"):
        groups = named(model)
    assert {name for name, group in groups.items() if group.prunable} == {"after"}
    removal = surgery.plan_removal(model, {"after": [1]})
    smaller = removal.apply()
    x = np.ones([2, *i.shape[1:]], np.float32)
    assert surgery.difference(removal, smaller, x) <= 1e-6
    assert type(smaller.layers[2]) is type(model.layers[2])
    with pytest.raises(UserError, match=rf"{cls.__name__} with a call\(\) of its own"):
        surgery.find_filter_groups(block)


def test_a_call_replaced_in_one_object_is_not_followed():
    layer = L.Dense(4, name="changed")
    layer.call = lambda x: tf.reverse(L.Dense.call(layer, x), [-1])
    i = L.Input((4,))
    model = tf.keras.Model(i, L.Dense(2)(layer(L.Dense(4, name="before")(i))))
    with pytest.warns(surgery.FixedBoundaryWarning, match="'changed'"):
        assert not named(model)["before"].prunable
    with pytest.raises(UserError, match="'changed' has its call"):
        surgery.plan_removal(model, {})


def test_a_recurrent_layer_with_a_cell_of_its_own_is_not_taken_for_its_base():
    class Leaky(L.LSTMCell):
        def call(self, inputs, states, training=None):
            output, states = super().call(inputs, states, training=training)
            return tf.reverse(output, [-1]), states

    class Own(L.LSTM):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self.cell = Leaky(self.units)

    i = L.Input((5, 3))
    model = tf.keras.Model(i, L.Dense(2)(Own(4, name="own", activation="relu")(i)))
    assert "own" not in {name for name, group in named(model).items() if group.prunable}


def test_a_weight_that_a_rule_says_nothing_of_keeps_the_channels():
    class Forgetful(L.Layer):
        def build(self, shape):
            self.gain = self.add_weight("gain", shape=[shape[-1]])
            self.shift = self.add_weight("shift", shape=[shape[-1]])

        def call(self, x):
            return x * self.gain + self.shift

    @surgery.register_layer(Forgetful)
    def _rule(call):
        call.carry(call.layer.gain, 0, call.along(call.x, -1))
        return call.same(call.x)

    i = L.Input((4,))
    model = tf.keras.Model(i, L.Dense(2)(Forgetful(name="own")(L.Dense(5, name="before")(i))))
    assert "place in 'own/shift:0'" in named(model)["before"].reason


def test_why_an_unknown_activation_keeps_channels():
    def odd(x):
        return x * tf.reduce_sum(x, -1, keepdims=True)

    i = L.Input((4,))
    x = L.Activation(odd, name="act")(L.Dense(5, name="before")(i))
    model = tf.keras.Model(i, L.Dense(2)(x))
    reason = named(model)["before"].reason
    assert "function 'odd' in 'act'" in reason
    assert "surgery.register_activation" in reason


def test_sizes_are_said_to_be_why_channels_stay():
    i = L.Input((8, 8, 3))
    x = L.Conv2D(4, 3, padding="same", name="before")(i)
    y = x / tf.cast(tf.size(x), tf.float32)
    model = tf.keras.Model([i], L.Dense(2)(L.Flatten()(y)))
    assert "number of channels (tf.shape) used by" in named(model)["before"].reason
    told = tf.keras.Model(i, [L.Dense(2)(L.Flatten()(x)), tf.shape(x)])
    assert "feeds the model's output" in named(told)["before"].reason


def test_a_network_is_found_once_and_handed_along():
    network = surgery.Network(pruning_models.resnet(), ignore_layers=["stem", "norm_1"])
    groups = {group.name: group for group in network.groups}
    assert [group.name for group in network.prunable] == ["shortcut"]
    assert groups["stem"].reason == groups["conv_1"].reason == "is ignored by the user"
    assert surgery.find_filter_groups(network) is network.groups
    assert surgery.cost.of(network) == surgery.cost.of(network.model)
    assert network.saving("flops") == surgery.cost.per_channel(network, network.groups, "flops")
    assert surgery.plan_removal(network, {"shortcut": [0]}).network is network
    with pytest.raises(UserError, match="'stem' must stay: it is ignored by the user"):
        surgery.plan_removal(network, {"stem": [0]})
    with pytest.raises(UserError, match=r"no layer 'stam'\. Layers with filters: conv_1, "):
        surgery.Network(network.model, ignore_layers=["stam"]).groups  # noqa: B018


def test_registered_layer_is_followed():
    class Gain(L.Layer):
        def build(self, shape):
            self.gain = self.add_weight("gain", shape=[shape[-1]])

        def call(self, x):
            return x * self.gain

    @surgery.register_layer(Gain)
    def _rule(call):
        call.carry(call.layer.gain, 0, call.along(call.x, -1))
        return call.same(call.x)

    i = L.Input((4,))
    model = tf.keras.Model(i, L.Dense(2)(Gain(name="own")(L.Dense(4, name="before")(i))))
    assert named(model)["before"].prunable
    smaller = surgery.remove_filters(model, {"before": [1]})
    assert smaller.get_layer("own").gain.shape == [3]


def test_added_loss_keeps_its_channels():
    i = L.Input((4,))
    x = L.Dense(5, name="measured")(i)
    model = tf.keras.Model(i, L.Dense(2)(L.Dense(3, name="free")(x)))
    model.add_loss(tf.reduce_mean(x))
    groups = named(model)
    assert not groups["measured"].prunable
    smaller = surgery.remove_filters(model, {"free": [0]})
    assert len(smaller.losses) == 1


def test_models_that_cannot_be_followed():
    class Own(tf.keras.Model):
        def call(self, x):
            return x

    with pytest.raises(UserError, match="functional API"):
        surgery.find_filter_groups(Own())
    with pytest.raises(UserError, match=r"model\.build"):
        surgery.find_filter_groups(tf.keras.Sequential([L.Dense(3)]))
    with pytest.raises(UserError, match="found int"):
        surgery.find_filter_groups(3)
    i = L.Input((), dtype=tf.string)
    lookup = L.StringLookup(name="words")
    lookup.adapt(["a", "b"])
    with pytest.raises(UserError, match="'words' holds a table that adapt"):
        surgery.find_filter_groups(tf.keras.Model(i, L.Embedding(4, 3)(lookup(i))))


def test_a_sequential_without_input_layer_is_followed_once_built():
    model = tf.keras.Sequential([L.Dense(5, name="first"), L.Dense(3)])
    model.build((None, 4))
    smaller = surgery.remove_filters(model, {"first": [0, 1]})
    assert smaller.get_layer("first").units == 3
    assert smaller(tf.ones([2, 4])).shape == (2, 3)

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

import numpy as np
import pruning_models
import pytest
import tensorflow as tf

from tff_autoprune import surgery
from tff_autoprune.errors import UserError

L = tf.keras.layers
MODELS = [
    pruning_models.cnn,
    pruning_models.cnn_with_flatten,
    pruning_models.resnet,
    lambda: pruning_models.resnet("group"),
    pruning_models.inception,
]


def half(model, seed=0):
    generator = np.random.default_rng(seed)
    return {
        group.name: generator.permutation(group.channels)[: group.channels // 2]
        for group in surgery.find_filter_groups(model)
        if group.prunable
    }


def images(model):
    shape = (2, *model.input_shape[1:])
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("make", MODELS)
def test_nothing_but_the_channels_is_gone(make):
    model = make()
    before = model.get_weights()
    removal = surgery.plan_removal(model, half(model))
    smaller = removal.apply()
    x = images(model)
    assert surgery.difference(removal, smaller, x) <= 1e-5
    # The oracle itself must tell a difference: the unsilenced model gives something else.
    assert np.abs(model(x) - smaller(x)).max() > 1e-3
    for old, new in zip(before, model.get_weights()):
        np.testing.assert_array_equal(old, new)


def test_surviving_weights_are_inherited():
    model = pruning_models.cnn()
    smaller = surgery.remove_filters(model, {"conv_1": [0, 2, 31]})
    kept = [i for i in range(32) if i not in (0, 2, 31)]
    old, new = model.get_weights(), smaller.get_weights()
    np.testing.assert_array_equal(new[0], old[0][..., kept])
    np.testing.assert_array_equal(new[1], old[1][kept])
    np.testing.assert_array_equal(new[2], old[2][:, :, kept])


def test_slices_fit_the_new_weights():
    model = pruning_models.resnet()
    removal = surgery.plan_removal(model, half(model))
    smaller = removal.apply()
    shapes = [tuple(w.shape) for w in smaller.weights]
    assert [a.shape for a in removal.slice_weights(model.get_weights())] == shapes
    for sliced, weight in zip(removal.slice_weights(model.get_weights()), smaller.weights):
        np.testing.assert_array_equal(sliced, weight)
    moments = [np.ones(w.shape) for w in model.trainable_weights]
    sliced = removal.slice_trainable(moments)
    assert [a.shape for a in sliced] == [tuple(w.shape) for w in smaller.trainable_weights]


def test_slices_reject_arrays_of_another_model():
    removal = surgery.plan_removal(pruning_models.cnn(), {"conv_1": [0]})
    with pytest.raises(UserError, match="one array for each of the 6"):
        removal.slice_weights([])
    with pytest.raises(UserError, match="conv_1/kernel:0, found \\(2,\\)"):
        removal.slice_weights([np.zeros(2)] * 6)


@pytest.mark.parametrize(
    ("selection", "message"),
    [
        ({"nothing": [0]}, "neither a filter group nor a layer .* Prunable groups: conv_1, conv_2"),
        ({"head": [0]}, "'head' must stay: it feeds .* 'head'. Prunable groups: conv_1, conv_2"),
        ({"conv_1": [32]}, "has channels 0 to 31, found 32"),
        ({"conv_1": [-1]}, "has channels 0 to 31, found -1"),
        ({"conv_1": [3, 3]}, "repeated"),
        ({"conv_1": range(32)}, "keep at least one"),
        ({"conv_1": [0.5]}, "list of integers"),
        ({"conv_1": [[1]]}, "list of integers"),
        ({"conv_1": [[1], [2, 3]]}, "'conv_1' must be a list of integers"),
        ({"conv_1": None}, "'conv_1' must be a list of integers, found None"),
        (None, "must be a dictionary from names of groups to lists of channels, found None"),
        ({"re_lu": [0]}, "neither a filter group nor a layer"),
    ],
)
def test_wrong_selections(selection, message):
    tf.keras.backend.clear_session()
    with pytest.raises(UserError, match=message):
        surgery.remove_filters(pruning_models.cnn(), selection)


def test_layer_names_stand_for_filters():
    model = pruning_models.resnet("group")
    # 'conv_2' is added to 'shortcut', whose name the group has; 4 filters make one channel.
    removal = surgery.plan_removal(model, {"conv_2": [4, 5, 6, 7]})
    assert {k: v.tolist() for k, v in removal.selection.items()} == {"shortcut": [1]}
    with pytest.raises(UserError, match="can only be removed together"):
        surgery.plan_removal(model, {"conv_2": [4, 5]})
    with pytest.raises(UserError, match="'conv_2' has filters 0 to 15, found 16"):
        surgery.plan_removal(model, {"conv_2": [16]})
    # What several names of a group ask for is removed once.
    removal = surgery.plan_removal(model, {"conv_2": [4, 5, 6, 7], "shortcut": [3, 1]})
    assert {k: v.tolist() for k, v in removal.selection.items()} == {"shortcut": [1, 3]}
    with pytest.raises(UserError, match="repeated"):
        surgery.plan_removal(model, {"conv_2": [4, 5, 6, 7, 4]})


@pytest.mark.parametrize(
    ("removed", "round_to", "kept"),
    [(1, 8, 32), (7, 8, 32), (8, 8, 24), (31, 8, 8), (30, 4, 4), (5, 1, 27), (31, 64, 32)],
)
def test_round_to(removed, round_to, kept):
    removal = surgery.plan_removal(
        pruning_models.cnn(), {"conv_1": list(range(31, 31 - removed, -1))}, round_to
    )
    gone = removal.selection.get("conv_1", [])
    assert 32 - len(gone) == kept
    # The first in the list are the ones to go.
    assert list(gone) == list(range(32 - len(gone), 32))


@pytest.mark.parametrize("round_to", [0, -8, 1.5])
def test_wrong_round_to(round_to):
    with pytest.raises(UserError, match="integer of at least 1"):
        surgery.plan_removal(pruning_models.cnn(), {"conv_1": [0]}, round_to)


def test_round_to_counts_units_of_recurrent_layers():
    i = L.Input((5, 3))
    model = tf.keras.Model(i, L.Dense(2)(L.LSTM(16, name="lstm")(i)))
    smaller = surgery.remove_filters(model, {"lstm": [0, 1, 2]}, round_to=8)
    assert smaller.get_layer("lstm").units == 16
    smaller = surgery.remove_filters(model, {"lstm": list(range(9))}, round_to=8)
    assert smaller.get_layer("lstm").units == 8


def test_empty_selection_copies_the_model():
    model = pruning_models.resnet()
    copy = surgery.remove_filters(model, {"stem": []})
    x = images(model)
    np.testing.assert_array_equal(model(x), copy(x))


def test_reinitialized_weights_are_new():
    model = pruning_models.cnn()
    removal = surgery.plan_removal(model, {"conv_1": [0]})
    assert (
        np.abs(removal.apply(reinitialize=True).get_weights()[1]).max() == 0
    )  # Biases start at 0.
    assert np.abs(removal.apply().get_weights()[1]).max() > 0


def settings_model():
    i = L.Input((8, 8, 3), name="pixels")
    j = L.Input((5,), name="more")
    x = L.Conv2D(
        6, 3, name="conv", dtype="mixed_float16", kernel_regularizer=tf.keras.regularizers.L2(0.1)
    )(i)
    x = L.BatchNormalization(name="norm", trainable=False, momentum=0.5)(x)
    x = L.Flatten()(x)
    y = L.Dense(4, name="dense", trainable=False)(j)
    out = L.Dense(3, name="first")(L.Concatenate()([x, y]))
    return tf.keras.Model([j, i], {"b": L.Dense(2, name="second")(y), "a": out}, name="settings")


def test_settings_survive():
    model = settings_model()
    smaller = surgery.remove_filters(model, {"conv": [0, 5], "dense": [1]})
    assert [layer.name for layer in smaller.layers] == [layer.name for layer in model.layers]
    assert smaller.name == "settings"
    assert smaller.input_names == ["more", "pixels"]
    assert set(smaller.output) == {"a", "b"}
    conv = smaller.get_layer("conv")
    assert conv.dtype_policy.name == "mixed_float16"
    assert conv.kernel_regularizer.l2 == pytest.approx(0.1)
    assert smaller.get_layer("norm").momentum == 0.5
    assert not smaller.get_layer("norm").trainable
    assert len(smaller.trainable_weights) == len(model.trainable_weights)
    assert [w.name for w in smaller.weights] == [w.name for w in model.weights]


def test_own_activation_functions_need_no_registration():
    @surgery.register_activation
    def squash(x):
        return x / (1 + tf.abs(x))

    model = tf.keras.Sequential([L.Input((3,)), L.Dense(4, squash, name="own"), L.Dense(2)])
    removal = surgery.plan_removal(model, {"own": [0]})
    assert surgery.difference(removal, removal.apply(), np.ones([2, 3], np.float32)) <= 1e-6


def test_noise_shape_follows():
    i = L.Input((8, 8, 3))
    x = L.Dropout(0.5, noise_shape=(None, 1, 1, 6))(L.Conv2D(6, 3, name="conv")(i))
    model = tf.keras.Model(i, L.Dense(2)(L.Flatten()(x)))
    smaller = surgery.remove_filters(model, {"conv": [0, 1]})
    assert smaller(np.ones([2, 8, 8, 3]), training=True).shape == (2, 2)


def test_frozen_model_stays_frozen():
    model = pruning_models.cnn()
    model.trainable = False
    smaller = surgery.remove_filters(model, {"conv_1": [0]})
    assert not smaller.trainable_weights


@pytest.mark.parametrize("way", ["keras", "h5", "saved_model", "weights", "clone"])
@pytest.mark.parametrize("make", MODELS[2:])
def test_round_trips(make, way, tmp_path):
    model = make()
    smaller = surgery.remove_filters(model, half(model))
    x = images(model)
    if way in ("keras", "h5"):
        smaller.save(tmp_path / f"model.{way}")
        again = tf.keras.models.load_model(tmp_path / f"model.{way}")
    elif way == "saved_model":
        smaller.export(tmp_path / "model")
        loaded = tf.saved_model.load(tmp_path / "model")
        again = loaded.serve
    elif way == "weights":
        smaller.save_weights(tmp_path / "weights.h5")
        again = surgery.plan_removal(model, half(model)).apply(reinitialize=True)
        again.load_weights(tmp_path / "weights.h5")
    else:
        again = tf.keras.models.clone_model(smaller)
        again.set_weights(smaller.get_weights())
    np.testing.assert_allclose(again(x), smaller(x), rtol=1e-5, atol=1e-5)


def test_a_cut_model_can_be_cut_again_and_trained():
    model = pruning_models.resnet()
    once = surgery.remove_filters(model, half(model))
    removal = surgery.plan_removal(once, half(once))
    twice = removal.apply()
    assert surgery.difference(removal, twice, images(model)) <= 1e-5
    assert twice.get_layer("stem").filters == 4
    twice.compile("sgd", tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    before = twice.get_weights()[0]
    twice.fit(images(model), np.zeros(2), verbose=0)
    assert np.abs(twice.get_weights()[0] - before).max() > 0


def test_tied_embeddings_stay_tied():
    i = L.Input((5,))
    embedding = L.Embedding(9, 6, name="embedding")
    x = L.LSTM(6, name="lstm")(L.Dense(4, name="free")(embedding(i)))
    model = tf.keras.Model(i, tf.matmul(x, embedding.embeddings, transpose_b=True))
    groups = {group.name: group for group in surgery.find_filter_groups(model)}
    assert "also read by 'tf.linalg.matmul" in groups["embedding"].reason
    removal = surgery.plan_removal(model, {"free": [0]})
    smaller = removal.apply()
    words = np.arange(10).reshape(2, 5) % 9
    assert surgery.difference(removal, smaller, words) <= 1e-6
    before = smaller(words).numpy()
    smaller.get_layer("embedding").set_weights([np.zeros([9, 6])])
    assert np.abs(before).max() > 0
    assert np.abs(smaller(words)).max() == 0


class Composite(L.Layer):
    """Has neither a name nor get_config() of its own."""

    def __init__(self, units):
        super().__init__()
        self.dense = L.Dense(units)

    def call(self, x):
        return self.dense(x)


def test_a_layer_without_get_config_keeps_its_name_and_stays_frozen():
    i = L.Input((5, 3))
    own, wrapper = Composite(4), L.Bidirectional(L.LSTM(4), name="wrapper")
    x = wrapper(own(L.Dense(3, name="free")(i)))
    own._name = "mine"
    own.dense.trainable = wrapper.forward_layer.trainable = False
    model = tf.keras.Model(i, L.Dense(2)(x))
    removal = surgery.plan_removal(model, {"wrapper/forward_lstm": [1]})
    smaller = removal.apply()
    for layers in zip(model._flatten_layers(), smaller._flatten_layers()):
        assert len({layer.name for layer in layers}) == 1
        assert len({layer.trainable for layer in layers}) == 1
    assert [w.shape.rank for w in smaller.weights] == [w.shape.rank for w in model.weights]
    assert surgery.difference(removal, smaller, np.ones([2, 5, 3], np.float32)) <= 1e-5


class OwnConstructor(L.Dense):
    def __init__(self, width, **kwargs):
        super().__init__(2 * width, **kwargs)


class Scaled(L.Layer):
    def __init__(self, values, **kwargs):
        super().__init__(**kwargs)
        self.values = values

    def call(self, x):
        return x * self.values


class OwnBlock(tf.keras.Sequential):
    def __init__(self, units, **kwargs):
        super().__init__([L.InputLayer((6,)), L.Dense(units)], **kwargs)

    def call(self, inputs, training=None, mask=None):
        return 2 * super().call(inputs, training=training)


class OwnWrapper(L.TimeDistributed):
    def __init__(self, units, **kwargs):
        super().__init__(L.Dense(units), **kwargs)


class Fixed(tf.keras.constraints.Constraint):
    def __call__(self, w):
        return w * np.ones([6, 6], np.float32)


class Told(tf.keras.regularizers.Regularizer):
    def __call__(self, x):
        return tf.reduce_sum(x)


@pytest.mark.filterwarnings("ignore::tff_autoprune.surgery.network.FixedBoundaryWarning")
@pytest.mark.parametrize(
    "make",
    [
        lambda: OwnConstructor(3, name="culprit"),
        lambda: Scaled(np.ones(6, np.float32), name="culprit"),
        lambda: OwnBlock(6, name="culprit"),
        lambda: L.Dense(6, kernel_regularizer=Told(), name="culprit"),
        lambda: OwnWrapper(6, name="culprit"),
        lambda: L.Dense(6, kernel_constraint=Fixed(), name="culprit"),
        lambda: L.Dense(
            6, kernel_initializer=lambda shape, dtype=None: tf.ones([6, 6]), name="culprit"
        ),
    ],
)
def test_what_cannot_be_made_again_is_refused_at_planning_by_name(make):
    culprit = make()
    i = L.Input((4, 3) if isinstance(culprit, OwnWrapper) else (3,))
    x = L.Dense(6, name="before")(i)
    model = tf.keras.Model(i, L.Dense(2)(L.Dense(5, name="free")(culprit(x))))
    groups = [group.name for group in surgery.find_filter_groups(model) if group.prunable]
    with pytest.raises(UserError, match="'culprit'"):
        surgery.plan_removal(model, {name: [0] for name in groups})


def test_initializers_follow():
    class Ones(tf.keras.initializers.Initializer):
        def __call__(self, shape, dtype=None, **kwargs):
            return tf.ones(shape, dtype)

    table = np.arange(42.0).reshape(7, 6)
    i = L.Input((5,), dtype="int32")
    x = L.Embedding(7, 6, tf.keras.initializers.Constant(table), name="words")(i)
    ones = lambda shape, dtype: tf.ones(shape)  # noqa: E731
    x = L.Dense(4, kernel_initializer=Ones(), bias_initializer=ones, name="last")(x)
    model = tf.keras.Model(i, L.Dense(2)(L.GlobalAveragePooling1D()(x)))
    removal = surgery.plan_removal(model, {"words": [0, 4], "last": [1]})
    np.testing.assert_array_equal(removal.apply().weights[0], table[:, [1, 2, 3, 5]])
    fresh = removal.apply(reinitialize=True)
    np.testing.assert_array_equal(fresh.weights[0], table[:, [1, 2, 3, 5]])
    np.testing.assert_array_equal(fresh.weights[1], np.ones([4, 3]))


def test_planning_draws_no_random_numbers():
    def made(plans):
        tf.keras.backend.clear_session()
        tf.keras.utils.set_random_seed(3)
        model = tf.keras.Sequential(
            [L.Input((4,)), L.Dense(5, name="a"), L.Dropout(0.1), L.Dense(2)]
        )
        for _ in range(plans):
            removal = surgery.plan_removal(model, {"a": [0]})
        return removal.apply(reinitialize=True).get_weights()

    for once, thrice in zip(made(1), made(3)):
        np.testing.assert_array_equal(once, thrice)


def test_weights_of_two_layers_stay_one():
    i = L.Input((4,))
    first, second = L.Dense(6, name="first"), L.Dense(6, name="second")
    outputs = L.Dense(2)(first(i) * second(i))
    second.kernel = first.kernel
    model = tf.keras.Model(i, outputs)
    removal = surgery.plan_removal(model, {"first": [0, 3]})
    smaller = removal.apply()
    assert smaller.get_layer("second").kernel is smaller.get_layer("first").kernel
    assert [weight.name for weight in smaller.weights] == [weight.name for weight in model.weights]
    assert surgery.difference(removal, smaller, np.ones([2, 4], np.float32)) <= 1e-6


def test_silenced_weights_are_those_of_the_old_architecture():
    model = pruning_models.cnn()
    removal = surgery.plan_removal(model, {"conv_1": [3, 7]})
    values = [weight + 1 for weight in model.get_weights()]
    silenced = removal.silence(values)
    assert np.abs(silenced[2][:, :, [3, 7]]).max() == 0
    silenced[2][:, :, [3, 7]] = values[2][:, :, [3, 7]]
    for old, new in zip(values, silenced):
        np.testing.assert_array_equal(old, new)


def test_a_model_that_was_converted_can_be_pruned(tmp_path):
    """Keras binds `call` to each layer when it saves or converts; that replaces nothing."""
    model = pruning_models.cnn()
    tf.lite.TFLiteConverter.from_keras_model(model).convert()
    model.save(tmp_path / "saved")
    assert surgery.remove_filters(model, {"conv_1": [0]}).count_params() < model.count_params()

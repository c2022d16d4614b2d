"""Factorized layers: exact at full rank, nested in rank, everything else inherited."""

import numpy as np
import pruning_models
import pytest
import tensorflow as tf
from applications_benchmark import load
from factorization_cases import LAYERS, inputs_of, relative, single, ways

from tff_autoprune import surgery
from tff_autoprune.errors import UserError
from tff_autoprune.surgery import Factorization

L = tf.keras.layers
profiler_flops = load().profiler_flops


def covariance(channels, seed=0):
    mix = np.random.default_rng(seed).normal(size=(channels, channels))
    return mix @ mix.T


def _merging_pays(before, after):
    """Whether the dense layer has less of something, and more of nothing."""
    fewer = [getattr(after, what) - getattr(before, what) for what in ("parameters", "flops")]
    return min(fewer) >= 0 and max(fewer) > 0


@pytest.mark.parametrize(("name", "kind"), ways())
def test_the_new_network_computes_what_was_planned(name, kind):
    tf.keras.backend.clear_session()
    make, shape = LAYERS[name]
    model = single(make(), shape)
    x = inputs_of(model)
    expected = model(x)
    full = surgery.max_rank(model.get_layer("own"), kind)
    moments = {"own": covariance(shape[-1])}
    means = {"own": 0.3 * np.sqrt(np.diag(moments["own"]))}

    wide = surgery.factorize(model, {"own": Factorization(kind, full)}, moments)
    assert relative(expected, wide(x)) <= 1e-5
    assert [layer.name for layer in wide.layers if "own" in layer.name] == ["own_rank", "own"]

    # It costs what was said.
    candidate = next(c for c in surgery.candidates(model) if (c.layer, c.kind) == ("own", kind))
    before, after = surgery.cost.of(model), surgery.cost.of(wide)
    for what in ("parameters", "flops"):
        new = full * getattr(candidate, f"{what}_per_rank") - getattr(candidate, what)
        assert getattr(after, what) == pytest.approx(getattr(before, what) + new, abs=1)
    at_most = candidate.paying_rank
    assert at_most == full or not all(
        (at_most + 1) * getattr(candidate, f"{what}_per_rank") < getattr(candidate, what)
        for what in ("parameters", "flops")
    )

    # Multiplied back it is what it was, by itself if that saves.
    pairs = surgery.plan_merge(wide).pairs
    if (name, kind) == ("conv2d_transposed_padded", "spatial"):
        with pytest.raises(UserError, match="not what a factorization makes"):
            surgery.merge(wide, ["own"])
    else:
        assert [pair.name for pair in pairs] == ["own"] * _merging_pays(before, after)
        merged = surgery.merge(wide, ["own"])
        assert [w.shape for w in merged.weights] == [w.shape for w in model.weights]
        assert relative(expected, merged(x)) <= 1e-5

    # The old architecture can stand in for the new one.
    rank = -(-full // 2)
    plan = surgery.plan_factorization(model, {"own": Factorization(kind, rank)}, moments, means)
    narrow = plan.apply()(x)
    weights = model.get_weights()
    model.set_weights(plan.weights_in_place())
    assert relative(narrow, model(x)) <= 1e-5
    assert rank == full or relative(expected, narrow) > 1e-4
    model.set_weights(weights)

    # Ranks are channels: the first ones of a higher rank are those of a lower.
    groups = {group.name: group for group in surgery.find_filter_groups(wide)}
    if kind == "depthwise":
        assert "own_rank" not in groups
        return
    group = groups["own_rank"]
    assert group.prunable and group.channels == full
    assert {member.layer for member in group.members} == {"own_rank", "own"}
    cut = surgery.remove_filters(wide, {"own_rank": range(rank, full)})
    same = surgery.factorize(model, {"own": Factorization(kind, rank)}, moments)
    for one, other in zip(cut.get_weights(), same.get_weights()):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


def outputs_of(model, x, name):
    layer = model.get_layer(name)
    return tf.keras.Model(model.inputs, layer.output)(x).numpy()


def read_by(model, x, name):
    """Returns second moments and means of what a layer reads."""
    seen = tf.keras.Model(model.inputs, model.get_layer(name).input)(x).numpy()
    seen = seen.reshape(-1, seen.shape[-1])
    return seen.T @ seen / len(seen), seen.mean(axis=0)


@pytest.mark.parametrize(("layer", "kind"), [("b", "channel"), ("c", "dense")])
def test_moments_and_means_lessen_the_error_of_the_output(layer, kind):
    mix = np.random.default_rng(1).normal(size=(12, 12)) * np.geomspace(3, 0.03, 12)
    x = (np.random.default_rng(2).normal(size=(400, 4, 4, 12)) @ mix + 0.5).astype(np.float32)
    i = L.Input((4, 4, 12))
    y = L.Dense(9, name="c")(L.Conv2D(12, 1, name="b")(i))
    model = pruning_models.randomized(tf.keras.Model(i, y))
    moments, means = read_by(model, x, layer)
    plan = {layer: Factorization(kind, 3)}
    errors = []
    for told in ((), ({layer: moments},), ({layer: moments}, {layer: means})):
        lost = outputs_of(model, x, layer) - outputs_of(
            surgery.factorize(model, plan, *told), x, layer
        )
        errors.append(np.square(lost).mean())
    assert errors[2] < errors[1] < 0.7 * errors[0]
    # What was predicted is what is found: an error of the linear part, whose energy has no bias.
    values = surgery.singular_values(model.get_layer(layer), kind, moments)
    energy = np.square(outputs_of(model, x, layer) - model.get_layer(layer).bias.numpy()).mean()
    assert surgery.lost_energy(values)[3] == pytest.approx(errors[1] / energy, rel=1e-3)


def test_a_dense_layer_behind_a_flatten_takes_the_moments_of_channels():
    i = L.Input((3, 3, 4))
    model = pruning_models.randomized(tf.keras.Model(i, L.Dense(6, name="own")(L.Flatten()(i))))
    plan = {"own": Factorization("dense", 2)}
    small = surgery.plan_factorization(model, plan, {"own": covariance(4)}).weights_in_place()
    large = np.kron(np.eye(9), covariance(4))
    large = surgery.plan_factorization(model, plan, {"own": large}).weights_in_place()
    np.testing.assert_allclose(small[0], large[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["spatial", "channel", "depthwise"])
def test_zero_kernels_can_still_learn(kind):
    model = single(L.Conv2D(6, 3, name="own"), (8, 8, 4))
    layer = model.get_layer("own")
    layer.kernel.assign(tf.zeros_like(layer.kernel))
    new = surgery.factorize(model, {"own": Factorization(kind, 4)})
    kernels = [new.get_layer("own_rank").weights[0].numpy(), new.get_layer("own").kernel.numpy()]
    assert np.abs(kernels[0]).max() == 0 and np.abs(kernels[1]).max() > 0


def test_everything_else_is_inherited():
    i = L.Input((8, 8, 3))
    first = tf.keras.initializers.Constant(np.ones([3, 3, 3, 6]))  # Fits no other shape.
    settings = {
        "kernel_initializer": first,
        "kernel_regularizer": "l2",
        "dtype": "mixed_bfloat16",
        "trainable": False,
    }
    x = L.Conv2D(6, 3, name="a", activation="relu", bias_constraint="non_neg", **settings)(i)
    x = L.BatchNormalization(name="norm", momentum=0.5)(x)
    y = L.Conv2D(6, 3, name="b", padding="same")(x)
    y = L.Flatten()(L.Add()([x, y]))
    model = pruning_models.randomized(tf.keras.Model(i, L.Dense(2, name="head")(y), name="own"))
    plan = surgery.plan_factorization(
        model, {"a": Factorization("spatial", 4), "b": Factorization("channel", 3)}
    )
    new = plan.apply()
    assert new.name == "own"
    names = [layer.name for layer in model.layers]
    assert [n for n in (x.name for x in new.layers) if not n.endswith("_rank")] == names
    for name in ("a_rank", "a"):
        layer = new.get_layer(name)
        assert not layer.trainable and layer.dtype_policy.name == "mixed_bfloat16"
        assert layer.kernel_regularizer.l2 == model.get_layer("a").kernel_regularizer.l2
    assert new.get_layer("a_rank").activation is tf.keras.activations.linear
    assert new.get_layer("a").activation is tf.keras.activations.relu
    assert new.get_layer("a").bias_constraint is not None
    for name in ("norm", "head"):
        for old, copy in zip(model.get_layer(name).weights, new.get_layer(name).weights):
            np.testing.assert_array_equal(old, copy)
    # The optimizer's moments: those of what stays as they are, zeros for the factors.
    arrays = [np.full(w.shape, 1.0 + n) for n, w in enumerate(model.trainable_weights)]
    number = {w.name: 1.0 + n for n, w in enumerate(model.trainable_weights)}
    carried = plan.slice_trainable(arrays)
    assert len(carried) == len(new.trainable_weights)
    for array, weight in zip(carried, new.trainable_weights):
        assert array.shape == weight.shape
        is_new = weight.name in ("b_rank/kernel:0", "b/kernel:0")
        np.testing.assert_array_equal(array, 0.0 if is_new else number[weight.name])
    np.testing.assert_array_equal(carried[-1], 1.0 + len(arrays) - 1)
    with pytest.raises(UserError, match="one array for each of the 6"):
        plan.slice_trainable(arrays[:2])


def test_nested_and_shared_layers():
    shared = L.Conv2D(4, 3, padding="same", name="shared")
    inner_input = L.Input((8, 8, 4))
    inner_output = L.ReLU()(L.Conv2D(4, 3, padding="same", name="conv")(inner_input))
    inner = tf.keras.Model(inner_input, inner_output, name="inner")
    block = tf.keras.Sequential([L.Conv2D(4, 3, padding="same", name="conv"), L.ReLU()], "block")
    i = L.Input((8, 8, 4))
    x = inner(block(shared(shared(i))))
    model = pruning_models.randomized(
        tf.keras.Model(i, L.Dense(2, name="head")(L.Flatten()(inner(x))))
    )
    names = ["shared", "block/conv", "inner/conv"]
    found = surgery.candidates(model)
    assert [c.layer for c in found if c.kind == "spatial" and not c.reason] == names
    plan = {name: Factorization("spatial", 12) for name in names}
    new = surgery.factorize(model, plan)
    x = inputs_of(model)
    assert relative(model(x), new(x)) <= 1e-5
    groups = {group.name for group in surgery.find_filter_groups(new) if group.prunable}
    assert {"shared_rank", "inner/conv_rank", "block/conv_rank"} <= groups
    again = surgery.factorize(new, {"shared": Factorization("channel", 4)})
    assert relative(model(x), again(x)) <= 1e-5
    assert again.get_layer("shared_rank_2").filters == 4


class Own(L.Conv2D):
    def call(self, x):
        return super().call(x) + 1


@pytest.mark.parametrize(
    ("layer", "shape", "kind", "reason"),
    [
        (L.Conv2D(4, 3, groups=2), (8, 8, 4), "spatial", "2 groups"),
        (L.Conv2D(4, 3, kernel_constraint="unit_norm"), (8, 8, 4), "channel", "constraint"),
        (L.Conv2D(4, (3, 1)), (8, 8, 4), "spatial", "3x1 kernel"),
        (L.Conv2D(4, 3, (1, 2)), (8, 8, 4), "depthwise", "unequal strides"),
        (L.Conv2D(4, 1), (8, 8, 4), "depthwise", "1x1 kernel"),
        (L.Conv2D(4, 3), (8, 8, 4), "dense", "is a Conv2D"),
        (L.Conv1D(4, 3), (8, 4), "spatial", "one axis of space"),
        (L.Conv1D(4, 3, padding="causal"), (8, 4), "depthwise", "causal"),
        (L.Conv3D(4, 3), (8, 8, 8, 4), "depthwise", "no depthwise kind"),
        (L.Conv2DTranspose(4, 3), (8, 8, 4), "depthwise", "no depthwise kind"),
        (L.DepthwiseConv2D(3), (8, 8, 4), "channel", "by itself already"),
        (L.SeparableConv2D(3, 3), (8, 8, 4), "channel", "factorized already"),
        (Own(3, 3), (8, 8, 4), "channel", "neither a convolution nor a dense layer of Keras"),
        (L.Dense(3), (4,), "channel", "is a Dense"),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_refusals_name_the_layer_and_the_reason(layer, shape, kind, reason):
    i = L.Input(shape)
    model = tf.keras.Model(i, layer(i))
    with pytest.raises(UserError, match=f"'{layer.name}' cannot be .*{reason}"):
        surgery.plan_factorization(model, {layer.name: Factorization(kind, 1)})
    for candidate in surgery.candidates(model):
        if candidate.kind == kind:
            assert reason in candidate.reason and candidate.max_rank == 0


@pytest.mark.parametrize(
    ("plan", "told", "message"),
    [
        ({"nothing": Factorization("channel", 1)}, {}, "no layer 'nothing'.* conv_1, conv_2, head"),
        ({"conv_1": Factorization("wide", 1)}, {}, "one of spatial, .* found 'wide'"),
        ({"conv_1": ("channel", 1)}, {}, "expected a Factorization"),
        ({"conv_1": Factorization("channel", 0)}, {}, "from 1 to 25, found 0"),
        ({"conv_1": Factorization("channel", 26)}, {}, "from 1 to 25, found 26"),
        ({"conv_1": Factorization("channel", 2.5)}, {}, "found 2.5"),
        ({"conv_2": Factorization("channel", 2)}, {"moments": np.eye(3)}, "expected 32x32"),
        ({"conv_2": Factorization("channel", 2)}, {"means": np.ones(3)}, "expected 32, found"),
        (
            {"conv_2": Factorization("channel", 2)},
            {"moments": np.eye(32), "means": np.full(32, 2.0)},
            "smaller than the square",
        ),
        ({"head": Factorization("dense", 2)}, {"moments": np.full([64, 64], np.nan)}, "not finite"),
    ],
)
def test_wrong_plans(plan, told, message):
    told = {key: {name: value for name in plan} for key, value in told.items()}
    with pytest.raises(UserError, match=message):
        surgery.plan_factorization(pruning_models.cnn(), plan, **told)


def test_what_is_borrowed_or_wrapped_is_refused():
    i = L.Input((5, 4))
    tied = L.Dense(6, name="tied")
    x = L.TimeDistributed(L.Dense(6, name="inner"), name="wrapper")(tied(i))
    model = tf.keras.Model(i, tf.matmul(x, tied.kernel, transpose_b=True))
    reasons = {candidate.layer: candidate.reason for candidate in surgery.candidates(model)}
    assert "tf.linalg.matmul" in reasons["tied"]
    assert "inside the wrapper 'wrapper'" in reasons["wrapper/inner"]


def test_weights_that_are_not_finite():
    model = pruning_models.cnn()
    model.get_layer("conv_2").kernel.assign(tf.fill([5, 5, 32, 64], np.nan))
    plan = surgery.plan_factorization(model, {"conv_2": Factorization("spatial", 2)})
    with pytest.raises(UserError, match="'conv_2' is not finite"):
        plan.apply()


def test_shared_weights_are_refused():
    i = L.Input((5, 4))
    one, other = L.Dense(4, name="one"), L.Dense(4, name="other")
    x = other(L.ReLU()(one(i)))
    other.kernel = one.kernel
    model = tf.keras.Model(i, x)
    with pytest.raises(UserError, match=r"'one' cannot be .* a weight that 'other' reads too"):
        surgery.plan_factorization(model, {"one": Factorization("dense", 2)})


def residual_network():
    """Returns a factorized ResNet, every kind in it, then cut in half."""
    model = pruning_models.resnet()
    plan = {
        "stem": Factorization("depthwise", 4),
        "conv_1": Factorization("spatial", 20),
        "conv_2": Factorization("channel", 12),
        "head": Factorization("dense", 2),
    }
    return model, surgery.factorize(model, plan)


def test_a_factorized_network_is_cut_like_any_other():
    _, new = residual_network()
    groups = [group for group in surgery.find_filter_groups(new) if group.prunable]
    names = [group.name for group in groups]
    assert {"conv_1_rank", "conv_2_rank", "head_rank"} <= set(names)
    removal = surgery.plan_removal(new, {g.name: range(g.channels // 2) for g in groups})
    cut = removal.apply()
    assert surgery.difference(removal, cut, inputs_of(new)) <= 1e-5
    for model in (new, cut):
        assert surgery.cost.of(model).flops == profiler_flops(model)
        assert surgery.cost.of(model).parameters == model.count_params()
    savings = surgery.cost.per_channel(new, groups, "parameters")
    one = surgery.remove_filters(new, {"conv_1_rank": [3]})
    assert savings["conv_1_rank"] == new.count_params() - one.count_params()


def test_it_is_saved_and_converted_like_any_other(tmp_path):
    _, new = residual_network()
    x = inputs_of(new, number=1)
    new.save(tmp_path / "model.keras")
    again = tf.keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(again(x), new(x), rtol=1e-5, atol=1e-5)
    interpreter = tf.lite.Interpreter(
        model_content=tf.lite.TFLiteConverter.from_keras_model(new).convert()
    )
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], x)
    interpreter.invoke()
    found = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    assert relative(new(x), found) <= 1e-4

"""Branches of additions that add nothing are removed, with all that only they need."""

import numpy as np
import pruning_models
import pytest
import tensorflow as tf
from factorization_cases import inputs_of, relative

from tff_autoprune import surgery
from tff_autoprune.errors import UserError

L = tf.keras.layers


def conv(number, size=3, **settings):
    return L.Conv2D(number, size, padding="same", **settings)


def trunk():
    return L.Input((8, 8, 4))


def finish(i, x):
    return pruning_models.randomized(tf.keras.Model(i, L.Dense(3, name="head")(L.Flatten()(x))))


def two_convolutions():
    i = trunk()
    x = conv(4, name="a")(i)
    y = conv(4, name="c")(L.ReLU()(conv(6, name="b")(x)))
    return finish(i, L.ReLU()(L.Add(name="add")([x, y]))), "add", "c", ["b", "c"]


def normalized_and_dropped():
    i = trunk()
    x = conv(4, name="a")(i)
    y = L.Dropout(0.5, name="dropout")(L.BatchNormalization(name="n")(conv(4, name="b")(x)))
    return finish(i, L.Add(name="add")([y, x])), "add", 0, ["b", "n", "dropout"]


def operator():
    i = trunk()
    x = conv(4, name="a")(i)
    y = conv(4, name="b", activation="relu")(x)
    return finish(i, tf.nn.relu(x + y)), "tf.__operators__.add", "b", ["b"]


def three_operands():
    i = trunk()
    x, y, z = (conv(4, size, name=name)(i) for size, name in ((1, "a"), (3, "b"), (5, "c")))
    return finish(i, L.ReLU()(L.Add(name="add")([x, y, z]))), "add", "b", ["b"]


def read_elsewhere():
    i = trunk()
    x = conv(4, name="a")(i)
    y = L.ReLU(name="r")(conv(4, name="b")(x))
    z = L.Add(name="add")([x, conv(4, name="c")(y)])
    return finish(i, L.Concatenate()([y, z])), "add", "c", ["c"]


def nested():
    i = L.Input((8, 8, 4))
    block = tf.keras.Model(i, L.Add(name="add")([i, conv(4, name="b")(i)]), name="block")
    i = trunk()
    x = L.ReLU()(block(conv(4, name="a")(i)))
    return finish(i, block(x)), "block/add", "block/b", ["block/b"]


def within_a_branch():
    i = trunk()
    x = conv(4, name="a")(i)
    y = conv(4, name="b")(x)
    y = L.Add(name="inner")([y, conv(4, name="c")(y)])
    y = conv(4, name="d")(y)
    return finish(i, L.Add(name="add")([x, y])), "add", "d", ["b", "c", "inner", "d"]


@pytest.mark.parametrize(
    "make",
    [
        two_convolutions,
        normalized_and_dropped,
        operator,
        three_operands,
        read_elsewhere,
        nested,
        within_a_branch,
    ],
)
def test_a_branch_that_adds_nothing_goes(make):
    tf.keras.backend.clear_session()
    model, addition, branch, gone = make()
    before = model.get_weights()
    plan = surgery.plan_branch_removal(model, addition, branch)
    smaller = plan.apply()
    x = inputs_of(model)
    assert relative(model(x), smaller(x)) > 1e-3
    model.set_weights(plan.weights_in_place())
    assert relative(model(x), smaller(x)) <= 1e-6
    model.set_weights(before)
    assert set(gone) <= set(plan.branch.layers)
    assert not {name.split("/")[-1] for name in gone} & {
        layer.name for layer in smaller._flatten_layers()
    }
    kept = [
        w for w in model.weights if w.name.split("/")[0] not in {g.split("/")[-1] for g in gone}
    ]
    assert smaller.count_params() == sum(np.prod(w.shape) for w in kept)
    arrays = [np.full(w.shape, n) for n, w in enumerate(model.trainable_weights)]
    number = {w.name: n for n, w in enumerate(model.trainable_weights)}
    for weight, array in zip(smaller.trainable_weights, plan.slice_trainable(arrays)):
        np.testing.assert_array_equal(array, np.full(weight.shape, number[weight.name]))
    assert tf.keras.Model.from_config(smaller.get_config()).count_params() == smaller.count_params()
    surgery.find_filter_groups(smaller)  # Can be cut on.


def test_the_shortcut_of_the_resnet_may_go_too():
    model = pruning_models.resnet()
    [first, second] = surgery.residual_branches(model)
    assert (first.last, second.last) == ("norm_2", "norm_s")
    for branch in (first, second):
        plan = surgery.plan_branch_removal(model, branch.addition, branch.last)
        x = inputs_of(model)
        before = model.get_weights()
        model.set_weights(plan.weights_in_place())
        assert relative(model(x), plan.apply()(x)) <= 1e-6
        model.set_weights(before)


def test_what_must_stay():
    i = trunk()
    x = conv(4, name="a")(i)
    y = L.Add(name="spread")([x, conv(1, name="b")(x)])
    y = L.Add(name="sigmoid")([y, conv(4, name="c", activation="sigmoid")(y)])
    y = L.Add(name="result")([y, conv(4, name="d")(y)])
    model = tf.keras.Model(i, y)
    with pytest.raises(UserError, match=r"no addition 'x'.* spread, sigmoid, result"):
        surgery.drop_branch(model, "x", 0)
    with pytest.raises(UserError, match=r"adds the branches .*; found branch 2"):
        surgery.drop_branch(model, "spread", 2)
    with pytest.raises(UserError, match=r"branch 'a' of 'spread' must stay: .*8, 8, 1"):
        surgery.drop_branch(model, "spread", "a")
    with pytest.raises(UserError, match="must stay: the addition is an output"):
        surgery.drop_branch(model, "result", "d")
    plan = surgery.plan_branch_removal(model, "sigmoid", "c")
    with pytest.raises(UserError, match="cannot make it zero"):
        plan.weights_in_place()

"""Which layers are multiplied, and that nothing else changes."""

import numpy as np
import pruning_models
import pytest
import tensorflow as tf
from factorization_cases import inputs_of, relative

from tff_autoprune import surgery
from tff_autoprune.errors import UserError
from tff_autoprune.surgery import Factorization

L = tf.keras.layers


@pytest.mark.parametrize(
    ("first", "second", "fits"),
    [
        (L.Dense(3), L.Dense(5), True),
        (L.Conv2D(3, 3), L.Conv2D(5, 1, use_bias=False), True),
        (L.Conv2D(3, 3, 2, padding="same"), L.Conv2D(5, 1), True),
        (L.DepthwiseConv2D(3, padding="same"), L.Conv2D(5, 1), True),
        (L.Conv2D(3, (3, 1)), L.Conv2D(5, (1, 3)), True),
        (L.Conv2D(3, (3, 1), padding="same"), L.Conv2D(5, (1, 3), padding="same"), False),
        (L.Conv2D(3, 1), L.Conv2DTranspose(5, 3), False),
        (L.Conv2D(3, 3), L.Conv2D(5, 3), False),
        (L.Conv2D(3, 3, activation="relu"), L.Conv2D(5, 1), False),
        (L.Conv2D(3, 3, trainable=False), L.Conv2D(5, 1), False),
        (L.Conv2D(3, 3, activity_regularizer="l2"), L.Conv2D(5, 1), False),
        (L.Conv2D(3, 3), L.Conv2D(5, 1, kernel_constraint="unit_norm"), False),
        (L.Conv2D(3, 3), L.Dense(5), False),
        (L.BatchNormalization(), L.Conv2D(5, 1), False),
    ],
)
def test_a_bias_in_between_goes_along_or_stands_in_the_way(first, second, fits):
    i = L.Input((6, 6, 4))
    model = pruning_models.randomized(tf.keras.Model(i, L.ReLU()(second(first(i)))))
    if not fits:
        assert not surgery.plan_merge(model).pairs
        with pytest.raises(UserError, match=f"'{second.name}' cannot be merged"):
            surgery.merge(model, [second.name])
        return
    x = inputs_of(model)
    plan = surgery.plan_merge(model, [second.name])
    merged = plan.apply()
    assert first.name not in [layer.name for layer in merged.layers]
    assert relative(model(x), merged(x)) <= 1e-5
    arrays = [np.ones(w.shape) for w in model.trainable_weights]
    carried = plan.slice_trainable(arrays)
    assert [a.shape for a in carried] == [w.shape for w in merged.trainable_weights]


def test_what_others_read_is_not_merged():
    i = L.Input((6, 6, 4))
    x = L.Conv2D(3, 1, name="a")(i)
    y = L.Conv2D(3, 1, name="b")(x)
    model = tf.keras.Model(i, L.Add()([x, y]))
    with pytest.raises(UserError, match=r"'b' cannot be merged .* one other layer alone"):
        surgery.merge(model, ["b"])
    model = tf.keras.Model(i, [x, y])
    with pytest.raises(UserError, match=r"'b' cannot be merged .* one other layer alone"):
        surgery.merge(model, ["b"])
    chain = tf.keras.Model(i, L.Conv2D(3, 1, name="c")(y))
    with pytest.raises(UserError, match=r"'c' cannot be merged .* reads 'b', which is merged"):
        surgery.merge(chain, ["b", "c"])


def test_nested_and_shared_pairs_come_back():
    shared = L.Conv2D(4, 3, padding="same", name="shared")
    inner_input = L.Input((8, 8, 4))
    inner_output = L.Conv2D(4, 3, padding="same", name="conv")(inner_input)
    inner = tf.keras.Model(inner_input, inner_output, name="inner")
    block = tf.keras.Sequential([L.Conv2D(4, 3, padding="same", name="conv")], "block")
    i = L.Input((8, 8, 4))
    x = shared(L.ReLU()(shared(i)))
    x = inner(L.ReLU()(block(L.ReLU()(x))))
    model = pruning_models.randomized(tf.keras.Model(i, L.Flatten()(inner(x))))
    plan = {n: Factorization("spatial", 12) for n in ("shared", "inner/conv", "block/conv")}
    merged = surgery.merge(surgery.factorize(model, plan))
    x = inputs_of(model)
    assert relative(model(x), merged(x)) <= 1e-5
    assert merged.count_params() == model.count_params()

import numpy as np
import pruning_models
import pytest
import tensorflow as tf
import tensorflow_model_optimization as tfmot

from tff_autoprune import search, surgery
from tff_autoprune.errors import UserError

L = tf.keras.layers
SCHEDULE = tfmot.sparsity.keras.PolynomialDecay(0.0, 0.5, begin_step=0, end_step=4, frequency=2)


def every_kind_of_reader():
    i = L.Input((16, 16, 3))
    x = L.Conv2D(8, 3, 4, padding="same", name="conv")(i)
    x = L.Add()([x, L.SeparableConv2D(8, 3, padding="same", name="separable")(x)])
    x = L.Concatenate()([x, L.Conv2D(4, 1, name="more")(x)])
    t = L.Reshape((16, 12))(x)
    t = L.MultiHeadAttention(4, 3, name="attention")(t, t)
    return pruning_models.randomized(tf.keras.Model(i, L.Dense(2)(L.LSTM(6, name="lstm")(t))))


def one_kernel_in_two_layers():
    i = L.Input((4,))
    x = L.Dense(6, name="first")(i)
    readers = [L.Dense(5, activation=f, name=f) for f in ("tanh", "relu")]
    y = L.Dense(2)(L.Multiply()([reader(x) for reader in readers]))
    readers[1].kernel = readers[0].kernel
    return pruning_models.randomized(tf.keras.Model(i, y))


def batch(model, number=8):
    shape = (number, *model.input_shape[1:])
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize(
    "make", [pruning_models.resnet, every_kind_of_reader, one_kernel_in_two_layers]
)
def test_a_trial_computes_what_the_cut_computes(make):
    model = make()
    masked = search.StructuredPruning(model)
    x = batch(model)
    whole = model(x).numpy()
    np.testing.assert_array_equal(masked(x), whole)
    removal = masked.mask_channels(
        {g.name: [0, g.channels - 1][: g.channels - 1] for g in masked.groups}
    )
    smaller = search.strip(masked)
    np.testing.assert_allclose(masked(x), smaller(x), rtol=1e-5, atol=1e-6)
    assert smaller.count_params() == removal.apply().count_params() < model.count_params()
    np.testing.assert_array_equal(model(x), whole)
    masked.mask_channels({})
    np.testing.assert_array_equal(masked(x), whole)


def test_schedule_drives_the_masks_during_fit():
    model = pruning_models.resnet()
    masked = search.StructuredPruning(model, SCHEDULE, search.importance.L2())
    masked.compile("sgd", tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    x = batch(model)
    history = masked.fit(
        x, np.zeros(len(x)), batch_size=2, epochs=2, verbose=0, callbacks=[search.UpdateMasks()]
    )
    assert history.history["masked_channels"] == [0.5, 0.5]
    assert len(masked.selection["stem"]) == 8
    np.testing.assert_allclose(
        masked.predict(x, verbose=0), search.strip(masked)(x), rtol=1e-5, atol=1e-5
    )


def fitted(schedule, **kwargs):
    masked = search.StructuredPruning(pruning_models.cnn(), schedule)
    masked.compile("sgd", tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    x = batch(masked.model)
    return masked.fit(x, np.zeros(len(x)), batch_size=4, verbose=0, **kwargs)


def test_a_schedule_that_does_nothing_is_said():
    with pytest.raises(UserError, match="UpdateMasks"):
        fitted(SCHEDULE)
    late = tfmot.sparsity.keras.PolynomialDecay(0.0, 0.5, begin_step=100, end_step=200)
    with pytest.warns(UserWarning, match="never fired in 2 steps"):
        fitted(late, callbacks=[search.UpdateMasks()])


def test_an_importance_that_fit_cannot_feed_is_refused_at_construction():
    with pytest.raises(UserError, match="pseudo-gradient"):
        search.StructuredPruning(pruning_models.cnn(), SCHEDULE, search.importance.Taylor())
    # By hand, an update can be given.
    search.StructuredPruning(pruning_models.cnn(), importance=search.importance.Taylor())


def test_masked_weights_get_no_gradient():
    model = pruning_models.resnet()
    masked = search.StructuredPruning(model)
    masked.mask_channels({"conv_1": [3]})
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(masked(batch(model), training=True) ** 2)
    kernel = model.get_layer("conv_2").kernel
    gradient = tape.gradient(loss, kernel).numpy()
    assert np.abs(gradient[:, :, 3]).max() == 0
    assert np.abs(gradient[:, :, 2]).max() > 0


def test_the_least_important_are_masked_and_one_always_stays():
    masked = search.StructuredPruning(pruning_models.cnn())
    masked.update_masks(0.25)
    scores = masked.importance(masked.groups[0], masked.model.get_weights())
    assert set(masked.selection["conv_1"]) == set(np.argsort(scores)[:8])
    assert masked.thresholds["conv_1"].numpy() == pytest.approx(np.sort(scores)[7])
    masked.update_masks(1.0)
    assert len(masked.selection["conv_1"]) == 31
    with pytest.raises(UserError, match="between 0 and 1"):
        masked.update_masks(1.5)


def test_masks_are_state_but_not_trained(tmp_path):
    model = pruning_models.cnn()
    masked = search.StructuredPruning(model)
    assert len(masked.trainable_weights) == len(model.trainable_weights)
    masked(batch(model))
    masked.mask_channels({"conv_1": [1, 2]})
    masked.save_weights(tmp_path / "masked.h5")
    masked.mask_channels({})
    masked.load_weights(tmp_path / "masked.h5")
    assert masked.selection == {"conv_1": [1, 2]}


def test_mixed_precision():
    i = L.Input((4,), dtype="float16")
    x = L.Dense(4, dtype="mixed_float16", name="first")(i)
    model = tf.keras.Model(i, L.Dense(2, dtype="mixed_float16")(x))
    masked = search.StructuredPruning(model)
    masked.mask_channels({"first": [0]})
    assert masked(tf.ones([1, 4], tf.float16)).dtype == tf.float16


def test_misuse_is_explained(tmp_path):
    model = pruning_models.cnn()
    masked = search.StructuredPruning(model)
    with pytest.raises(UserError, match="strip"):
        masked.save(tmp_path / "model")
    with pytest.raises(UserError, match="with a schedule"):
        search.UpdateMasks().set_model(masked)
    with pytest.raises(UserError, match="must stay"):
        masked.mask_channels({"head": [0]})
    assert masked.selection == {}


def test_weights_in_a_list_cannot_be_masked():
    class Several(L.Layer):
        def build(self, shape):
            self.kernels = [self.add_weight(f"kernel_{n}", [shape[-1], 3]) for n in range(2)]

        def call(self, x):
            return tf.matmul(x, self.kernels[0]) - tf.matmul(x, self.kernels[1])

    @surgery.register_layer(Several)
    def _rule(call):
        for kernel in call.layer.kernels:
            call.consume(kernel, 0, call.along(call.x, -1))
        return call.tensor([])

    model = tf.keras.Sequential([L.Input((4,)), L.Dense(5, name="first"), Several(name="own")])
    assert surgery.remove_filters(model, {"first": [0]}).get_layer("own").kernels[0].shape[0] == 4
    with pytest.raises(UserError, match="cannot mask 'own/kernel_0:0'"):
        search.StructuredPruning(model)

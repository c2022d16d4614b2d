"""Cuts are tried on clients that have the model, or as smaller models where that cannot be."""

import numpy as np
import pytest
import tensorflow as tf

from tff_autoprune import federated, models, surgery
from tff_autoprune import runtime as runtime_lib
from tff_autoprune.search import base, trial

CLASSES = 5
_SETTINGS = federated.Settings(aggregator=federated.AggregatorSettings(min_clients=1))


@pytest.fixture(scope="module", autouse=True)
def runtime():
    runtime_lib.start()
    yield
    runtime_lib.stop()


def _nested_model():
    """A layer within a model within the model: what it reads cannot be told."""
    inner_image = tf.keras.Input((8, 8, 6))
    inside = tf.keras.layers.Conv2D(4, 3, activation="relu", name="inside")(inner_image)
    inner = tf.keras.Model(inner_image, inside, name="inner")
    image = tf.keras.Input((8, 8, 1))
    x = tf.keras.layers.Conv2D(6, 3, padding="same", activation="relu", name="first")(image)
    x = tf.keras.layers.GlobalAveragePooling2D()(inner(x))
    return tf.keras.Model(image, tf.keras.layers.Dense(CLASSES, name="logits")(x))


def _flat_model():
    return models.build("cnn", input_shape=(20, 20, 1), num_classes=CLASSES, filters=(6, 4), seed=1)


@pytest.mark.parametrize(
    ("build", "downloads_of_candidates"), [(_flat_model, 0), (_nested_model, 2)]
)
def test_the_loss_of_a_cut_is_that_of_the_model_it_would_leave(build, downloads_of_candidates):
    tf.keras.utils.set_random_seed(0)
    model = build()
    engine = federated.Engine(model, _SETTINGS)
    state = engine.initialize()
    generator = np.random.default_rng(0)
    images = generator.random((12, *model.input_shape[1:]), np.float32)
    labels = generator.integers(0, CLASSES, 12).astype(np.int32)
    datasets = [tf.data.Dataset.from_tensor_slices((images, labels)).batch(5)]
    sent = []

    def evaluate(candidate):
        sent.append(candidate)
        return federated.evaluate_model(candidate, datasets)

    observation = base.Observation(
        round_num=1,
        total_rounds=10,
        model=model,
        pseudo_gradient=None,
        train_metrics={},
        examine=lambda layers: engine.examine(state, datasets, layers),
        try_candidates=lambda layers, mixes: engine.try_candidates(state, datasets, layers, mixes),
        evaluate=evaluate,
    )
    groups = [group for group in surgery.find_filter_groups(model) if group.prunable]
    tried = trial.Trial(observation, groups)
    assert tried.seen["loss"] == pytest.approx(engine.evaluate(state, datasets)["loss"])
    selections = [{groups[0].name: [1, 3]}, {groups[1].name: [0]}]
    losses = tried.losses(selections)
    assert len(sent) == downloads_of_candidates
    for selection, loss in zip(selections, losses):
        removal = surgery.plan_removal(model, selection)
        smaller = removal.apply()
        smaller.set_weights(removal.slice_weights(tried.weights_without(selection)))
        assert loss == pytest.approx(
            federated.evaluate_model(smaller, datasets)["calibrated_loss"], rel=1e-4
        )
    assert tried.losses([]) == []

"""What clients tell about a model: accuracy, and second moments of what its layers read."""

import numpy as np
import pytest
import tensorflow as tf
from federated_doubles import few_clients

from tff_autoprune import federated, models, surgery
from tff_autoprune.errors import UserError
from tff_autoprune.search import compensation

CLASSES = 5
NETWORKS = [
    ("cnn", (28, 28, 1), {"filters": (6, 8)}),
    ("cnn", (48, 48, 1), {"filters": (6, 8)}),  # Flatten before the logits.
    ("inception", (28, 28, 1), {"filters": (8, 4, 4, 4, 4, 4, 4, 6, 6)}),
    ("resnet", (28, 28, 1), {"filters": (4, 8, 8), "normalization": "group"}),
    ("resnet", (28, 28, 1), {"filters": (4, 8, 8), "normalization": "batch"}),
]


def _clients(shape, sizes=(9, 4)):
    generator = np.random.default_rng(0)
    images = [generator.random((size, *shape), np.float32) for size in sizes]
    datasets = [
        tf.data.Dataset.from_tensor_slices((x, np.zeros(len(x), np.int32))).batch(5) for x in images
    ]
    return np.concatenate(images), datasets


def _layers(model):
    groups = [group for group in surgery.find_filter_groups(model) if group.prunable]
    return groups, {r.layer: r.places for r in compensation.readers(model, groups)}


def _expected(model, layer, places, images):
    values = tf.keras.Model(model.inputs, model.get_layer(layer).input)(images).numpy()
    values = values.reshape(-1, values.shape[-1] // places)
    return values.T @ values / len(images)


@pytest.mark.parametrize(("network", "shape", "options"), NETWORKS)
def test_moments_are_those_of_all_clients_pooled_before_and_after_a_cut(network, shape, options):
    model = models.build(network, input_shape=shape, num_classes=CLASSES, seed=0, **options)
    engine = federated.Engine(model, few_clients())
    state = engine.initialize()
    images, datasets = _clients(shape)
    for _ in range(2):
        groups, layers = _layers(engine.model)
        assert len(layers) >= 2
        found, moments = engine.examine(state, datasets, layers)
        assert found == engine.evaluate(state, datasets)
        present = engine.keras_model(state)
        for layer, places in layers.items():
            expected = _expected(present, layer, places, images)
            np.testing.assert_allclose(
                moments[layer], expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max()
            )
        removal = surgery.plan_removal(present, {group.name: [0] for group in groups[:2]})
        engine = engine.with_model(removal.apply())
        state = engine.carry_state(state, removal)


@pytest.mark.parametrize(("network", "shape", "options"), NETWORKS)
def test_a_candidate_does_as_the_smaller_model_does(network, shape, options):
    model = models.build(network, input_shape=shape, num_classes=CLASSES, seed=0, **options)
    engine = federated.Engine(model, few_clients())
    state = engine.initialize()
    _, datasets = _clients(shape)
    groups, layers = _layers(model)
    found = compensation.readers(model, groups)
    _, moments = engine.examine(state, datasets, layers)
    selections = [{groups[0].name: [0]}, {groups[0].name: [1], groups[1].name: [0]}, {}]
    mixes = [compensation.stand_ins(groups, found, chosen, moments) for chosen in selections]
    stacked = {
        name: np.stack([mix.get(name, np.eye(len(moments[name]))) for mix in mixes])
        for name in layers
    }
    tried = engine.try_candidates(state, datasets, layers, stacked)
    for chosen, mix, feedback in zip(selections, mixes, tried):
        removal = surgery.plan_removal(model, chosen)
        smaller = removal.apply()
        weights = compensation.compensate(found, model.get_weights(), mix)
        smaller.set_weights(removal.slice_weights(weights))
        assert feedback == pytest.approx(federated.evaluate_model(smaller, datasets), rel=1e-4)


def test_every_reader_of_a_reference_network_is_examined():
    for network, shape, options in NETWORKS:
        model = models.build(network, input_shape=shape, num_classes=CLASSES, **options)
        groups, layers = _layers(model)
        reading = {
            member.layer
            for group in groups
            for member in group.members
            if member.role == surgery.Role.CONSUMER
        }
        assert set(layers) == reading


def test_layers_whose_input_cannot_be_told_are_left_out():
    image = tf.keras.Input((8, 8, 3))
    shared = tf.keras.layers.Conv2D(4, 3, padding="same", name="shared")
    first = tf.keras.layers.Conv2D(4, 3, padding="same", activation="relu", name="first")(image)
    x = shared(shared(first))
    inner_image = tf.keras.Input((8, 8, 4))
    inner = tf.keras.Model(
        inner_image, tf.keras.layers.Conv2D(6, 3, activation="relu", name="inside")(inner_image)
    )
    x = tf.keras.layers.GlobalAveragePooling2D()(inner(x))
    x = tf.keras.layers.Dense(4, activation="relu", name="dense")(x)
    model = tf.keras.Model(image, tf.keras.layers.Dense(CLASSES, name="logits")(x))
    _, layers = _layers(model)
    assert layers == {"dense": 1, "logits": 1}
    engine = federated.Engine(model, few_clients())
    _, datasets = _clients((8, 8, 3))
    _, moments = engine.examine(engine.initialize(), datasets, layers)
    assert {name: value.shape for name, value in moments.items()} == {
        "dense": (6, 6),
        "logits": (4, 4),
    }


def test_a_model_without_layers_to_examine_is_evaluated():
    model = models.build("cnn", input_shape=(28, 28, 1), num_classes=CLASSES, filters=(4, 4))
    engine = federated.Engine(model, few_clients())
    _, datasets = _clients((28, 28, 1))
    found, moments = engine.examine(engine.initialize(), datasets, {})
    assert found == engine.evaluate(engine.initialize(), datasets)
    assert moments == {}


def test_an_examination_needs_a_client():
    model = models.build("cnn", input_shape=(28, 28, 1), num_classes=CLASSES, filters=(4, 4))
    engine = federated.Engine(model, few_clients())
    with pytest.raises(UserError, match="at least one client"):
        engine.examine(engine.initialize(), [], {})
    with pytest.raises(UserError, match="at least one client"):
        engine.try_candidates(engine.initialize(), [], {}, {})

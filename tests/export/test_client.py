import numpy as np
import pytest
import tensorflow as tf
from client_models import MODELS, L
from tensorflow.lite.python import schema_py_generated as tflite_schema

from tff_autoprune import export, federated
from tff_autoprune.errors import UserError
from tff_autoprune.export import client_parity

BATCH, LAST = 10, 7
OPTIMIZERS = {
    "sgd": lambda rate, epsilon: tf.keras.optimizers.SGD(rate),
    "momentum": lambda rate, epsilon: tf.keras.optimizers.SGD(rate, momentum=0.9),
    "adam": lambda rate, epsilon: tf.keras.optimizers.Adam(rate, epsilon=epsilon),
}
RATES = {"sgd": 0.01, "momentum": 0.01, "adam": 1e-3}
# With Keras' epsilon, Adam moves biases before a normalization, whose gradients are rounding, by
# whole steps; see docs/configuration.md on client_epsilon.
EPSILON = 1e-3


def batches(model, count, seed=0):
    """Batches of noise; every fourth is not full."""
    rng = np.random.default_rng(seed)
    for number in range(count):
        size = LAST if number % 4 == 3 else BATCH
        yield (
            rng.random((size, *model.input_shape[1:]), np.float32),
            rng.integers(0, model.output_shape[-1], size).astype(np.int32),
        )


def convert(model, optimizer="sgd", rate=0.01):
    settings = federated.Settings(
        client_optimizer=optimizer, client_learning_rate=rate, client_epsilon=EPSILON
    )
    return export.convert_client(model, settings, batch_size=BATCH)


def check_against_keras(model, optimizer, rate, steps=20):
    client = export.TFLiteClient(convert(model, optimizer, rate))
    names = export.weight_names(model)
    start = model.get_weights()
    client.set_weights(dict(zip(names, start)))
    from_logits = model.layers[-1].activation is tf.keras.activations.linear
    model.compile(
        OPTIMIZERS[optimizer](rate, EPSILON),
        tf.keras.losses.SparseCategoricalCrossentropy(from_logits=from_logits),
    )
    for images, labels in batches(model, steps):
        step = client.train(images, labels, rate)
        assert step.loss == pytest.approx(model.train_on_batch(images, labels), rel=1e-4)
    found = client.get_weights()
    moved = distance = 0.0
    for name, old, expected in zip(names, start, model.get_weights()):
        # Biases start at 0 and are as small as what rounding does to a ReLU at its bend.
        tolerance = 1e-4 * max(np.abs(expected).max(), 0.1)
        np.testing.assert_allclose(found[name], expected, rtol=0, atol=tolerance, err_msg=name)
        distance += np.square(found[name] - expected).sum()
        moved += np.square(old - expected).sum()
    assert 0 < distance**0.5 < 1e-3 * moved**0.5


@pytest.mark.parametrize(
    ("name", "optimizer"),
    [
        ("cnn", "sgd"),
        ("pruned_cnn", "momentum"),
        ("resnet_batch_norm", "adam"),
        ("resnet_group_norm", "momentum"),
        ("inception", "sgd"),
        ("mobile", "sgd"),
        ("factorized", "adam"),
        ("assorted", "sgd"),
    ],
)
def test_twenty_steps_are_those_of_keras(name, optimizer):
    check_against_keras(MODELS[name](), optimizer, RATES[optimizer])


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("name", MODELS)
def test_every_optimizer_trains_every_model_as_in_keras(name, optimizer):
    check_against_keras(MODELS[name](), optimizer, RATES[optimizer])


@pytest.mark.slow
def test_each_step_of_mobilenet_v2_is_that_of_keras():
    """As near as Keras is to itself.

    Fresh and 52 normalizations deep, the network is chaotic: rounding of its weights alone moves
    the gradients of a step by up to some percent. So each step starts from Keras' weights, and what
    it may differ by is bounded by what it differs by for Keras with weights rounded otherwise.
    """
    tf.keras.utils.set_random_seed(0)
    model = tf.keras.applications.MobileNetV2(
        (32, 32, 3), alpha=0.35, weights=None, classes=10, classifier_activation=None
    )
    other, rate = tf.keras.models.clone_model(model), 1e-3
    client = export.TFLiteClient(convert(model, "sgd", rate))
    names = export.weight_names(model)
    for one in (model, other):
        one.compile(
            OPTIMIZERS["sgd"](rate, EPSILON),
            tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        )

    def distance(found, expected):
        return sum(np.square(a - b).sum() for a, b in zip(found, expected)) ** 0.5

    for images, labels in batches(model, 20):
        start = model.get_weights()
        client.set_weights(dict(zip(names, start)))
        other.set_weights([weight * np.float32(1 + 3e-7) for weight in start])
        loss = model.train_on_batch(images, labels)
        other.train_on_batch(images, labels)
        assert client.train(images, labels, rate).loss == pytest.approx(loss, rel=1e-4)
        expected, moved = model.get_weights(), distance(start, model.get_weights())
        found = client.get_weights()
        error = distance([found[name] for name in names], expected)
        assert 0 < error < max(1e-3 * moved, 100 * distance(other.get_weights(), expected))
        assert error < 0.2 * moved


def test_only_builtin_operations_are_used():
    content = convert(MODELS["assorted"](), "adam")
    model = tflite_schema.Model.GetRootAsModel(content, 0)
    codes = [model.OperatorCodes(i) for i in range(model.OperatorCodesLength())]
    assert codes
    assert all(code.BuiltinCode() != tflite_schema.BuiltinOperator.CUSTOM for code in codes)


def test_infer_gives_probabilities_of_the_weights_that_were_set():
    model = MODELS["pruned_cnn"]()
    client = export.TFLiteClient(convert(model))
    other = MODELS["pruned_cnn"]()
    other.set_weights([weight + 0.01 for weight in model.get_weights()])
    client.set_weights(dict(zip(export.weight_names(other), other.get_weights())))
    image = next(batches(model, 1))[0][:1]
    expected = tf.nn.softmax(other(image))[0]
    np.testing.assert_allclose(client.infer(image[0]), expected, atol=1e-6)


def test_setting_weights_starts_the_optimizer_anew():
    model = MODELS["pruned_cnn"]()
    client = export.TFLiteClient(convert(model, "adam"))
    weights = client.get_weights()
    images, labels = next(batches(model, 1))
    results = []
    for _ in range(2):
        client.set_weights(weights)
        client.train(images, labels, 0.01)
        client.train(images, labels, 0.01)
        results.append(client.get_weights())
    for name, first in results[0].items():
        np.testing.assert_array_equal(first, results[1][name])


@pytest.fixture(scope="module")
def with_dropout():
    tf.keras.utils.set_random_seed(1)
    model = tf.keras.Sequential(
        [
            L.Input((20, 20, 1)),
            L.Flatten(),
            L.Dropout(0.25, name="drop"),
            L.Dense(10, name="head", kernel_initializer="zeros"),
        ]
    )
    return export.TFLiteClient(convert(model))


def kept_inputs(client, seed):
    """Returns which inputs of a batch of ones were not dropped: the head's gradient shows them."""
    weights = client.get_weights()
    client.set_weights({name: 0 * weight for name, weight in weights.items()})
    images = np.ones((1, 20, 20, 1), np.float32)
    client.train(images, np.zeros(1, np.int32), 1.0, seed=seed)
    return client.get_weights()["head_kernel"][:, 0]


def test_dropout_drops_its_share_and_scales_the_rest(with_dropout):
    kept = np.stack([kept_inputs(with_dropout, seed) for seed in range(40)])
    # One label of ten: its gradient is 1 - 0.1 times the input, which is 1 / 0.75 or 0.
    assert set(np.unique(kept.round(4))) == {0.0, np.float32(1.2)}
    share = (kept > 0).mean()
    assert share == pytest.approx(0.75, abs=4 * np.sqrt(0.75 * 0.25 / kept.size))
    # Neither inputs nor seeds go together.
    columns = (kept > 0) - share
    between = columns @ columns.T / kept.shape[1] / (share * (1 - share))
    off_diagonal = between[~np.eye(len(kept), dtype=bool)]
    assert np.abs(off_diagonal).max() < 5 / np.sqrt(kept.shape[1])
    assert off_diagonal.std() < 1.5 / np.sqrt(kept.shape[1])


def test_dropout_follows_its_seed(with_dropout):
    first = kept_inputs(with_dropout, 3)
    np.testing.assert_array_equal(first, kept_inputs(with_dropout, 3))
    assert (first != kept_inputs(with_dropout, 4)).any()


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (lambda: L.Conv2D(4, 3, groups=2, name="odd"), r"'odd' \(Conv2DBackpropFilter\)"),
        (lambda: L.Conv2DTranspose(4, 3, name="odd"), r"'odd' \(Conv2DBackpropFilter\)"),
        (lambda: L.Conv2D(4, 3, activation="gelu", name="odd"), r"'odd' \(Erf\)"),
        (lambda: L.GaussianNoise(0.1, name="odd"), "(?s)'odd'.*only dropout is random"),
        (lambda: L.BatchNormalization(axis=1, name="odd"), "(?s)'odd' normalizes axis"),
    ],
    ids=["grouped", "transposed", "gelu", "noise", "axis"],
)
def test_a_layer_that_cannot_be_trained_is_named(layer, message):
    model = tf.keras.Sequential([L.Input((6, 6, 2)), layer(), L.Flatten(), L.Dense(3)])
    with pytest.raises(UserError, match=message):
        convert(model)


@pytest.mark.parametrize("activation", ["sigmoid", "relu"])
def test_other_tasks_than_classes_are_refused(activation):
    units = 3 if activation == "sigmoid" else 1
    layers = [L.Input((6, 6, 2)), L.Flatten(), L.Dense(units, activation)]
    with pytest.raises(UserError, match="only models of classes"):
        convert(tf.keras.Sequential(layers))


def test_a_step_that_is_not_tensorflows_is_refused():
    model = MODELS["pruned_cnn"]()
    settings = federated.Settings(client_optimizer="sgd", client_learning_rate=0.01)
    content = export.convert_client(model, settings, batch_size=BATCH)
    images, labels = next(batches(model, 1))
    parity = client_parity.check_step(content, model, settings, images, labels, images)
    assert parity.weights_difference < 1e-4
    with pytest.raises(UserError, match="expected a training step within"):
        client_parity.check_step(content, model, settings, images, labels, 1 - images)


def test_wrong_weights_and_batches_are_named():
    model = MODELS["pruned_cnn"]()
    client = export.TFLiteClient(convert(model))
    weights = client.get_weights()
    with pytest.raises(UserError, match=r"'logits_bias' of shape \(10,\), found none"):
        client.set_weights({n: w for n, w in weights.items() if n != "logits_bias"})
    with pytest.raises(UserError, match=r"'logits_bias' of shape \(10,\), found \(9,\)"):
        client.set_weights({**weights, "logits_bias": np.zeros(9)})
    images, labels = next(batches(model, 1))
    with pytest.raises(UserError, match="1 to 10 examples, found 20"):
        client.train(np.tile(images, (2, 1, 1, 1)), np.tile(labels, 2), 0.1)
    with pytest.raises(UserError, match="expected the signatures"):
        export.TFLiteClient(export.convert(model, "float32"))

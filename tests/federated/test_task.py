"""Tasks: what is inferred, and that losses and metrics are those of Keras and NumPy."""

from __future__ import annotations

import collections

import numpy as np
import pytest
import tensorflow as tf
from federated_doubles import few_clients

from tff_autoprune import federated
from tff_autoprune.errors import UserError

_layers = tf.keras.layers
_RNG = np.random.default_rng(0)
ROWS = 12


def _model(*widths, activation=None, shape=(5,), names=None):
    tf.keras.utils.set_random_seed(0)
    inputs = tf.keras.Input(shape)
    x = _layers.Dense(6, activation="relu")(inputs)
    names = names or [None] * len(widths)
    outputs = [_layers.Dense(w, activation=activation, name=n)(x) for w, n in zip(widths, names)]
    return tf.keras.Model(inputs, outputs[0] if len(outputs) == 1 else outputs)


def _x(*shape):
    return _RNG.random((ROWS, *shape), np.float32)


def _data(x, y, *weights):
    return tf.data.Dataset.from_tensor_slices((x, y, *weights)).batch(5)


LABELS = {
    "classes": _RNG.integers(3, size=ROWS).astype(np.int32),
    "bits": _RNG.integers(2, size=ROWS).astype(np.int32),
    "many bits": _RNG.integers(2, size=(ROWS, 3)).astype(np.float32),
    "numbers": _RNG.normal(size=ROWS).astype(np.float32),
    "pixels": _RNG.integers(3, size=(ROWS, 4, 4)).astype(np.int32),
    "pixel bits": _RNG.integers(2, size=(ROWS, 4, 4)).astype(np.int32),
    "tokens": _RNG.integers(3, size=(ROWS, 4)).astype(np.int32),
}
LABELS["one-hot"] = np.eye(3, dtype=np.float32)[LABELS["classes"]]
_losses = tf.keras.losses
_CLASSES, _CLASS_LOGITS = (
    _losses.SparseCategoricalCrossentropy(logits) for logits in (False, True)
)
_BITS, _BIT_LOGITS = (_losses.BinaryCrossentropy(logits) for logits in (False, True))
# name: (output width, activation, shape of inputs, labels, kind, Keras' loss)
TASKS = {
    "logits": (3, None, (5,), "classes", "multi-class", _CLASS_LOGITS),
    "softmax": (3, "softmax", (5,), "classes", "multi-class", _CLASSES),
    "one-hot": (3, "softmax", (5,), "one-hot", "multi-class", _losses.CategoricalCrossentropy()),
    "sigmoid": (1, "sigmoid", (5,), "bits", "binary", _BITS),
    "logit": (1, None, (5,), "bits", "binary", _BIT_LOGITS),
    "multi-label": (3, "sigmoid", (5,), "many bits", "multi-label", _BITS),
    "regression": (1, None, (5,), "numbers", "regression", _losses.MeanSquaredError()),
    "pixels": (3, None, (4, 4, 2), "pixels", "multi-class", _CLASS_LOGITS),
    "mask": (1, "sigmoid", (4, 4, 2), "pixel bits", "binary", _BITS),
    "tokens": (3, None, (4, 2), "tokens", "multi-class", _CLASS_LOGITS),
}


def _expected_metric(kind, outputs, labels, from_logits):
    if kind == "regression":
        return np.mean(np.abs(outputs[..., 0] - labels))
    if kind == "multi-class":
        labels = labels.argmax(-1) if labels.ndim == outputs.ndim else labels
        return np.mean(outputs.argmax(-1) == labels)
    hits = (outputs > (0 if from_logits else 0.5)) == (labels.reshape(outputs.shape) > 0.5)
    return np.mean(hits)


@pytest.mark.parametrize("name", TASKS)
def test_a_task_is_inferred_and_its_figures_are_right(name):
    width, activation, shape, labels, kind, loss = TASKS[name]
    model = _model(width, activation=activation, shape=shape)
    x, y = _x(*shape), LABELS[labels]
    dataset = _data(x, y)
    task = federated.Task.of(model, labels=dataset.element_spec[1])
    assert task.heads[0].kind == kind
    outputs = model(x).numpy()
    found = federated.evaluate_model(model, [dataset, dataset], task)
    target = y if kind == "multi-class" else y.reshape(outputs.shape)
    assert found["loss"] == pytest.approx(float(loss(target, outputs)), rel=1e-4)
    expected = _expected_metric(kind, outputs, y, task.heads[0].from_logits)
    assert found["metric"] == pytest.approx(expected, rel=1e-5)
    assert ("accuracy" in found) == (kind != "regression")
    assert task.metric.higher_is_better == (kind != "regression")
    assert found["calibrated_loss"] <= found["loss"] + 1e-5


def test_points_are_of_accuracy_or_percent_of_an_error():
    accuracy = federated.Task.of(_model(3)).metric
    assert accuracy.points_lost(0.80, 0.79) == pytest.approx(1.0)
    error = federated.Task.of(_model(1), "regression").metric
    assert error.points_lost(2.0, 2.2) == pytest.approx(10.0)


def test_what_cannot_be_inferred_is_said():
    with pytest.raises(UserError, match="say what it is for"):
        federated.Task.of(_model(1))
    with pytest.raises(UserError, match="say what it is for"):
        federated.Task.of(_model(3), labels=tf.TensorSpec((None, 3), tf.float32))
    with pytest.raises(UserError, match="needs a number for each"):
        federated.Task.of(_model(1), "multi-class")
    with pytest.raises(UserError, match="expected one of multi-class"):
        federated.Task.of(_model(1), "clustering")
    with pytest.raises(UserError, match="no Keras loss 'hing'"):
        federated.Task.of(_model(3), loss="hing")


def test_weights_of_examples_count():
    model = _model(3)
    x, y = _x(5), LABELS["classes"]
    weights = _RNG.random(ROWS, np.float32)
    task = federated.Task.of(model, sample_weights=True)
    found = federated.evaluate_model(model, [_data(x, y, weights)], task)
    losses = _losses.sparse_categorical_crossentropy(y, model(x), from_logits=True)
    assert found["loss"] == pytest.approx(np.average(losses, weights=weights), rel=1e-4)
    assert found["num_examples"] == pytest.approx(weights.sum(), rel=1e-5)


def test_an_example_of_weight_0_teaches_nothing():
    model = _model(3)
    x, y = _x(5), LABELS["classes"]
    weights = np.r_[np.ones(5), np.zeros(ROWS - 5)].astype(np.float32)
    settings = few_clients(client_optimizer="sgd", client_learning_rate=0.1)

    def trained(*arrays):
        task = federated.Task.of(model, sample_weights=True)
        engine = federated.Engine(model, settings, task=task)
        state = engine.next(engine.initialize(), [_data(*arrays)]).state
        return engine.keras_model(state).get_weights()

    for one, other in zip(trained(x, y, weights), trained(x[:5], y[:5], weights[:5])):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_padding_does_not_count():
    model = _model(3, shape=(4, 2))
    x, y = _x(4, 2), LABELS["tokens"]
    task = federated.Task.of(model, ignored_label=0)
    found = federated.evaluate_model(model, [_data(x, y)], task)
    losses = _losses.sparse_categorical_crossentropy(y, model(x), from_logits=True).numpy()
    assert found["loss"] == pytest.approx(losses[y != 0].mean(), rel=1e-4)
    assert found["num_examples"] == (y != 0).sum()


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        (tf.keras.losses.Huber(0.3), tf.keras.losses.Huber(0.3)),
        ("mae", tf.keras.losses.MeanAbsoluteError()),
        (lambda y, p: tf.square(y - p) * 3, None),
    ],
)
def test_a_loss_of_ones_own(loss, expected):
    model = _model(1)
    x, y = _x(5), LABELS["numbers"]
    task = federated.Task.of(model, "regression", loss=loss)
    found = federated.evaluate_model(model, [_data(x, y)], task)
    wanted = expected(y[:, None], model(x)) if expected else 3 * np.mean((y - model(x)[:, 0]) ** 2)
    assert found["loss"] == pytest.approx(float(wanted), rel=1e-4)


def test_metrics_of_ones_own_are_those_of_all_examples_pooled():
    model = _model(1, activation="sigmoid")
    x, y = _x(5), LABELS["bits"]
    task = federated.Task.of(model, metrics=[tf.keras.metrics.AUC, tf.keras.metrics.Precision])
    found = federated.evaluate_model(model, [_data(x[:4], y[:4]), _data(x[4:], y[4:])], task)
    for metric in (tf.keras.metrics.AUC(), tf.keras.metrics.Precision()):
        metric.update_state(y, model(x))
        names = [name for name in found if name.startswith(metric.name.split("_")[0])]
        assert [found[name] for name in names] == [pytest.approx(float(metric.result()), abs=1e-5)]
    engine = federated.Engine(model, few_clients(), task=task)
    trained = engine.next(engine.initialize(), [_data(x, y)])
    assert any(name.startswith("auc") for name in trained.metrics)


def test_several_inputs_and_outputs_with_weights_of_their_losses():
    tf.keras.utils.set_random_seed(0)
    image, table = tf.keras.Input((4, 4, 1), name="image"), tf.keras.Input((5,), name="table")
    x = _layers.Concatenate()([_layers.Flatten()(image), table])
    kind, size = _layers.Dense(3, name="kind")(x), _layers.Dense(1, name="size")(x)
    model = tf.keras.Model({"image": image, "table": table}, {"kind": kind, "size": size})
    inputs = {"table": _x(5), "image": _x(4, 4, 1)}
    labels = {"size": LABELS["numbers"], "kind": LABELS["classes"]}
    dataset = tf.data.Dataset.from_tensor_slices((inputs, labels)).batch(5)
    task = federated.Task.of(
        model, labels=dataset.element_spec[1], loss_weights={"kind": 2.0, "size": 0.5}
    )
    assert [head.kind for head in task.heads] == ["multi-class", "regression"]
    found = federated.evaluate_model(model, [dataset], task)
    outputs = model(inputs)
    cross = _losses.SparseCategoricalCrossentropy(True)(labels["kind"], outputs["kind"])
    error = outputs["size"][:, 0] - labels["size"]
    assert found["loss"] == pytest.approx(
        2 * float(cross) + 0.5 * np.mean(np.square(error)), rel=1e-4
    )
    assert found["accuracy"] == np.mean(np.argmax(outputs["kind"], -1) == labels["kind"])
    assert found["size/metric"] == pytest.approx(np.mean(np.abs(error)), rel=1e-5)
    engine = federated.Engine(model, few_clients(client_learning_rate=0.01), task=task)
    state, losses = engine.initialize(), []
    for _ in range(5):
        result = engine.next(state, [dataset])
        state = result.state
        losses.append(result.metrics["loss"])
    assert losses[-1] < losses[0]


def test_integers_for_an_embedding():
    tf.keras.utils.set_random_seed(0)
    inputs = tf.keras.Input((4,), dtype="int32")
    model = tf.keras.Model(inputs, _layers.Dense(3)(_layers.Embedding(9, 5)(inputs)))
    tokens = _RNG.integers(9, size=(ROWS, 4))
    dataset = _data(tokens, LABELS["tokens"])
    engine = federated.Engine(model, few_clients(client_learning_rate=0.05))
    state = engine.initialize()
    first = engine.evaluate(state, [dataset])
    for _ in range(5):
        state = engine.next(state, [dataset]).state
    assert engine.evaluate(state, [dataset])["loss"] < first["loss"]
    with pytest.raises(UserError, match="number 99; the model's embedding knows 0 to 8"):
        engine.next(state, [_data(np.full_like(tokens, 99), LABELS["tokens"])])


# ---------------------------------------------------------------- what users give as batches


def _image_model():
    tf.keras.utils.set_random_seed(0)
    inputs = tf.keras.Input((4, 4, 1))
    return tf.keras.Model(inputs, _layers.Dense(3)(_layers.Flatten()(inputs)))


IMAGES, CLASSES = _x(4, 4, 1), LABELS["classes"]


@pytest.mark.parametrize(
    "dataset",
    [
        _data(IMAGES, CLASSES.astype(np.int64)),
        _data(IMAGES.astype(np.float64), CLASSES[:, None]),
        _data(IMAGES[..., 0], CLASSES.astype(np.uint8)),
        tf.data.Dataset.from_tensor_slices({"x": IMAGES, "y": CLASSES}).batch(5),
        tf.data.Dataset.from_tensor_slices(
            collections.OrderedDict(label=CLASSES.astype(np.int64), pixels=IMAGES)
        ).batch(5),
        tf.data.Dataset.from_tensor_slices((IMAGES, CLASSES)).batch(4, drop_remainder=True),
    ],
    ids=["int64", "float64", "no channel", "dict", "TFF's dict", "fixed batch"],
)
def test_batches_are_accepted_as_people_have_them(dataset):
    model = _image_model()
    plain = federated.evaluate_model(model, [_data(IMAGES, CLASSES)])
    assert federated.evaluate_model(model, [dataset]) == pytest.approx(plain, rel=1e-5)


def test_one_hot_labels_of_a_softmax_are_accepted_and_of_logits_asked_about():
    inputs = tf.keras.Input((5,))
    model = tf.keras.Model(inputs, _layers.Dense(3, activation="softmax")(inputs))
    x = _x(5)
    hot = federated.evaluate_model(model, [_data(x, LABELS["one-hot"])])
    assert hot == pytest.approx(federated.evaluate_model(model, [_data(x, CLASSES)]), rel=1e-5)
    with pytest.raises(UserError, match="one-hot, or several labels"):
        federated.evaluate_model(_model(3), [_data(x, LABELS["one-hot"])])


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        ((IMAGES, CLASSES), "expected a tf.data.Dataset of batches, found tuple"),
        (tf.data.Dataset.from_tensor_slices((IMAGES, CLASSES)), r"not batched; add .batch\(20\)"),
        (_data((255 * IMAGES).astype(np.uint8), CLASSES), "pixels as integers"),
        (_data(IMAGES, CLASSES.astype(np.float32)), "labels of classes are integers"),
        (_data(IMAGES[:, :3], CLASSES), "expected inputs float32"),
        (_data(IMAGES, CLASSES, CLASSES), "has weights|have weights"),
        (tf.data.Dataset.from_tensor_slices(IMAGES).batch(5), "found TensorSpec"),
        (
            tf.data.Dataset.from_tensor_slices({"a": IMAGES, "b": CLASSES}).batch(5),
            "found the keys a, b",
        ),
        (_data(IMAGES, CLASSES + 5), "has the label [5-7]; the model has outputs for 0 to 2"),
    ],
)
def test_mistakes_are_one_line(dataset, message):
    with pytest.raises(UserError, match=message) as caught:
        engine = federated.Engine(_image_model(), few_clients())
        engine.next(engine.initialize(), [dataset])
    assert "\n" not in str(caught.value)


def test_models_without_a_graph_are_one_line():
    class Subclassed(tf.keras.Model):
        def call(self, x):
            return x

    with pytest.raises(UserError, match="is a subclass of"):
        federated.Engine(Subclassed())
    with pytest.raises(UserError, match="is not built"):
        federated.Engine(tf.keras.Sequential([_layers.Dense(3)]))

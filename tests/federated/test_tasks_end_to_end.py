"""Each task on small real data: trained, cut, trained on, and the same in TFLite."""

from __future__ import annotations

import pathlib

import numpy as np
import pytest
import sklearn
import tensorflow as tf
from sklearn import datasets

from tff_autoprune import data, federated, surgery
from tff_autoprune.data import arrays

_layers = tf.keras.layers
CLIENTS = 12


def _scaled(x):
    return ((x - x.mean(axis=0)) / np.maximum(x.std(axis=0), 1e-6)).astype(np.float32)


def _federated(inputs, labels, by=None, **options):
    clients = arrays.deal_out(labels if by is None else by, clients=CLIENTS, alpha=5.0)
    return arrays.from_arrays(inputs, labels, clients, **options)


def _binary():
    table = datasets.load_breast_cancer()
    return _federated(_scaled(table.data), table.target.astype(np.int32)), _dense(
        (30,), _layers.Dense(1, activation="sigmoid")
    )


def _regression():
    table = datasets.load_diabetes()
    target = ((table.target - table.target.mean()) / table.target.std()).astype(np.float32)
    return _federated(_scaled(table.data), target), _dense((10,), _layers.Dense(1))


def _multi_label():
    # A digit as its four bits.
    digits = datasets.load_digits()
    bits = (digits.target[:, None] >> np.arange(4) & 1).astype(np.float32)
    images = (digits.images / 16).astype(np.float32)[..., None]
    return _federated(images, bits), _convolution(
        lambda x: _layers.Dense(4, activation="sigmoid")(_layers.Flatten()(x))
    )


def _segmentation():
    # Of each pixel of a noisy digit: is there much, some or no ink?
    digits = datasets.load_digits()
    ink = np.digitize(digits.images, [4, 10]).astype(np.int32)
    noise = np.random.default_rng(0).normal(0, 0.1, digits.images.shape)
    images = np.clip(digits.images / 16 + noise, 0, 1).astype(np.float32)[..., None]
    return _federated(images, ink, by=digits.target), _convolution(
        lambda x: _layers.Conv2D(3, 1)(x), padding="same"
    )


def _text():
    # The descriptions of data sets that scikit-learn ships; each is a client.
    folder = pathlib.Path(sklearn.__file__).parent / "datasets" / "descr"
    return data.load("texts", path=str(_as_txt(folder)), length=20, test_fraction=0.2), None


_FOLDER: dict[str, pathlib.Path] = {}


def _as_txt(folder):
    target = _FOLDER["target"]
    for path in sorted(folder.glob("*.rst"))[:8]:
        text = path.read_text(encoding="utf-8")[:4000]
        (target / f"{path.stem}.txt").write_text(text, encoding="utf-8")
    return target


def _dense(shape, head):
    inputs = tf.keras.Input(shape)
    x = _layers.Dense(16, activation="relu", name="hidden")(inputs)
    return tf.keras.Model(inputs, head(x))


def _convolution(head, padding="valid"):
    inputs = tf.keras.Input((8, 8, 1))
    x = _layers.Conv2D(12, 3, activation="relu", padding=padding, name="hidden")(inputs)
    return tf.keras.Model(inputs, head(x))


def _next_character():
    inputs = tf.keras.Input((20,), dtype="int32")
    x = _layers.Embedding(90, 16)(inputs)
    x = _layers.Conv1D(24, 3, padding="causal", activation="relu", name="hidden")(x)
    return tf.keras.Model(inputs, _layers.Dense(90)(x))


# name: (data and model, kind, what the metric must reach)
TASKS = {
    "binary": (_binary, "binary", 0.88),
    "regression": (_regression, "regression", 0.72),
    "multi-label": (_multi_label, "multi-label", 0.8),
    "segmentation": (_segmentation, "multi-class", 0.75),
    "text": (_text, "multi-class", 0.25),
}


def _rounds(engine, state, clients, count, first):
    for round_num in range(first, first + count):
        batches = [
            federated.client_dataset(
                clients, client, batch_size=16, epochs=2, seed=0, round_num=round_num
            )
            for client in clients.client_ids
        ]
        state = engine.next(state, batches).state
    return state


def _tflite(model, inputs):
    spec = tf.TensorSpec([1, *model.input_shape[1:]], model.inputs[0].dtype)
    function = tf.function(lambda x: model(x, training=False), input_signature=[spec])
    converter = tf.lite.TFLiteConverter.from_concrete_functions(
        [function.get_concrete_function()], model
    )
    interpreter = tf.lite.Interpreter(model_content=converter.convert())
    interpreter.allocate_tensors()
    outputs = []
    for one in inputs:
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], one[None])
        interpreter.invoke()
        outputs.append(interpreter.get_tensor(interpreter.get_output_details()[0]["index"]))
    return np.concatenate(outputs)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(
            name, marks=pytest.mark.slow if name in ("multi-label", "segmentation") else ()
        )
        for name in TASKS
    ],
)
def test_a_task_is_trained_cut_and_exported(name, tmp_path):
    build, kind, wanted = TASKS[name]
    _FOLDER["target"] = tmp_path
    tf.keras.utils.set_random_seed(0)
    loaded, model = build()
    model = model or _next_character()
    task = federated.Task.of_data(model, loaded.train, ignored_label=loaded.spec.ignored_label)
    assert task.heads[0].kind == kind
    held_out = [
        loaded.test.create_tf_dataset_for_client(client).batch(256)
        for client in loaded.test.client_ids
    ]
    engine = federated.Engine(model, federated.Settings(client_learning_rate=0.01), task=task)
    state = engine.initialize()
    untrained = engine.evaluate(state, held_out, public=True)
    state = _rounds(engine, state, loaded.train, 4, 1)

    weak = np.argsort(np.abs(engine.keras_model(state).get_layer("hidden").get_weights()[1]))[:4]
    removal = surgery.plan_removal(engine.keras_model(state), {"hidden": weak.tolist()})
    engine = engine.with_model(removal.apply())
    state = _rounds(engine, engine.carry_state(state, removal), loaded.train, 2, 5)
    found = engine.evaluate(state, held_out, public=True)
    assert found["loss"] < untrained["loss"]
    assert found["metric"] > wanted if task.metric.higher_is_better else found["metric"] < wanted

    final = engine.keras_model(state)
    assert final.count_params() < model.count_params()
    inputs = data.client_arrays(loaded.test, loaded.test.client_ids[0])[0][:8]
    np.testing.assert_allclose(
        _tflite(final, inputs), final(inputs, training=False), rtol=1e-4, atol=1e-4
    )

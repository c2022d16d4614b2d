"""A round in which every client is a TFLite interpreter."""

import pathlib
import re

import numpy as np
import pytest
import tensorflow as tf
from client_models import MODELS

from tff_autoprune import export, federated, runtime
from tff_autoprune.errors import UserError

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "phone.md"
SIZES, BATCH, RATE = (23, 8, 14), 10, 0.01


@pytest.fixture(scope="module", autouse=True)
def started():
    runtime.start()
    yield
    runtime.stop()


def test_a_round_of_files_is_a_round_of_the_engine():
    """With statistics of batch normalization, last batches that are not full, and unequal sizes."""
    model = MODELS["resnet_batch_norm"]()
    settings = federated.Settings(client_optimizer="momentum", client_learning_rate=RATE)
    rng = np.random.default_rng(0)
    clients = [
        (rng.random((n, 32, 32, 3), np.float32), rng.integers(0, 10, n).astype(np.int32))
        for n in SIZES
    ]
    names = export.weight_names(model)
    server = dict(zip(names, model.get_weights()))
    phone = export.TFLiteClient(export.convert_client(model, settings, batch_size=BATCH))
    reports = []
    for images, labels in clients:
        phone.set_weights(server)
        for start in range(0, len(labels), BATCH):
            batch = slice(start, start + BATCH)
            phone.train(images[batch], labels[batch], RATE)
        reports.append((phone.get_weights(), len(labels)))
    found = export.average_clients(model, server, reports)

    engine = federated.Engine(model, settings)
    datasets = [tf.data.Dataset.from_tensor_slices(client).batch(BATCH) for client in clients]
    expected = engine.keras_model(engine.next(engine.initialize(), datasets).state).get_weights()
    for name, value in zip(names, expected):
        assert np.abs(found[name] - value).max() <= 1e-4 * max(np.abs(value).max(), 0.1), name
    moved = [np.abs(value - server[name]).max() for name, value in zip(names, expected)]
    assert max(moved) > 1e-3


def test_a_client_that_is_not_finite_is_left_out():
    model = MODELS["pruned_cnn"]()
    server = dict(zip(export.weight_names(model), model.get_weights()))
    good = {name: weight + 1 for name, weight in server.items()}
    bad = {name: weight * np.nan for name, weight in server.items()}
    averaged = export.average_clients(model, server, [(good, 1), (bad, 5)])
    for name, weight in good.items():
        np.testing.assert_allclose(averaged[name], weight, rtol=1e-6)
    with pytest.raises(UserError, match="at least one client"):
        export.average_clients(model, server, [(bad, 5)])


def test_the_example_of_the_documentation_runs():
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    names = {}
    exec(compile(code, str(PAGE), "exec"), names)
    for name, value in zip(names["names"], names["engine_weights"]):
        found = names["server"][name]
        assert np.abs(found - value).max() <= 1e-4 * max(np.abs(value).max(), 0.1), name
    assert len(names["reports"]) == 3

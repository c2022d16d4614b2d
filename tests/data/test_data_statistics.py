from __future__ import annotations

import numpy as np
import pytest
import tensorflow_federated as tff

from tff_autoprune import data
from tff_autoprune.data.array_client_data import ArrayClientData, from_clients
from tff_autoprune.data.federated_data import PixelOptions


def _clients(labels_of: dict[str, list[int]]) -> ArrayClientData:
    return from_clients(
        [(i, np.zeros((len(y), 3, 3, 1), np.uint8), np.asarray(y)) for i, y in labels_of.items()],
        PixelOptions(),
    )


def test_examples_entropy_and_skew_are_exact():
    table = data.statistics(_clients({"a": [0, 0, 1, 1], "b": [2, 2, 2, 2]}))
    assert table.index.tolist() == ["a", "b"]
    assert table["examples"].tolist() == [4, 4]
    assert table["labels"].tolist() == [2, 1]
    assert table["label_entropy"].tolist() == [1.0, 0.0]
    # Everyone: 1/4, 1/4, 1/2. a differs by (1/4 + 1/4 + 1/2) / 2, b by the same.
    assert table["label_skew"].tolist() == [0.5, 0.5]


def test_any_client_data_will_do():
    source = tff.simulation.datasets.TestClientData(
        {"x": (np.zeros((3, 2, 2, 1), np.float32), np.asarray([0, 1, 1], np.int32))}
    )
    assert data.client_sizes(source) == {"x": 3}
    images, labels = data.client_arrays(source, "x")
    assert images.shape == (3, 2, 2, 1)
    assert labels.tolist() == [0, 1, 1]
    assert data.statistics(source)["examples"].tolist() == [3]


def test_labels_in_a_file_are_read_for_some_clients_only():
    class FileClientData(tff.simulation.datasets.TestClientData):
        reads = 0

        def create_tf_dataset_for_client(self, client_id):
            FileClientData.reads += 1
            return super().create_tf_dataset_for_client(client_id)

        def client_sizes(self):
            return {client_id: 1 for client_id in self.client_ids}

    source = FileClientData(
        {str(i): (np.zeros((1, 1, 1, 1), np.float32), np.zeros(1, np.int32)) for i in range(150)}
    )
    FileClientData.reads = 0
    table = data.statistics(source)
    assert len(table) == 150
    assert FileClientData.reads == 100
    assert table["label_entropy"].notna().sum() == 100


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"inputs": np.zeros((4, 3, 3), np.uint8)}, "uint8 or float32"),
        ({"inputs": np.zeros((4, 3, 3, 1), np.float64)}, "uint8 or float32"),
        ({"labels": np.zeros(3, int)}, "of the same length"),
        ({"offsets": np.asarray([0, 4])}, "one longer"),
        ({"offsets": np.asarray([0, 3, 2])}, "must rise"),
        ({"offsets": np.asarray([0, 3, 5])}, "of the same length"),
        ({"client_ids": ["a", "a"]}, "unique"),
        ({"client_ids": [], "offsets": np.asarray([0])}, "one longer"),
    ],
)
def test_arrays_that_do_not_fit_each_other_are_refused(change, message):
    arguments = {
        "client_ids": ["a", "b"],
        "offsets": np.asarray([0, 1, 4]),
        "inputs": np.zeros((4, 3, 3, 1), np.uint8),
        "labels": np.zeros(4, int),
    }
    ArrayClientData(**arguments)
    with pytest.raises(ValueError, match=message):
        ArrayClientData(**{**arguments, **change})


def test_selected_clients_keep_their_examples():
    clients = _clients({"a": [0], "b": [1, 2], "c": [3, 4, 5]})
    selected = clients.select(["c", "a"])
    assert selected.client_ids == ["c", "a"]
    assert selected.client_labels("c").tolist() == [3, 4, 5]
    assert selected.client_labels("a").tolist() == [0]


def test_pixel_options_run_in_tflite_as_in_training():
    import tensorflow as tf

    options = PixelOptions(invert=True, crop=(5, 20), resize=32)
    images = np.random.default_rng(0).random((1, 28, 28, 3)).astype(np.float32)
    model = tf.keras.Sequential(
        [tf.keras.Input((28, 28, 3)), tf.keras.layers.Lambda(options.apply)]
    )
    content = tf.lite.TFLiteConverter.from_keras_model(model).convert()
    interpreter = tf.lite.Interpreter(model_content=content)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], images)
    interpreter.invoke()
    found = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    np.testing.assert_allclose(found, options.apply(images), atol=1e-5)
    assert found.shape == (1, *options.output_shape((28, 28, 3)))

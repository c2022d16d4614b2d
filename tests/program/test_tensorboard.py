"""What TensorBoard shows of the filters, also in a run that was resumed."""

import asyncio

import tensorflow as tf
from tensorboard.backend.event_processing import event_accumulator

from tff_autoprune.program import tensorboard

ROW = {"round": 7, "filters/conv_1": 3, "validation_accuracy": 0.5}


def image(path, filters):
    """Releases one row, as the first of a run or after it was resumed; returns the picture."""
    manager = tensorboard.release_manager(path, {"federated.rounds": 9}, filters)
    asyncio.run(manager.release(ROW, 7))
    events = event_accumulator.EventAccumulator(str(path))
    events.Reload()
    [drawn] = events.Tensors("filters")
    return tf.image.decode_png(drawn.tensor_proto.string_val[2]).numpy()


def test_at_first_is_the_dense_model(tmp_path):
    of_dense = image(tmp_path / "dense", {"conv_1": 8})
    again = image(tmp_path / "again", {"conv_1": 8})
    of_row = image(tmp_path / "row", {"conv_1": 3})
    assert of_dense.tolist() == again.tolist() != of_row.tolist()

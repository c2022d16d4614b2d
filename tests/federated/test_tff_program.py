"""TFF's own program logic drives the engine's process, and goes on where it was stopped."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff
from federated_doubles import few_clients, make_model, stop_workers

from tff_autoprune import federated, runtime

_CLIENTS = ["ann", "bob", "eve"]


@tff.tensorflow.computation(np.str_)
def _dataset_of(client_id):
    """Batches of a client: with ids in place of data sets, a program can be saved."""
    seed = tf.strings.to_hash_bucket_fast(client_id, 1000)
    images = tf.random.stateless_uniform([16, 8, 8, 1], tf.stack([seed, 0]))
    labels = tf.random.stateless_uniform([16], tf.stack([seed, 1]), 0, 4, tf.int32)
    return tf.data.Dataset.from_tensor_slices((images, labels)).batch(8)


@pytest.fixture
def stock_context():
    context = tff.backends.native.create_async_local_cpp_execution_context()
    tff.framework.set_default_context(tff.program.NativeFederatedContext(context))
    yield
    runtime.start()
    stop_workers()


class _Released(tff.program.ReleaseManager):
    """Keeps what was released last."""

    async def release(self, value, key):
        self.value = value


def _train(folder, rounds):
    settings = few_clients(client_optimizer="sgd", client_learning_rate=0.1)
    process = federated.Engine(make_model((3, 4)), settings).process
    by_id = tff.simulation.compose_dataset_computation_with_learning_process(_dataset_of, process)
    released = _Released()
    asyncio.run(
        tff.learning.programs.train_model(
            train_process=by_id,
            train_data_source=tff.program.ClientIdDataSource(_CLIENTS),
            train_per_round_clients=3,
            train_total_rounds=rounds,
            program_state_manager=tff.program.FileProgramStateManager(str(folder)),
            model_output_manager=released,
            evaluation_manager=None,
            evaluation_periodicity=1,
        )
    )
    return released.value


def test_train_model_runs_and_resumes_a_process(stock_context, tmp_path):
    whole = _train(tmp_path / "whole", 2)
    _train(tmp_path / "parts", 1)
    resumed = _train(tmp_path / "parts", 2)
    assert len(tf.nest.flatten(whole)) == len(tf.nest.flatten(resumed)) > 6
    for one, other in zip(tf.nest.flatten(whole), tf.nest.flatten(resumed)):
        np.testing.assert_allclose(one, other, rtol=1e-5)

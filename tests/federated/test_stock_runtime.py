"""What the engine builds runs under TFF's own execution contexts, with the same numbers."""

from __future__ import annotations

import os
import signal
import subprocess

import numpy as np
import pytest
import tensorflow_federated as tff
from federated_doubles import few_clients, make_datasets, make_model

from tff_autoprune import federated, runtime

_SIZES = (9, 8, 7)


def _engine(aggregator, **fields):
    settings = federated.AggregatorSettings(name=aggregator, clients_per_round=len(_SIZES))
    return federated.Engine(
        make_model((3, 4), normalization="batch"),
        few_clients(settings, client_optimizer="sgd", client_learning_rate=0.01, **fields),
    )


def _figures(engine):
    datasets = make_datasets(_SIZES)
    state = engine.initialize()
    for _ in range(2):
        result = engine.next(state, datasets)
        state = result.state
    seen = engine.evaluate(state, datasets)
    weights = [*state.global_model_weights.trainable, *state.global_model_weights.non_trainable]
    return weights, {**{f"train_{k}": v for k, v in result.metrics.items()}, **seen}


def _children():
    listed = subprocess.run(
        ["pgrep", "-P", str(os.getpid()), "worker_binary"], capture_output=True, text=True
    )
    return {int(line) for line in listed.stdout.split()}


@pytest.fixture(autouse=True)
def own_runtime_again():
    before = _children()
    yield
    runtime.start()
    # TFF leaves its workers running, and they hold on to the output of the tests.
    for child in _children() - before:
        os.kill(child, signal.SIGKILL)


# TFF's native contexts have no secure summation; its context for tests sums the integers.
_CONTEXTS = {
    "mean": tff.backends.native.set_sync_local_cpp_execution_context,
    "robust": tff.backends.native.set_sync_local_cpp_execution_context,
    "secure": tff.backends.test.set_sync_test_cpp_execution_context,
    "dp": tff.backends.native.set_sync_local_cpp_execution_context,
    "compressed": tff.backends.native.set_sync_local_cpp_execution_context,
}


@pytest.mark.parametrize("aggregator", sorted(_CONTEXTS))
def test_rounds_and_evaluation_give_the_same_numbers(aggregator):
    weights, figures = _figures(_engine(aggregator))
    _CONTEXTS[aggregator]()
    found_weights, found = _figures(_engine(aggregator))
    tolerance = {"rtol": 1e-5, "atol": 1e-5}
    if aggregator == "compressed":
        # Which of two neighbouring levels a value is rounded to is drawn anew each time.
        tolerance = {"rtol": 0, "atol": 1e-3}
    for one, other in zip(weights, found_weights):
        np.testing.assert_allclose(other, one, **tolerance)
    loose = {"rel": 1e-5} if aggregator != "compressed" else {"abs": 0.2}
    assert found == pytest.approx(figures, **loose)

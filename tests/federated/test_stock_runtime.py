"""What the engine builds runs under TFF's own execution contexts, with the same numbers."""

from __future__ import annotations

import asyncio
import inspect

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff
from federated_doubles import few_clients, make_datasets, make_model, stop_workers

from tff_autoprune import federated, runtime

_SIZES = (9, 8, 7)


def _engine(aggregator):
    settings = federated.AggregatorSettings(name=aggregator, clients_per_round=len(_SIZES))
    return federated.Engine(
        make_model((3, 4), normalization="batch"),
        few_clients(settings, client_optimizer="sgd", client_learning_rate=0.01),
    )


def _figures(engine):
    """Weights after a round, and all figures of it and of an evaluation."""
    datasets = make_datasets(_SIZES)
    result = engine.next(engine.initialize(), datasets)
    seen = engine.evaluate(result.state, datasets)
    weights = result.state.global_model_weights
    figures = {**{f"train_{k}": v for k, v in result.metrics.items()}, **seen}
    if _compares(engine):
        compared = engine.compare(result.state, datasets, [make_model((2, 3), seed=4)])
        figures["points"] = compared.candidates[0].points
        figures["loss_rise"] = compared.candidates[0].loss_rise
    return [*weights.trainable, *weights.non_trainable], figures


def _compares(engine):
    return engine.settings.aggregator.name != "dp"


@pytest.fixture(autouse=True)
def own_runtime_again():
    yield
    runtime.start()
    stop_workers()


# TFF's native contexts have no secure summation; its context for tests sums the integers.
@pytest.mark.parametrize(
    ("aggregator", "start"),
    [
        ("mean", tff.backends.native.set_sync_local_cpp_execution_context),
        pytest.param(
            "robust",
            tff.backends.native.set_sync_local_cpp_execution_context,
            marks=pytest.mark.slow,
        ),
        ("secure", tff.backends.test.set_sync_test_cpp_execution_context),
        ("dp", tff.backends.native.set_sync_local_cpp_execution_context),
        pytest.param(
            "compressed",
            tff.backends.native.set_sync_local_cpp_execution_context,
            marks=pytest.mark.slow,
        ),
    ],
)
def test_everything_gives_the_same_numbers(aggregator, start):
    weights, figures = _figures(_engine(aggregator))
    start()
    found_weights, found = _figures(_engine(aggregator))
    # To which of two levels `compressed` rounds a value is drawn anew in every call.
    atol, rel = (1e-3, 0.05) if aggregator == "compressed" else (1e-5, 1e-5)
    for one, other in zip(weights, found_weights):
        np.testing.assert_allclose(other, one, rtol=rel, atol=atol)
    if aggregator != "compressed":
        assert found == pytest.approx(figures, rel=1e-4, abs=1e-5)


def _merged():
    local = tff.backends.native.create_async_local_cpp_execution_context()
    tff.backends.native.set_mergeable_comp_execution_context([local])


@pytest.mark.parametrize(
    "start", [tff.backends.native.set_async_local_cpp_execution_context, _merged]
)
def test_the_process_runs_in_asynchronous_and_mergeable_contexts(start):
    engine, datasets = _engine("mean"), make_datasets(_SIZES)
    expected = engine.process.next(engine.initialize(), datasets).metrics["client_work"]
    start()
    process = _engine("mean").process

    def called(function, *arguments):
        result = function(*arguments)
        return asyncio.run(_awaited(result)) if inspect.isawaitable(result) else result

    found = called(process.next, called(process.initialize), datasets).metrics["client_work"]
    for one, other in zip(tf.nest.flatten(expected), tf.nest.flatten(found)):
        assert other == pytest.approx(one, rel=1e-5)


async def _awaited(result):
    return await result

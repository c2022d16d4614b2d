"""Models against the present one, on the same clients."""

from __future__ import annotations

import math

import numpy as np
import pytest
from federated_doubles import few_clients, make_arrays, make_datasets, make_model

from tff_autoprune import federated

_SIZES = (9, 8, 17, 5)


def _figures(model):
    """Examples, and sums of hits and losses, of each client: float64 [clients, 3]."""
    rows = []
    for number, size in enumerate(_SIZES):
        images, labels = make_arrays(size, seed=number)
        outputs = model(images, training=False).numpy().astype(np.float64)
        log = outputs - np.log(np.exp(outputs).sum(axis=1, keepdims=True))
        hits = (outputs.argmax(axis=1) == labels).sum()
        rows.append((size, hits, -log[np.arange(size), labels].sum()))
    return np.array(rows, np.float64)


def _expected(present, other):
    """Mean differences over examples and their errors over clients: [(mean, error)] by figure."""
    base, found = _figures(present), _figures(other)
    n, count = base[:, 0], len(_SIZES)
    result = []
    for column in (1, 2):
        difference = found[:, column] - base[:, column]
        mean = difference.sum() / n.sum()
        residuals = difference - mean * n
        error = math.sqrt((residuals**2).sum() * count / (count - 1)) / n.sum()
        result.append((mean, error))
    return result


@pytest.mark.parametrize("aggregator", ["mean", "secure"])
def test_differences_and_errors_are_those_of_the_clients(aggregator):
    model, other = make_model(normalization="batch"), make_model((3, 5), seed=4)
    settings = few_clients(federated.AggregatorSettings(name=aggregator))
    engine = federated.Engine(model, settings)
    noisy = make_model(normalization="batch")
    noisy.set_weights([value * 1.5 for value in model.get_weights()])
    found = engine.compare(engine.initialize(), make_datasets(_SIZES), [noisy, other])
    base = _figures(model)
    assert found.base["num_examples"] == sum(_SIZES)
    assert found.base["accuracy"] == pytest.approx(base[:, 1].sum() / sum(_SIZES))
    assert len(found.candidates) == 2
    for compared, paired in zip([noisy, other], found.candidates):
        (points, points_error), (loss, loss_error) = _expected(model, compared)
        assert paired.points == pytest.approx(100 * points, abs=1e-3)
        assert paired.points_error == pytest.approx(100 * points_error, abs=2e-2)
        assert paired.loss_rise == pytest.approx(loss, rel=1e-3, abs=1e-5)
        assert paired.loss_rise_error == pytest.approx(loss_error, rel=2e-2, abs=2e-4)
        figures = _figures(compared)
        assert paired.accuracy == pytest.approx(figures[:, 1].sum() / sum(_SIZES))
        assert paired.loss == pytest.approx(figures[:, 2].sum() / sum(_SIZES), rel=1e-4)


def test_a_model_that_is_not_finite_is_never_free():
    model, broken = make_model(), make_model()
    engine = federated.Engine(model, few_clients())
    broken.weights[0].assign(np.full(broken.weights[0].shape, np.nan, np.float32))
    found = engine.compare(engine.initialize(), make_datasets(_SIZES), [broken, model])
    bad, same = found.candidates
    assert (bad.points, bad.loss_rise) == (-math.inf, math.inf)
    assert same.points == same.points_error == same.loss_rise == same.loss_rise_error == 0
    alone = engine.compare(engine.initialize(), make_datasets((9,)), [model])
    assert alone.candidates[0].points_error == math.inf


def test_the_present_model_may_be_broken_too():
    model = make_model()
    model.weights[0].assign(np.full(model.weights[0].shape, np.nan, np.float32))
    engine = federated.Engine(model, few_clients())
    found = engine.compare(engine.initialize(), make_datasets(_SIZES), [make_model(seed=4)])
    assert math.isnan(found.candidates[0].points) and math.isnan(found.candidates[0].loss_rise)

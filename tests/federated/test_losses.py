"""The calibrated loss: what a model knows, however sure of itself it is."""

import numpy as np
import pytest
import tensorflow as tf

from tff_autoprune.federated import losses

_CLASSES = 5


def _logits_and_labels(sureness):
    generator = np.random.default_rng(0)
    labels = generator.integers(0, _CLASSES, 400).astype(np.int32)
    logits = generator.normal(size=(400, _CLASSES)) + 2.0 * np.eye(_CLASSES)[labels]
    return tf.constant(sureness * logits, tf.float32), tf.constant(labels)


def _calibrated(outputs, labels, *, from_logits=True):
    tempered = losses.tempered_cross_entropies(outputs, labels, from_logits=from_logits)
    return losses.calibrated_loss(np.mean(tempered, axis=0))


def test_sureness_does_not_count():
    expected = _calibrated(*_logits_and_labels(1.5))
    for sureness in (1.0, 1.7, 2.4, 3.0):
        logits, labels = _logits_and_labels(sureness)
        plain = float(tf.reduce_mean(losses.cross_entropy(logits, labels, from_logits=True)))
        found = _calibrated(logits, labels)
        assert found == pytest.approx(expected, rel=2e-3)
        assert found <= plain + 1e-6


def test_what_is_known_counts():
    logits, labels = _logits_and_labels(1.0)
    forgotten = tf.concat([tf.zeros_like(logits[:100]), logits[100:]], axis=0)
    assert _calibrated(forgotten, labels) > 1.1 * _calibrated(logits, labels)


def test_probabilities_and_logits_agree():
    logits, labels = _logits_and_labels(2.0)
    found = _calibrated(tf.nn.softmax(logits), labels, from_logits=False)
    assert found == pytest.approx(_calibrated(logits, labels), rel=1e-4)


def test_an_end_of_the_range_is_taken_as_it_is():
    falling = np.linspace(2.0, 1.0, len(losses.TEMPERATURES))
    assert losses.calibrated_loss(falling) == 1.0
    assert losses.calibrated_loss(falling[::-1]) == 1.0


def test_nan_stays():
    assert np.isnan(losses.calibrated_loss(np.full(len(losses.TEMPERATURES), np.nan)))

"""The optimizer that makes the server's step."""

import pytest
import tensorflow as tf

from tff_autoprune import federated
from tff_autoprune.federated import optimizers


@pytest.mark.parametrize("name", optimizers.ADAPTIVE)
def test_an_outlier_moves_the_server_hardly_further_than_a_usual_round(name):
    rate = 0.1
    optimizer = optimizers.build_server_optimizer(
        federated.Settings(server_optimizer=name, server_learning_rate=rate)
    )
    state, weight = optimizer.initialize(tf.TensorSpec((), tf.float32)), tf.constant(0.0)
    steps = []
    for update in [*[1.0] * 100, 1000.0]:
        state, moved = optimizer.next(state, weight, tf.constant(update))
        steps.append(float(weight - moved))
        weight = moved
    assert 0.5 * rate < steps[-2] < 1.1 * rate
    assert steps[-1] < 1.3 * rate

"""Random graphs over all supported layers, cut at random: nothing but the channels may be gone."""

import numpy as np
import pytest
import random_graphs
import tensorflow as tf
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from tff_autoprune import surgery

NUMBER = st.integers(0, 29)
STEP = st.tuples(st.sampled_from(sorted(random_graphs.OPERATIONS)), NUMBER, NUMBER, NUMBER)
SEED = st.integers(0, 2**32 - 1)
TOLERANCE = 1e-4
# Each example builds two Keras models. Neither time nor a store of past failures plays a role.
PROFILE = settings(
    deadline=None,
    database=None,
    phases=[Phase.explicit, Phase.generate, Phase.shrink],
    suppress_health_check=list(HealthCheck),
)


def check(steps, seed):
    tf.keras.backend.clear_session()
    generator = np.random.default_rng(seed)
    model = random_graphs.build(steps)
    random_graphs.randomize(model, generator)
    groups = surgery.find_filter_groups(model)
    selection = {
        group.name: generator.permutation(group.channels)[: generator.integers(group.channels)]
        for group in groups
        if group.prunable
    }
    removal = surgery.plan_removal(model, selection)
    smaller = removal.apply()
    images = generator.normal(size=(2, 6, 6, 3)).astype(np.float32)
    assert surgery.difference(removal, smaller, images) <= TOLERANCE
    assert smaller.count_params() == sum(a.size for a in removal.slice_weights(model.get_weights()))
    assert [layer.name for layer in smaller.layers] == [layer.name for layer in model.layers]
    surgery.find_filter_groups(smaller)  # Can be cut again.


# Time goes with the number of layers that Keras builds, hence the small graphs here.
@settings(PROFILE, max_examples=200, derandomize=True)
@given(st.lists(STEP, min_size=1, max_size=4), SEED)
# With one channel left, a gate of one channel is no longer spread over others, but tied to it.
@example([("activation_layer", 0, 0, 0), ("spread", 1, 0, 1)], 269)
def test_random_graphs_compute_the_same(steps, seed):
    check(steps, seed)


@pytest.mark.long
@settings(PROFILE, max_examples=5000)
@given(st.lists(STEP, min_size=1, max_size=6), SEED)
def test_many_random_graphs_compute_the_same(steps, seed):
    check(steps, seed)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(random_graphs.OPERATIONS))
def test_every_operation_applies(name):
    # A generator that never builds an operation would prove nothing about it.
    prepare = [("conv2d", 0, 0, 6), ("to_sequence", 1, 1, 0), ("flatten", 0, 0, 0)]
    applied = []
    for variant in range(3):
        random_graphs.build([*prepare, (name, variant, variant, variant + 1)], applied=applied)
    assert name in applied[len(prepare) :]

"""The noise of differential privacy: as large as it must be, and a function of seed and round."""

import numpy as np
import pytest
import tensorflow as tf

from tff_autoprune.federated import noise

CLIP, MULTIPLIER, COUNT_STDDEV = 0.5, 2.0, 3.0
TEMPLATE = [tf.zeros([40, 50]), tf.zeros([2000])]


def _query(seed=0):
    return noise.SeededAdaptiveClipSumQuery(
        noise_multiplier=MULTIPLIER,
        clipped_count_stddev=COUNT_STDDEV,
        seed=seed,
        initial_l2_norm_clip=CLIP,
        target_unclipped_quantile=0.5,
        learning_rate=0.2,
        expected_num_records=10,
    )


def _release(query, state):
    result, state, _ = query.get_noised_result(query.initial_sample_state(TEMPLATE), state)
    return np.concatenate([np.ravel(part) for part in result]), state


def test_the_noise_is_as_large_as_the_guarantee_needs():
    values, _ = _release(_query(), _query().initial_global_state())
    assert values.std() == pytest.approx(MULTIPLIER * CLIP, rel=0.05)
    assert abs(values.mean()) < 0.1


def test_the_count_of_unclipped_updates_is_noised():
    clips = []
    for seed in range(300):
        _, state = _release(_query(seed), _query(seed).initial_global_state())
        clips.append(float(state.clipping.sum_state.l2_norm_clip))
    # log clip moves by the learning rate times the error of the share, which is cut off at 0 and 1.
    steps = -np.log(np.array(clips) / CLIP) / 0.2
    inside = steps[np.abs(steps) < 0.49]
    assert 0.15 < inside.std() < COUNT_STDDEV / 10 and np.mean(np.abs(steps) >= 0.49) > 0.03


def test_noise_differs_between_tensors_rounds_and_seeds_but_repeats():
    query = _query()
    first, state = _release(query, query.initial_global_state())
    second, _ = _release(query, state)
    again, _ = _release(_query(), _query().initial_global_state())
    other, _ = _release(_query(1), _query(1).initial_global_state())
    np.testing.assert_array_equal(first, again)
    for one, two in ((first, second), (first, other), (first[:2000], first[2000:])):
        assert abs(np.corrcoef(one, two)[0, 1]) < 0.1


def test_records_are_clipped():
    query = _query()
    params = query.derive_sample_params(query.initial_global_state())
    record = query.preprocess_record(params, [tf.ones([40, 50]), tf.ones([2000])])
    assert float(tf.linalg.global_norm(record.sum_state)) == pytest.approx(CLIP, rel=1e-5)

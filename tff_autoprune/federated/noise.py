"""The noise of differential privacy, derived from the run's seed.

TensorFlow Privacy draws its noise from a generator that no seed reaches. Here it is a function of
seed and round, so that a run can be repeated, and resumed, to the same bits.
"""

from __future__ import annotations

import collections
from typing import Any

import dp_accounting
import tensorflow as tf
import tensorflow_privacy as tfp

_State = collections.namedtuple("_State", ["clipping", "seed"])


def _add_noise(values: Any, seed: tf.Tensor, stddev: tf.Tensor) -> Any:
    leaves = tf.nest.flatten(values)
    seeds = tf.unstack(tf.random.experimental.stateless_split(seed, len(leaves)))
    noised = [
        leaf + stddev * tf.random.stateless_normal(tf.shape(leaf), one, dtype=leaf.dtype)
        for leaf, one in zip(leaves, seeds)
    ]
    return tf.nest.pack_sequence_as(values, noised)


class SeededAdaptiveClipSumQuery(tfp.QuantileAdaptiveClipSumQuery):
    """`tfp.QuantileAdaptiveClipSumQuery` with noise that derives from a seed.

    The noise is added to the sums before the inherited query, which adds none of its own, turns
    them into results and the next clipping norm: the same distribution. Whoever knows the seed can
    subtract the noise: a seed must be kept as secret as the updates.
    """

    def __init__(
        self, *, noise_multiplier: float, clipped_count_stddev: float, seed: int, **options: float
    ) -> None:
        """Sets the noise.

        Args:
          noise_multiplier: Standard deviation of the noise on the sum over the clipping norm.
          clipped_count_stddev: Standard deviation of the noise on the count of unclipped updates.
          seed: What the noise derives from.
          **options: The other arguments of `tfp.QuantileAdaptiveClipSumQuery`.
        """
        super().__init__(noise_multiplier=0.0, clipped_count_stddev=0.0, **options)
        self._stddev_per_clip = noise_multiplier
        self._count_stddev = clipped_count_stddev
        self._seed = seed

    def initial_global_state(self) -> _State:
        """Returns the state of the inherited query, and the seed of the first round."""
        # Two numbers, as the generator wants them: the run's seed and the round.
        return _State(super().initial_global_state(), tf.constant([self._seed, 0], tf.int64))

    def derive_sample_params(self, global_state: _State) -> Any:
        """Returns what clients need to clip."""
        return super().derive_sample_params(global_state.clipping)

    def get_noised_result(self, sample_state: Any, global_state: _State) -> tuple[Any, _State, Any]:
        """Returns the noised sum, the next state, and the event for accounting."""
        clipping = global_state.clipping
        for_sum, for_count = tf.unstack(
            tf.random.experimental.stateless_split(global_state.seed, 2)
        )
        stddev = self._stddev_per_clip * clipping.sum_state.l2_norm_clip
        noised = sample_state._replace(
            sum_state=_add_noise(sample_state.sum_state, for_sum, stddev),
            quantile_estimator_state=_add_noise(
                sample_state.quantile_estimator_state, for_count, self._count_stddev
            ),
        )
        result, clipping, _ = super().get_noised_result(noised, clipping)
        # An update changes the centred count by a half at most.
        multipliers = (self._stddev_per_clip, 2 * self._count_stddev)
        event = dp_accounting.ComposedDpEvent(
            [dp_accounting.GaussianDpEvent(multiplier) for multiplier in multipliers]
        )
        return result, _State(clipping, tf.add(global_state.seed, [0, 1])), event

    def derive_metrics(self, global_state: _State) -> Any:
        """Returns the clipping norm."""
        return super().derive_metrics(global_state.clipping)

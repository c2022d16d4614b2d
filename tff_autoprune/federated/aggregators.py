"""Aggregators by name."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow_federated as tff

from tff_autoprune.federated.settings import AggregatorSettings

_Factory = tff.aggregators.WeightedAggregationFactory


def _mean(settings: AggregatorSettings) -> _Factory:
    del settings
    # Without clients of positive weight the mean is 0 / 0: NaN, which the finalizer rejects.
    return tff.aggregators.MeanFactory()


def _robust(settings: AggregatorSettings) -> _Factory:
    return tff.learning.robust_aggregator(zeroing=settings.zeroing, clipping=settings.clipping)


def _secure(settings: AggregatorSettings) -> _Factory:
    return tff.learning.secure_aggregator(zeroing=settings.zeroing, clipping=settings.clipping)


def _dp(settings: AggregatorSettings) -> _Factory:
    factory = tff.aggregators.DifferentiallyPrivateFactory.gaussian_adaptive(
        noise_multiplier=settings.noise_multiplier,
        clients_per_round=settings.clients_per_round,
        initial_l2_norm_clip=settings.dp_initial_clip,
        target_unclipped_quantile=settings.dp_target_quantile,
    )
    return tff.aggregators.as_weighted_aggregator(factory)


def _compressed(settings: AggregatorSettings) -> _Factory:
    return tff.learning.compression_aggregator(zeroing=settings.zeroing, clipping=settings.clipping)


_BUILDERS: dict[str, Callable[[AggregatorSettings], _Factory]] = {
    "mean": _mean,
    "robust": _robust,
    "secure": _secure,
    "dp": _dp,
    "compressed": _compressed,
}


def build(settings: AggregatorSettings) -> _Factory:
    """Builds the factory of an aggregator.

    Args:
      settings: Its name and options.

    Returns:
      A factory for weighted aggregation of any structure of float32 tensors.
    """
    return _BUILDERS[settings.name](settings)

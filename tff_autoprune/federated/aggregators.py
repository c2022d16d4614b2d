"""Aggregators by name: how updates and reports are summed, and the bytes a client sends."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence

import tensorflow_federated as tff
import tensorflow_privacy as tfp

from tff_autoprune.federated import reports
from tff_autoprune.federated.noise import SeededAdaptiveClipSumQuery
from tff_autoprune.federated.settings import AggregatorSettings
from tff_autoprune.federated.task import Task

_Factory = tff.aggregators.WeightedAggregationFactory
_Shapes = Sequence[Sequence[int]]

_FLOAT_BYTES = 4
_QUANTIZATION_BITS = 8
# Quantizing a tensor costs two floats, its range; below this many elements that is not worth it.
# TFF's default of 20,000 would leave most layers of a small network as they are.
_QUANTIZATION_THRESHOLD = 256
# Andrew et al.'s advice for the adaptive clipping norm of differential privacy.
_CLIP_LEARNING_RATE = 0.2


def _zero_extremes(inner: _Factory) -> _Factory:
    # As TFF's own robust aggregator: an update more than twice (plus 1) the 98th percentile of
    # largest absolute values is no update but a fault.
    estimate = tff.aggregators.PrivateQuantileEstimationProcess.no_noise(
        initial_estimate=10.0,
        target_quantile=0.98,
        learning_rate=math.log(10.0),
        multiplier=2.0,
        increment=1.0,
    )
    return tff.aggregators.zeroing_factory(estimate, inner, norm_order=math.inf)


def _clip_large(inner: _Factory) -> _Factory:
    estimate = tff.aggregators.PrivateQuantileEstimationProcess.no_noise(
        initial_estimate=1.0, target_quantile=0.8, learning_rate=0.2
    )
    return tff.aggregators.clipping_factory(estimate, inner)


def _guarded(settings: AggregatorSettings, inner: _Factory) -> _Factory:
    if settings.clipping:
        inner = _clip_large(inner)
    return _zero_extremes(inner) if settings.zeroing else inner


def _mean(settings: AggregatorSettings) -> _Factory:
    del settings
    # Without clients of positive weight the mean is 0 / 0: NaN, which the finalizer rejects.
    return tff.aggregators.MeanFactory()


def _robust(settings: AggregatorSettings) -> _Factory:
    return _guarded(settings, tff.aggregators.MeanFactory())


def _secure(settings: AggregatorSettings) -> _Factory:
    return tff.learning.secure_aggregator(zeroing=settings.zeroing, clipping=settings.clipping)


def _dp(settings: AggregatorSettings) -> _Factory:
    # The count of unclipped updates is released with noise of its own, paid for by slightly more
    # noise on the updates (Andrew et al., arXiv 1905.03871, theorem 1). Their advice for it, a
    # twentieth of the cohort, is too small for cohorts below ten times the noise multiplier.
    clipped_count_stddev = max(0.05 * settings.clients_per_round, settings.noise_multiplier)
    multiplier = settings.noise_multiplier
    query = SeededAdaptiveClipSumQuery(
        noise_multiplier=multiplier and (multiplier**-2 - (2 * clipped_count_stddev) ** -2) ** -0.5,
        clipped_count_stddev=clipped_count_stddev if multiplier else 0.0,
        seed=settings.seed,
        initial_l2_norm_clip=settings.dp_initial_clip,
        target_unclipped_quantile=settings.dp_target_quantile,
        learning_rate=_CLIP_LEARNING_RATE,
        expected_num_records=settings.clients_per_round,
    )
    mean = tfp.NormalizedQuery(query, denominator=settings.clients_per_round)
    factory = tff.aggregators.DifferentiallyPrivateFactory(mean)
    return tff.aggregators.as_weighted_aggregator(factory)


def _compressed(settings: AggregatorSettings) -> _Factory:
    quantized = tff.aggregators.EncodedSumFactory.quantize_above_threshold(
        quantization_bits=_QUANTIZATION_BITS, threshold=_QUANTIZATION_THRESHOLD
    )
    return _guarded(settings, tff.aggregators.MeanFactory(quantized))


def _float_bytes(shapes: _Shapes) -> int:
    return sum(_FLOAT_BYTES * math.prod(shape) for shape in shapes)


def _quantized_bytes(shapes: _Shapes) -> int:
    total = 0
    for elements in map(math.prod, shapes):
        if elements > _QUANTIZATION_THRESHOLD:
            # TFF packs the bits into int32 and sends the tensor's smallest and largest value.
            words = math.ceil(elements * _QUANTIZATION_BITS / 32)
            total += 4 * words + 2 * _FLOAT_BYTES
        else:
            total += _FLOAT_BYTES * elements
    return total


def _plain(settings: AggregatorSettings, task: Task) -> reports.Plain:
    del settings, task
    return reports.Plain()


def _secure_sums(settings: AggregatorSettings, task: Task) -> reports.Plain:
    del settings, task
    return reports.Secure()


def _noised(settings: AggregatorSettings, task: Task) -> reports.Plain:
    return reports.Noised(settings.report_noise, task)


@dataclasses.dataclass(frozen=True)
class _Entry:
    build: Callable[[AggregatorSettings], _Factory]
    reports: Callable[[AggregatorSettings, Task], reports.Plain] = _plain
    # Secure summation sends 32-bit integers in place of floats.
    update_bytes: Callable[[_Shapes], int] = _float_bytes


_REGISTRY: dict[str, _Entry] = {
    "mean": _Entry(_mean),
    "robust": _Entry(_robust),
    "secure": _Entry(_secure, _secure_sums),
    "dp": _Entry(_dp, _noised),
    "compressed": _Entry(_compressed, update_bytes=_quantized_bytes),
}


def build(settings: AggregatorSettings) -> _Factory:
    """Builds the factory of an aggregator.

    Args:
      settings: Its name and options.

    Returns:
      A factory for weighted aggregation of any structure of float32 tensors.
    """
    return _REGISTRY[settings.name].build(settings)


def build_reports(settings: AggregatorSettings, task: Task) -> reports.Plain:
    """Returns how what clients report is summed under an aggregator.

    Args:
      settings: Its name and options.
      task: What the model learns; says what bounds the figures have.
    """
    return _REGISTRY[settings.name].reports(settings, task)


def update_bytes(settings: AggregatorSettings, shapes: _Shapes) -> int:
    """Returns the bytes of one client's update as it would be sent.

    Counts the values of the update; not the handful of scalars beside it (weight, metrics).

    Args:
      settings: The aggregator.
      shapes: Shapes of the update's float32 tensors.
    """
    return _REGISTRY[settings.name].update_bytes(shapes)

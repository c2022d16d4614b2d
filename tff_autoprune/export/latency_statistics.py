"""Medians, and intervals that respect that inferences of one round are alike."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import stats

_RESAMPLES = 2000
# Resamples held in memory at a time.
_BATCH = 200


def compare(dense: np.ndarray, pruned: np.ndarray, seed: int = 0) -> dict[str, Any]:
    """Summarizes the times of two models that were measured in the same rounds.

    Args:
      dense: Milliseconds, float64 [rounds, inferences].
      pruned: The same of the other model; its number of inferences may differ.
      seed: Of the bootstrap.

    Returns:
      {"dense": what `figures` returns, "pruned": the same, "speedup": dense median / pruned median,
      "speedup_interval95": [low, high]}.
    """
    ratio, interval = speedup(dense, pruned, seed)
    return {
        "dense": figures(dense, seed),
        "pruned": figures(pruned, seed),
        "speedup": ratio,
        "speedup_interval95": interval,
    }


def figures(times: np.ndarray, seed: int = 0) -> dict[str, Any]:
    """Summarizes the times of one model.

    Args:
      times: Milliseconds, float64 [rounds, inferences].
      seed: Of the bootstrap.

    Returns:
      {"latency_ms_median", "latency_ms_interval95", "latency_ms_p10", "latency_ms_p90",
      "inferences"}.
    """
    return {
        "latency_ms_median": float(np.median(times)),
        "latency_ms_interval95": _interval(lambda rounds: _median(times, rounds), len(times), seed),
        "latency_ms_p10": float(np.percentile(times, 10)),
        "latency_ms_p90": float(np.percentile(times, 90)),
        "inferences": int(times.size),
    }


def speedup(baseline: np.ndarray, model: np.ndarray, seed: int = 0) -> tuple[float, list[float]]:
    """Returns the ratio of two models' medians, and its 95 % interval.

    Args:
      baseline: Milliseconds, float64 [rounds, inferences].
      model: The same of the other model, measured in the same rounds.
      seed: Of the bootstrap.
    """
    interval = _interval(
        lambda rounds: _median(baseline, rounds) / _median(model, rounds), len(baseline), seed
    )
    return float(np.median(baseline) / np.median(model)), interval


def _median(times: np.ndarray, rounds: np.ndarray) -> np.ndarray:
    """Returns the medians over whole rounds; `rounds` is int [..., rounds]."""
    return np.median(times[rounds].reshape(*rounds.shape[:-1], -1), axis=-1)


def _interval(statistic: Callable[[np.ndarray], np.ndarray], rounds: int, seed: int) -> list[float]:
    """Returns a percentile bootstrap interval of 95 % over whole rounds.

    The inferences within a round are not independent, and each round saw all models under the same
    conditions; so rounds are what is drawn.
    """
    found = stats.bootstrap(
        (np.arange(rounds),),
        lambda drawn, axis: statistic(np.moveaxis(drawn, axis, -1)),
        vectorized=True,
        n_resamples=_RESAMPLES,
        batch=_BATCH,
        method="percentile",
        random_state=np.random.default_rng(seed),
    )
    return [float(bound) for bound in found.confidence_interval]

"""Medians, and intervals that respect that inferences of one round are alike."""

from __future__ import annotations

from typing import Any

import numpy as np

_RESAMPLES = 2000
_INTERVAL = (2.5, 97.5)


def compare(dense: np.ndarray, pruned: np.ndarray, seed: int = 0) -> dict[str, Any]:
    """Summarizes the times of two models that were measured in the same rounds.

    The intervals are percentile bootstrap intervals over whole rounds: the inferences within a
    round are not independent, and each round saw both models under the same conditions.

    Args:
      dense: Milliseconds, float64 [rounds, inferences].
      pruned: The same of the other model; its number of inferences may differ.
      seed: Of the bootstrap.

    Returns:
      {"dense": {"latency_ms_median", "latency_ms_interval95", "latency_ms_p10", "latency_ms_p90",
      "inferences"}, "pruned": the same, "speedup": dense median / pruned median,
      "speedup_interval95": [low, high]}.
    """
    rounds = len(dense)
    picks = np.random.default_rng(seed).integers(rounds, size=(_RESAMPLES, rounds))
    resampled = [
        np.median(times[picks].reshape(_RESAMPLES, -1), axis=1) for times in (dense, pruned)
    ]
    medians = [float(np.median(times)) for times in (dense, pruned)]
    return {
        "dense": _figures(dense, medians[0], resampled[0]),
        "pruned": _figures(pruned, medians[1], resampled[1]),
        "speedup": medians[0] / medians[1],
        "speedup_interval95": np.percentile(resampled[0] / resampled[1], _INTERVAL).tolist(),
    }


def _figures(times: np.ndarray, median: float, resampled: np.ndarray) -> dict[str, Any]:
    return {
        "latency_ms_median": median,
        "latency_ms_interval95": np.percentile(resampled, _INTERVAL).tolist(),
        "latency_ms_p10": float(np.percentile(times, 10)),
        "latency_ms_p90": float(np.percentile(times, 90)),
        "inferences": int(times.size),
    }

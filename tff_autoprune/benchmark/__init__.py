"""Latency of the exported models on this host, measured fairly.

    latency ──> samples per round ──> statistics ──> medians, intervals, speed-up
    (interleaved inferences)                         with the host they hold for

Needs `tflite-runtime` only, not TensorFlow.
"""

from tff_autoprune.benchmark.latency import measure
from tff_autoprune.benchmark.run import benchmark_run
from tff_autoprune.benchmark.statistics import compare

__all__ = ["benchmark_run", "compare", "measure"]

"""Times models in turns, so that whatever disturbs one disturbs the others as well."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from tff_autoprune.export import interpreter

# A visit as long as this is disturbed as a whole; shorter visits alternate more often.
_VISIT_SECONDS = 0.1
_WARM_UP_RUNS = 5


class _Subject:
    """One model, ready to run on one fixed image."""

    def __init__(self, content: bytes, threads: int, seed: int) -> None:
        self._interpreter = interpreter.make_interpreter(content, threads)
        details = self._interpreter.get_input_details()[0]
        image = np.random.default_rng(seed).random(details["shape"], np.float32)
        self._interpreter.set_tensor(details["index"], interpreter.quantize(image, details))
        self.visit_runs = 1

    def visit(self, runs: int) -> list[int]:
        """Returns the nanoseconds of `runs` inferences, after one that refills the caches."""
        self._interpreter.invoke()
        clock, invoke, times = time.perf_counter_ns, self._interpreter.invoke, []
        for _ in range(runs):
            start = clock()
            invoke()
            times.append(clock() - start)
        return times


def measure(
    contents: Sequence[bytes], rounds: int, runs: int, threads: int = 1, seed: int = 0
) -> list[np.ndarray]:
    """Times inferences of several models, interleaved.

    Each round visits the models in an order drawn by seed and then in its reverse (A B B A, or
    B A A B), so that a drift of the machine's speed falls on all alike. A visit is a row of
    inferences of one model.

    Args:
      contents: `.tflite` files of batch 1.
      rounds: Number of rounds.
      runs: Inferences of one model in a round, at most; slow models get fewer, but never less
        than two.
      threads: CPU threads for one inference.
      seed: Of the order and of the input's pixels.

    Returns:
      For each model the milliseconds of its inferences, float64 [rounds, inferences].

    Raises:
      UserError: If a model cannot be run.
    """
    subjects = [_Subject(content, threads, seed) for content in contents]
    for subject in subjects:
        # The fastest: a busy host can stall any of them, but cannot speed one up.
        fastest = min(subject.visit(_WARM_UP_RUNS)) / 1e9
        subject.visit_runs = max(1, min(runs // 2, int(_VISIT_SECONDS / max(fastest, 1e-9))))
    generator = np.random.default_rng(seed)
    samples: list[list[list[int]]] = [[] for _ in subjects]
    for _ in range(rounds):
        order = generator.permutation(len(subjects))
        times: list[list[int]] = [[] for _ in subjects]
        for which in (*order, *reversed(order)):
            times[which].extend(subjects[which].visit(subjects[which].visit_runs))
        for sample, taken in zip(samples, times):
            sample.append(taken)
    return [np.asarray(sample) / 1e6 for sample in samples]

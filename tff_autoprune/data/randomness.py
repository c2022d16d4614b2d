"""One seed, and from it as many independent streams as there are things to draw."""

from __future__ import annotations

import zlib

import numpy as np


def generator(seed: int, *path: object) -> np.random.Generator:
    """Returns the random stream of one thing, e.g. `generator(7, "fontwriters", "writer", 12)`.

    A stream depends on its own path only: not on what was drawn before, nor by which process, so
    work can be cut among cores in any way.

    Args:
      seed: The user's seed, 0 or more.
      *path: Names and numbers that say what is drawn.
    """
    words = [seed] + [
        part if isinstance(part, int) else zlib.crc32(str(part).encode("utf-8")) for part in path
    ]
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(words)))

"""One seed, and from it an independent random stream for each thing that is drawn.

NumPy pads the numbers that a generator is seeded with by zeros: `(seed, 2)` and `(seed, 2, 0, 0)`
are the same stream. So every stream has a name, and a name always comes with as many parts.
"""

from __future__ import annotations

import zlib

import numpy as np

#: Every random stream of the project, and how many parts it takes after its name.
STREAMS: dict[str, tuple[int, ...]] = {
    # Data: which clients are held out, what is rendered, how plain arrays are dealt out.
    "split": (0,),
    "families": (1,),
    "writer": (2, 3),
    "avatars": (1,),
    "partition": (0,),
    "validation": (0,),
    # Training: who takes part, who drops out, what a client trains on and in what order.
    "cohort": (2,),
    "dropout": (2,),
    "feedback": (1,),
    "examples": (1,),
    "order": (2,),
    "augmentation": (2,),
    "reinitialization": (1,),
    # The rest.
    "fleet": (2,),
    "ending": (0,),
    "random importance": (2,),
    "export examples": (0,),
}


def generator(seed: int, name: str, *parts: object) -> np.random.Generator:
    """Returns the random stream of one thing, e.g. `generator(7, "writer", "train", 12)`.

    A stream depends on its name and parts only: not on what was drawn before, nor by which process,
    so work can be cut among cores in any way.

    Args:
      seed: The user's seed, 0 or more.
      name: One of `STREAMS`.
      *parts: Names and numbers (0 or more) that say what is drawn, as many as `STREAMS` says.

    Raises:
      ValueError: If there is no such stream, or it takes another number of parts.
    """
    if len(parts) not in STREAMS.get(name, ()):
        raise ValueError(f"{name!r} with {len(parts)} parts is no stream of `STREAMS`.")
    words = [seed] + [
        int(part) if isinstance(part, (int, np.integer)) else zlib.crc32(str(part).encode("utf-8"))
        for part in (name, *parts)
    ]
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(words)))


def integers(seed: int, name: str, *parts: object, count: int = 1) -> np.ndarray:
    """Returns the first numbers of a stream, int32 [count], from 0 to 2**31 - 1.

    Args:
      seed: The user's seed, 0 or more.
      name: See `generator`.
      *parts: As there.
      count: How many.
    """
    return generator(seed, name, *parts).integers(2**31, size=count).astype(np.int32)

"""Streams that are called independent are so."""

from __future__ import annotations

import zlib

import pytest

from tff_autoprune import randomness


def test_no_two_streams_are_one():
    # NumPy pads by zeros: streams of one name that differ in length would meet there.
    assert len({zlib.crc32(name.encode()) for name in randomness.STREAMS}) == len(
        randomness.STREAMS
    )
    seen = {}
    for name, counts in randomness.STREAMS.items():
        for parts in [(0,) * count for count in counts] + [
            (2,) + (0,) * (n - 1) for n in counts if n
        ]:
            seen[name, parts] = tuple(randomness.integers(2, name, *parts, count=4))
    assert len(set(seen.values())) == len(seen)


def test_a_stream_takes_the_parts_that_it_is_declared_with():
    with pytest.raises(ValueError, match="no stream"):
        randomness.generator(0, "cohort", 1)
    with pytest.raises(ValueError, match="no stream"):
        randomness.generator(0, "anything")


def test_names_and_numbers_decide():
    first = randomness.integers(1, "order", "client", 3, count=5)
    assert (first == randomness.integers(1, "order", "client", 3, count=5)).all()
    for other in ((2, "client", 3), (1, "other", 3), (1, "client", 4)):
        assert (first != randomness.integers(other[0], "order", *other[1:], count=5)).any()

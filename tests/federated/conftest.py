"""The runtime that all of these tests share."""

from __future__ import annotations

import pytest

from tff_autoprune import runtime


@pytest.fixture(scope="package", autouse=True)
def running():
    runtime.start()
    yield
    runtime.stop()

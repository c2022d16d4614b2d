"""The runtime that all of these tests share."""

from __future__ import annotations

import pytest

from tff_autoprune import federated


@pytest.fixture(scope="package", autouse=True)
def runtime():
    federated.runtime.start()
    yield
    federated.runtime.stop()

"""The runtime that all of these tests share."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="package", autouse=True)
def runtime():
    runtime.start()
    yield
    runtime.stop()

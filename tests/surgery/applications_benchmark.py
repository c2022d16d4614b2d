"""Loads benchmarks/applications.py, which is a script and not part of a package."""

import functools
import importlib.util
import pathlib


@functools.cache
def load():
    path = pathlib.Path(__file__).parents[2] / "benchmarks" / "applications.py"
    spec = importlib.util.spec_from_file_location("applications_under_test", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module

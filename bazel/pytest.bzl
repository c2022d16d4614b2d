"""Tests written for pytest as Bazel targets."""

def pytest_test(name, src, data = [], deps = []):
    """Runs one file of tests with pytest.

    Args:
      name: Name of the target.
      src: The file.
      data: Files that the tests read.
      deps: Libraries that the tests import.
    """
    native.py_test(
        name = name,
        size = "small",
        srcs = ["//bazel:pytest_main.py", src],
        main = "//bazel:pytest_main.py",
        args = ["$(location %s)" % src],
        data = data,
        python_version = "PY3",
        deps = deps,
    )

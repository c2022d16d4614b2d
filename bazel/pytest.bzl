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
        size = "medium",
        srcs = ["//bazel:pytest_main.py", src],
        main = "//bazel:pytest_main.py",
        args = ["$(location %s)" % src],
        data = data,
        # Made-up __init__.py files would make packages of what pytest imports by file name.
        legacy_create_init = 0,
        python_version = "PY3",
        deps = deps,
    )

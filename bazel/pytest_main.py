"""What `bazel test` runs: pytest on the files named in `args`."""

import os
import sys

import pytest

if __name__ == "__main__":
    # Plugins of the environment take longer to import than these tests to run.
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    # Bazel's tree is read-only; and a file without tests is an error, pytest's exit code 5.
    sys.exit(pytest.main(["-p", "no:cacheprovider", "-q", *sys.argv[1:]]))

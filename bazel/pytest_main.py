"""What `bazel test` runs: pytest on the files named in `args`."""

import sys

import pytest

if __name__ == "__main__":
    # Bazel's tree is read-only; and a file without tests is an error, pytest's exit code 5.
    sys.exit(pytest.main(["-p", "no:cacheprovider", "-q", *sys.argv[1:]]))

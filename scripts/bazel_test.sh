#!/usr/bin/env bash
# Runs `bazel test //...` offline, with Debian's bazel-bootstrap and the project's Python.
#
#   scripts/bazel_test.sh            installs Bazel if it is missing (as root), then tests
#   scripts/bazel_test.sh query ...  any other Bazel command, in the same way
#
# BAZEL_OUTPUT_USER_ROOT: where Bazel keeps its files; default: its own.
set -euo pipefail
cd "$(dirname "$0")/.."

if ! command -v bazel >/dev/null; then
  if [ "$(id -u)" -ne 0 ]; then
    echo "error: no bazel; as root: apt-get install bazel-bootstrap" >&2
    exit 2
  fi
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends bazel-bootstrap
fi

if [ ! -x .venv/bin/python ]; then
  echo "error: no .venv/bin/python; make the project's environment first" >&2
  exit 2
fi
export PATH="$PWD/.venv/bin:$PATH"

startup=()
if [ -n "${BAZEL_OUTPUT_USER_ROOT:-}" ]; then
  startup+=("--output_user_root=$BAZEL_OUTPUT_USER_ROOT")
fi
# No server stays behind; it would keep a gigabyte for hours.
trap 'bazel ${startup[@]+"${startup[@]}"} shutdown' EXIT
if [ "$#" -eq 0 ]; then
  set -- test //...
fi
bazel ${startup[@]+"${startup[@]}"} "$@"

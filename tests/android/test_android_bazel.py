"""The Bazel workspaces: the project's own passes offline; the native one is well formed."""

from __future__ import annotations

import ast
import os
import pathlib
import re
import subprocess

import pytest

ROOT = pathlib.Path(__file__).parents[2]
NATIVE = ROOT / "android_bench/native"


@pytest.mark.slow
def test_every_target_passes_offline(tmp_path):
    # Nothing may be fetched: these addresses do not answer, whatever network there is.
    offline = {name: "http://127.0.0.1:9" for name in ("http_proxy", "https_proxy")}
    done = subprocess.run(
        [ROOT / "scripts/bazel_test.sh"],
        env={**os.environ, **offline, "BAZEL_OUTPUT_USER_ROOT": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    # Bazel makes its folders read-only, which pytest's clean-up trips over.
    subprocess.run(["chmod", "-R", "u+w", tmp_path], check=True)
    assert done.returncode == 0, done.stdout[-5000:]
    passed = set(re.findall(r"^//tests/android:(\S+)\s+PASSED", done.stdout, re.MULTILINE))
    assert {"test_android_parse", "test_android_client", "test_android_report"} <= passed
    assert not (ROOT / "bazel-bin").exists()


@pytest.mark.parametrize("name", ["WORKSPACE", "BUILD.bazel"])
def test_native_files_are_well_formed(name):
    ast.parse((NATIVE / name).read_text())  # Starlark's syntax is a part of Python's.


def test_native_sources_are_pinned():
    workspace = (NATIVE / "WORKSPACE").read_text()
    assert re.search(r'sha256 = "[0-9a-f]{64}"', workspace)
    assert 'strip_prefix = "tensorflow-2.14.1"' in workspace


def test_the_projects_workspace_leaves_the_native_one_alone():
    assert "android_bench/native" in (ROOT / ".bazelignore").read_text().split()
    assert "http" not in (ROOT / "WORKSPACE").read_text()

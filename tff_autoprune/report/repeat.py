"""The command that trains a run again."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from tff_autoprune import config as config_lib

#: Sets nothing by itself, so that the flags say everything.
_BASE = "configs/default.py"


def command(config: Mapping[str, Any], run_dir: str = "runs/again") -> str:
    """Returns a command that can be pasted into a shell in the project's folder.

    Args:
      config: "config" of a run's config.json.
      run_dir: The folder that it names for the new run.
    """
    flags = []
    for name, field in config_lib.fields().items():
        section, _, key = name.rpartition(".")
        value = (config.get(section, {}) if section else config).get(key, field.default)
        if isinstance(value, list):
            value = tuple(value)
        if value is not None and value != field.default:
            flags.append(f"--config.{name}={value}")
    words = ["tff-autoprune", "train", f"--config={_BASE}", *flags, f"--run_dir={run_dir}"]
    return " \\\n    ".join(shlex.join([word]) for word in words).replace(
        "tff-autoprune \\\n    ", "tff-autoprune ", 1
    )

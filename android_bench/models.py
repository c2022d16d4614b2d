"""Which model files are measured: named one by one, or those of a training run."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

from android_bench.errors import UserError
from android_bench.plan import Model

# In this order: the first is the baseline.
_RUN_MODELS = ("dense", "pruned")
# Bytes 4 to 8 of every TensorFlow Lite model, a FlatBuffer with this file identifier.
_IDENTIFIER = b"TFL3"


def from_files(paths: Sequence[str]) -> list[Model]:
    """Returns the models in `paths`, labelled by file name, or by path where those collide.

    Raises:
      UserError: If a file is missing or not a TensorFlow Lite model, or named twice.
    """
    files = [pathlib.Path(path) for path in paths]
    for file in files:
        _require_tflite(file)
    if len({file.resolve() for file in files}) < len(files):
        raise UserError("--model: a file is named twice; each model is measured once.")
    names = [
        file.name[: -len(".tflite")] if file.suffix == ".tflite" else file.name for file in files
    ]
    labels = [name if names.count(name) == 1 else str(file) for name, file in zip(names, files)]
    return [Model(label, file) for label, file in zip(labels, files)]


def from_run(path: str, model_format: str) -> list[Model]:
    """Returns the dense and the pruned model that a training run exported.

    Args:
      path: The run directory; its models are RUN/tflite/NAME.FORMAT.tflite.
      model_format: FORMAT, e.g. "float32".

    Raises:
      UserError: If the run has not exported them in this format.
    """
    folder = pathlib.Path(path) / "tflite"
    if not folder.is_dir():
        raise UserError(f"--run_dir: expected the exported models in {folder}, found no folder.")
    files = [folder / f"{name}.{model_format}.tflite" for name in _RUN_MODELS]
    for file in files:
        if not file.is_file():
            found = sorted(other.name for other in folder.glob("*.tflite"))
            raise UserError(
                f"--run_dir: expected {file}, found {', '.join(found) or 'no models'}; choose"
                " another --format, or name files with --model."
            )
    return from_files([str(file) for file in files])


def _require_tflite(file: pathlib.Path) -> None:
    try:
        with open(file, "rb") as content:
            head = content.read(8)
    except OSError as error:
        raise UserError(f"--model: {file}: {error.strerror}.") from error
    if head[4:8] != _IDENTIFIER:
        raise UserError(
            f"--model: {file}: expected a TensorFlow Lite model, found a file that starts with"
            f" {head!r}."
        )

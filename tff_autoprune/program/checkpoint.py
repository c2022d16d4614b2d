"""Checkpoints: one file holds all that a run needs to go on as if nothing had happened.

A file is a header line with the SHA-256 digest of what follows, then a NumPy archive: the arrays
of the process states, the architectures as Keras writes them in JSON, and a JSON document for the
rest. It is written beside its name and renamed, so a crash leaves the previous one; a file that was
cut short or edited does not match its digest and is passed over.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import pathlib
from collections.abc import Mapping
from typing import Any, Optional

import numpy as np
import tensorflow as tf
from absl import logging

from tff_autoprune import files
from tff_autoprune.errors import UserError

_FORMAT = b"tff_autoprune checkpoint "
_HEADER = _FORMAT + b"2 sha256="
_STATE, _AVERAGE = "state.", "average."
_SUFFIX = ".checkpoint"
# The newest may be damaged by the disk; the one before it then serves.
_KEPT = 2


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """Everything that a resumed run starts from.

    Attributes:
      round_num: Rounds completed.
      model: The architecture (its weights are those of the state).
      arrays: The process state as a flat mapping of arrays.
      average: What `WeightAverage.to_arrays` returned.
      document: JSON values: state of the pruning method, records, counters.
    """

    round_num: int
    model: tf.keras.Model
    arrays: Mapping[str, np.ndarray]
    average: Mapping[str, np.ndarray]
    document: dict[str, Any]


class CheckpointFolder:
    """Writes and finds the checkpoints of a run."""

    def __init__(self, folder: pathlib.Path) -> None:
        """Names the folder; touches nothing."""
        self._folder = folder

    def save(self, checkpoint: Checkpoint) -> None:
        """Writes the checkpoint atomically, then removes all but the newest two."""
        arrays = {f"{_STATE}{path}": value for path, value in checkpoint.arrays.items()}
        arrays.update({f"{_AVERAGE}{k}": value for k, value in checkpoint.average.items()})
        arrays["model"] = np.frombuffer(checkpoint.model.to_json().encode(), np.uint8)
        document = {"round_num": checkpoint.round_num, **checkpoint.document}
        arrays["document"] = np.frombuffer(json.dumps(document).encode(), np.uint8)
        archive = io.BytesIO()
        np.savez(archive, **arrays)
        content = archive.getvalue()
        digest = hashlib.sha256(content).hexdigest().encode()
        path = self._folder / f"round_{checkpoint.round_num:08d}{_SUFFIX}"
        files.write_bytes(path, _HEADER + digest + b"\n" + content)
        for old in self._paths()[:-_KEPT]:
            old.unlink()

    def load_newest(self) -> Optional[Checkpoint]:
        """Returns the newest checkpoint that is whole, or None.

        One that is damaged is named in one log line and the one before it is tried.
        """
        for path in reversed(self._paths()):
            checkpoint = _load(path)
            if checkpoint is not None:
                return checkpoint
            logging.warning("%s is damaged; trying the checkpoint before it.", path)
        return None

    def _paths(self) -> list[pathlib.Path]:
        return sorted(self._folder.glob(f"round_*{_SUFFIX}"))


def _load(path: pathlib.Path) -> Optional[Checkpoint]:
    header, _, content = path.read_bytes().partition(b"\n")
    if header.startswith(_FORMAT) and not header.startswith(_HEADER):
        version = header[len(_FORMAT) :].split(b" ")[0].decode()
        raise UserError(
            f"--resume: {path} is a checkpoint of format {version}, which an earlier version of"
            " tff_autoprune wrote; expected format 2. Finish the run with that version, or start"
            " it anew with --overwrite."
        )
    if header != _HEADER + hashlib.sha256(content).hexdigest().encode():
        return None
    with np.load(io.BytesIO(content)) as archive:
        arrays = {name: archive[name] for name in archive.files}
    document = json.loads(arrays.pop("document").tobytes())
    model = tf.keras.models.model_from_json(arrays.pop("model").tobytes())

    def part(prefix: str) -> dict[str, np.ndarray]:
        return {k[len(prefix) :]: v for k, v in arrays.items() if k.startswith(prefix)}

    return Checkpoint(document.pop("round_num"), model, part(_STATE), part(_AVERAGE), document)

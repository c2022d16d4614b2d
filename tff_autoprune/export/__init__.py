"""From a Keras model to `.tflite` files that an app can use without the source.

    Keras model ──> convert ──> check_parity ──> describe ──> RUN/tflite/NAME.FORMAT.tflite
         │          (bytes)     (against Keras)  (metadata)
         ├──> fine_tune (federated, for int8) ──> the same again
         └──> convert_client ──> TFLiteClient: trains on a phone

    from tff_autoprune import export

    content = export.convert(model, "float32")
    parity = export.check_parity(content, model, images, labels, tolerance=1e-4)

The names below are imported on first use, so that a command can read its flags without TensorFlow.
"""

from __future__ import annotations

import importlib
from typing import Any

from tff_autoprune.export.formats import FORMATS

_HOME_OF_NAME = {
    "convert": "conversion",
    "convert_client": "client",
    "weight_names": "client",
    "TFLiteClient": "client_interpreter",
    "average_clients": "client_round",
    "deployable": "pixels",
    "Parity": "parity",
    "check_parity": "parity",
    "run_tflite": "interpreter",
    "describe": "metadata",
    "read_metadata": "metadata",
    "ModelDescription": "metadata",
    "export_run": "run",
    "fine_tune": "quantization_aware",
}

__all__ = ["FORMATS", *_HOME_OF_NAME]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF_NAME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME_OF_NAME[name]}"), name)

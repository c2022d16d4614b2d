"""The client files of a run: converted, checked beside TensorFlow, timed."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from tff_autoprune.export import client_parity, client_timing
from tff_autoprune.export.client import convert_client
from tff_autoprune.federated.settings import Settings

if TYPE_CHECKING:
    from tff_autoprune.data import DataSpec

FORMAT = "client"


def make_clients(
    models: Mapping[str, tf.keras.Model],
    settings: Settings,
    batch_size: int,
    spec: DataSpec,
    raw: np.ndarray,
    processed: np.ndarray,
    labels: np.ndarray,
) -> tuple[dict[str, bytes], dict[str, Any]]:
    """Makes files that train models as the run's clients did, and times a step of each.

    Args:
      models: By name, the dense one first.
      settings: Of the federated engine.
      batch_size: Of the clients.
      spec: Of the data set.
      raw: float32 [n, h, w, c], images as the files take them, for a step beside TensorFlow's.
      processed: The same images as the models take them.
      labels: int32 [n].

    Returns:
      The content of each file, and the `client` section of the summary: {NAME: {"path", "bytes",
      "loss_difference", "weights_difference", "step_ms", "tensorflow_step_ms"}, "batch_size",
      "optimizer", "step_speedup": of the last model over the first}. Differences are None if the
      model has dropout: its steps are random.

    Raises:
      UserError: If a model cannot be trained in TFLite, or trains otherwise than in TensorFlow.
    """
    contents: dict[str, bytes] = {}
    section: dict[str, Any] = {}
    contenders: dict[str, client_timing.Step] = {}
    for name, model in models.items():
        content = convert_client(
            model,
            settings,
            batch_size=batch_size,
            source_shape=spec.source_shape,
            apply_pixel_options=spec.apply,
        )
        parity = client_parity.check_step(
            content, model, settings, raw[:batch_size], labels[:batch_size], processed[:batch_size]
        )
        contents[name] = content
        section[name] = {
            "path": f"tflite/{name}.{FORMAT}.tflite",
            "bytes": len(content),
            **dataclasses.asdict(parity),
        }
        contenders[name] = client_timing.tflite_step(content, spec.num_classes)
        contenders[f"{name}, TensorFlow"] = client_timing.tensorflow_step(
            tf.keras.models.clone_model(model), batch_size
        )
    times = client_timing.measure(contenders)
    for name in models:
        section[name]["step_ms"] = times[name]["step_ms"]
        section[name]["tensorflow_step_ms"] = times[f"{name}, TensorFlow"]["step_ms"]
    first, *_, last = models
    section.update(
        batch_size=batch_size,
        optimizer=settings.client_optimizer,
        step_speedup=section[first]["step_ms"] / section[last]["step_ms"],
    )
    return contents, section

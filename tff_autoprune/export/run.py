"""Exports the models of a run directory and adds the `export` section to its summary."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Optional

import numpy as np
import tensorflow as tf

from tff_autoprune import files
from tff_autoprune.errors import UserError
from tff_autoprune.export import conversion, examples, formats, metadata, parity, pixels
from tff_autoprune.run_directory import RunDirectory

if TYPE_CHECKING:
    from tff_autoprune.data import FederatedData

MODELS = ("dense", "pruned")
_CALIBRATION_IMAGES = 128


@dataclasses.dataclass(frozen=True)
class HeldOut:
    """The images an export is calibrated and checked with.

    Attributes:
      raw: float32 [n, h, w, c], as the data source gives them: what the exported model takes.
      processed: float32 [n, h', w', c], the same images as the Keras model takes them.
      labels: int32 [n].
      calibration: float32 [m, h, w, c], raw images of validation clients.
    """

    raw: np.ndarray
    processed: np.ndarray
    labels: np.ndarray
    calibration: np.ndarray


def take_held_out(data: FederatedData, raw_data: FederatedData, count: int, seed: int) -> HeldOut:
    """Takes parity images from test clients, calibration images from validation clients.

    Args:
      data: The data set with the pixel options of training.
      raw_data: The same without pixel options.
      count: Number of parity images. Where the test clients have fewer, validation clients fill up.
      seed: Of the choice.
    """
    processed, labels = examples.take([data.test, data.validation], count, seed)
    raw, raw_labels = examples.take([raw_data.test, raw_data.validation], count, seed)
    if not np.array_equal(labels, raw_labels):
        raise UserError("export: the data set gives other examples when it is loaded again.")
    calibration, _ = examples.take([raw_data.validation], _CALIBRATION_IMAGES, seed)
    return HeldOut(raw, processed, labels, calibration)


def export_run(
    run: RunDirectory,
    load_data: Callable[[Mapping[str, Any]], FederatedData],
    formats_wanted: Optional[Sequence[str]] = None,
    count: Optional[int] = None,
    tolerance: float = parity.FLOAT32_TOLERANCE,
    on_result: Callable[[str, Mapping[str, Any]], None] = lambda name, entry: None,
) -> dict[str, Any]:
    """Converts, checks and describes both models of a run, in every format.

    All models are converted and checked before the first file is written.

    Args:
      run: Where a finished training is.
      load_data: From a configuration (the "config" of config.json) to the data set.
      formats_wanted: Keys of `FORMATS`; the configuration's by default.
      count: Number of held-out images to check with; the configuration's by default.
      tolerance: Largest absolute difference of float32 outputs from Keras.
      on_result: Called with "MODEL.FORMAT" and its summary entry after each check.

    Returns:
      The `export` section: {"MODEL.FORMAT": {"path", "bytes", "compressed_bytes",
      "max_abs_difference", "top1_agreement", "accuracy", "keras_accuracy", "examples"}}.
      The dense model is there for its size and speed: the run keeps it as it was before
      training, so its accuracies are None.

    Raises:
      UserError: If a file of the run is missing, or a model cannot be converted or disagrees.
    """
    run.require("config", "summary", *(f"{name}_model" for name in MODELS))
    stored = run.read_config()
    config = stored["config"]
    wanted = [formats.check(name) for name in formats_wanted or config["export"]["formats"]]
    count = count or max(config["export"]["examples"], parity.MINIMUM_EXAMPLES)
    data = load_data(config)
    raw_data = data if data.spec.pixels.identity else load_data(_without_pixel_options(config))
    held_out = take_held_out(data, raw_data, count, config["seed"])

    contents: dict[str, bytes] = {}
    section: dict[str, Any] = {}
    run_id = run_identity(stored, run)
    for model_name in MODELS:
        model = _load(getattr(run, f"{model_name}_model"))
        deployable = pixels.deployable(model, data.spec.source_shape, data.spec.apply)
        comparable = pixels.deployable(model, data.spec.image_shape)
        for format_name in wanted:
            content = conversion.convert(deployable, format_name, held_out.calibration)
            result = parity.check_parity(
                content,
                comparable,
                held_out.raw,
                held_out.labels,
                tolerance=tolerance if format_name == "float32" else None,
                model_images=held_out.processed,
            )
            name = f"{model_name}.{format_name}"
            figures = dataclasses.asdict(result)
            if model_name == "dense":
                figures.update(accuracy=None, keras_accuracy=None)
            described = metadata.describe(
                content,
                metadata.ModelDescription(
                    name=f"{config['model']['name']} ({model_name})",
                    run_id=run_id,
                    format=format_name,
                    image_shape=held_out.raw.shape[1:],
                    labels=list(data.spec.label_names),
                    outputs="probabilities",
                    details={
                        "data": data.spec.name,
                        "pixels_inside_model": dataclasses.asdict(data.spec.pixels),
                        "parity": figures,
                    },
                ),
            )
            contents[name] = described
            section[name] = {
                "path": f"tflite/{name}.tflite",
                "bytes": len(described),
                "compressed_bytes": len(zlib.compress(described, 9)),
                **figures,
            }
            on_result(name, section[name])
    for name, content in contents.items():
        files.write_bytes(run.path / section[name]["path"], content)
    run.update_summary(run_id=run_id, export=section)
    return section


def run_identity(stored_config: Mapping[str, Any], run: RunDirectory) -> str:
    """Returns 16 hexadecimal digits that name a run's result.

    A digest of the configuration, the package versions and the pruned model's weights: two runs
    with the same outcome have the same identity, wherever and whenever they ran.
    """
    digest = hashlib.sha256(json.dumps(stored_config, sort_keys=True).encode())
    for weight in _load(run.pruned_model).get_weights():
        digest.update(np.ascontiguousarray(weight).tobytes())
    return digest.hexdigest()[:16]


def _without_pixel_options(config: Mapping[str, Any]) -> dict[str, Any]:
    return {**config, "data": {**config["data"], "invert": False, "crop": None, "resize": None}}


def _load(path: Any) -> tf.keras.Model:
    try:
        return tf.keras.models.load_model(path, compile=False)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: expected a Keras model, found {error}.") from error

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
from absl import logging

from tff_autoprune import federated, files, models
from tff_autoprune.errors import UserError
from tff_autoprune.export import client_run, conversion, examples, formats, metadata, parity, pixels
from tff_autoprune.federated import heads
from tff_autoprune.federated.settings import Settings
from tff_autoprune.run_directory import RunDirectory

if TYPE_CHECKING:
    from tff_autoprune.data import DataSpec, FederatedData

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


# From a finished model, its data set and typical images as the model takes them, to a model of the
# same architecture that is used to int8.
FineTune = Callable[[tf.keras.Model, "FederatedData", np.ndarray], tf.keras.Model]


def export_run(
    run: RunDirectory,
    load_data: Callable[[Mapping[str, Any]], FederatedData],
    *,
    formats_wanted: Optional[Sequence[str]] = None,
    count: Optional[int] = None,
    tolerance: float = parity.FLOAT32_TOLERANCE,
    fine_tune: Optional[FineTune] = None,
    clients: bool = False,
    on_result: Callable[[str, Mapping[str, Any]], None] = lambda name, entry: None,
) -> dict[str, Any]:
    """Converts, checks and describes both models of a run, in every format.

    Both models are converted and checked before the first file is written. Fine-tuning comes last:
    if it fails, the other files are there.

    Args:
      run: Where a finished training is.
      load_data: From a configuration (the "config" of config.json) to the data set.
      formats_wanted: Keys of `FORMATS`; the configuration's by default.
      count: Number of held-out images to check with; the configuration's by default.
      tolerance: Largest absolute difference of float32 outputs from Keras.
      fine_tune: If given, the pruned model is also exported as full_int8 after it.
      clients: Whether files that train the models are written too, and described by the section
        `client` (see `client_run.make_clients`).
      on_result: Called with "MODEL.FORMAT" and its summary entry after each check.

    Returns:
      The `export` section: {"MODEL.FORMAT": {"path", "bytes", "compressed_bytes",
      "max_abs_difference", "top1_agreement", "accuracy", "keras_accuracy", "examples"}}. MODEL is
      "dense", "pruned" or, after fine-tuning, "pruned_qat". The dense model is there for its size
      and speed: the run keeps it as it was before training, so its accuracies are None.

    Raises:
      UserError: If a file of the run is missing, a model cannot be converted or disagrees, or
        fine-tuning fails.
    """
    run.require("config", "summary", *(f"{name}_model" for name in MODELS))
    stored = run.read_config()
    config = stored["config"]
    wanted = [formats.check(name) for name in formats_wanted or config["export"]["formats"]]
    count = count or max(config["export"]["examples"], parity.MINIMUM_EXAMPLES)
    data = load_data(config)
    if len(data.spec.image_shape) != 3 and "full_int8" in wanted:
        logging.warning("export: full_int8 is for images; it is left out.")
        wanted.remove("full_int8")
    raw_data = data if data.spec.pixels.identity else load_data(_without_pixel_options(config))
    held_out = take_held_out(data, raw_data, count, config["seed"])
    trained = {name: models.load_trained(run, name) for name in MODELS}
    kind = federated.Task.of_data(trained["pruned"], data.train).heads[0].kind
    run_id = run_identity(stored, trained["pruned"])

    exported: list[_Exported] = []

    def export_model(name: str, model: tf.keras.Model, format_names: Sequence[str]) -> None:
        for format_name in format_names:
            result = _convert_and_check(model, kind, format_name, data.spec, held_out, tolerance)
            figures = dataclasses.asdict(result.parity)
            if name == "dense":
                figures.update(accuracy=None, keras_accuracy=None)
            content = metadata.describe(
                result.content,
                metadata.ModelDescription(
                    name=f"{config['model']['name']} ({name})",
                    run_id=run_id,
                    format=format_name,
                    image_shape=data.spec.source_shape,
                    labels=list(data.spec.label_names),
                    outputs="values" if kind == heads.REGRESSION else "probabilities",
                    details={
                        "data": data.spec.name,
                        "pixels_inside_model": dataclasses.asdict(data.spec.pixels),
                        "parity": figures,
                    },
                ),
            )
            entry = {
                "path": f"tflite/{name}.{format_name}.tflite",
                "bytes": len(content),
                "compressed_bytes": len(zlib.compress(content, 9)),
                **figures,
            }
            exported.append(_Exported(f"{name}.{format_name}", content, entry))
            on_result(exported[-1].name, entry)

    for name in MODELS:
        export_model(name, trained[name], wanted)
    section = _write(run, run_id, exported)
    if clients:
        contents, client_section = client_run.make_clients(
            trained,
            Settings.from_config(config),
            config["federated"]["batch_size"],
            data.spec,
            held_out.raw,
            held_out.processed,
            held_out.labels,
        )
        for name, content in contents.items():
            files.write_bytes(run.path / client_section[name]["path"], content)
        run.update_summary(client=client_section)
    if fine_tune is not None:
        typical = np.asarray(data.spec.apply(tf.constant(held_out.calibration)))
        try:
            tuned = fine_tune(trained["pruned"], data, typical)
            export_model("pruned_qat", tuned, ["full_int8"])
        except UserError as error:
            raise UserError(f"{error} The other files have been written.") from error
        with files.replacing(run.models / "pruned_qat.keras") as path:
            tuned.save(path)
        section = _write(run, run_id, exported)
    return section


def _write(run: RunDirectory, run_id: str, exported: Sequence[_Exported]) -> dict[str, Any]:
    """Writes checked files; returns the section of summary.json that says so."""
    for one in exported:
        files.write_bytes(run.path / one.entry["path"], one.content)
    section = {one.name: one.entry for one in exported}
    run.update_summary(run_id=run_id, export=section)
    return section


@dataclasses.dataclass(frozen=True)
class _Exported:
    """A checked file, not yet written: "MODEL.FORMAT", its content and its summary entry."""

    name: str
    content: bytes
    entry: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class _Checked:
    """A converted model without metadata, and how it compares with Keras."""

    content: bytes
    parity: parity.Parity


def _convert_and_check(
    model: tf.keras.Model,
    kind: str,
    format_name: str,
    spec: DataSpec,
    held_out: HeldOut,
    tolerance: float,
) -> _Checked:
    """Converts a trained model with its pixel options, and runs it against the one without."""
    content = conversion.convert(
        pixels.deployable(model, spec.source_shape, spec.apply, kind),
        format_name,
        held_out.calibration,
    )
    result = parity.check_parity(
        content,
        pixels.deployable(model, spec.image_shape, kind=kind),
        held_out.raw,
        held_out.labels,
        tolerance=tolerance if format_name == "float32" else None,
        model_images=held_out.processed,
    )
    return _Checked(content, result)


def run_identity(stored_config: Mapping[str, Any], pruned: tf.keras.Model) -> str:
    """Returns 16 hexadecimal digits that name a run's result.

    A digest of the configuration, the package versions and the pruned model's weights: two runs
    with the same outcome have the same identity, wherever and whenever they ran.
    """
    digest = hashlib.sha256(json.dumps(stored_config, sort_keys=True).encode())
    for weight in pruned.get_weights():
        digest.update(np.ascontiguousarray(weight).tobytes())
    return digest.hexdigest()[:16]


def _without_pixel_options(config: Mapping[str, Any]) -> dict[str, Any]:
    return {**config, "data": {**config["data"], "invert": False, "crop": None, "resize": None}}

"""What a `.tflite` file says about itself: labels, pixels, run.

A described file is (1) the model with a `TFLITE_METADATA` entry in the standard TFLite Model
Metadata schema, which Android Studio, the Task Library and MediaPipe read; and (2) a ZIP archive
appended to it, which holds `labels.txt` (a label a line) and `tff_autoprune.json` (all the rest),
so that `unzip -p model.tflite labels.txt` shows them. Interpreters ignore both.
"""

from __future__ import annotations

import dataclasses
import io
import json
import zipfile
from collections.abc import Sequence
from typing import Any

import flatbuffers
import numpy as np
from tensorflow.lite.python import schema_py_generated as tflite_schema

from tff_autoprune.errors import UserError
from tff_autoprune.export import metadata_schema

LABELS_FILE = "labels.txt"
DETAILS_FILE = "tff_autoprune.json"
_ENTRY = b"TFLITE_METADATA"
_MODEL_IDENTIFIER = b"TFL3"
# Kernels read weights in place with vector instructions; the model schema asks for 16.
_BUFFER_ALIGNMENT = 16


@dataclasses.dataclass(frozen=True)
class ModelDescription:
    """What an app needs to use a model without its source.

    Attributes:
      name: Of the model, e.g. "cnn pruned".
      run_id: Of the training run, also in the run's `summary.json`.
      format: A key of `FORMATS`.
      image_shape: (height, width, channels) of the images that the file takes.
      labels: A name per class, in the order of the outputs.
      outputs: "probabilities" or "logits".
      details: Anything else that is JSON; kept in `tff_autoprune.json`.
    """

    name: str
    run_id: str
    format: str
    image_shape: Sequence[int]
    labels: Sequence[str]
    outputs: str
    details: dict[str, Any] = dataclasses.field(default_factory=dict)


def describe(content: bytes, description: ModelDescription) -> bytes:
    """Adds metadata to a `.tflite` file.

    Args:
      content: A `.tflite` file without metadata, as `convert` returns it.
      description: What to say.

    Returns:
      The described file. The same arguments give the same bytes.

    Raises:
      UserError: If a label has a line break (labels are lines).
    """
    if any("\n" in label or "\r" in label for label in description.labels):
        raise UserError("export: expected label names of one line each, found a line break.")
    model = _with_entry(content, metadata_schema.pack(_metadata_table(description)))
    archive = io.BytesIO(model)
    with zipfile.ZipFile(archive, "a", zipfile.ZIP_STORED) as appended:
        # ZipInfo's fixed date keeps the bytes a function of the content.
        appended.writestr(zipfile.ZipInfo(LABELS_FILE), "\n".join(description.labels) + "\n")
        details = {
            "name": description.name,
            "run_id": description.run_id,
            "format": description.format,
            "image_shape": list(description.image_shape),
            "outputs": description.outputs,
            **description.details,
        }
        appended.writestr(zipfile.ZipInfo(DETAILS_FILE), json.dumps(details, indent=2) + "\n")
    return archive.getvalue()


def read_metadata(content: bytes) -> dict[str, Any]:
    """Reads what `describe` wrote.

    Args:
      content: A `.tflite` file.

    Returns:
      {"labels": [...], "details": {...}, "metadata": the standard schema's tables as dicts}.

    Raises:
      UserError: If the file has no metadata.
    """
    model = tflite_schema.Model.GetRootAsModel(content, 0)
    for index in range(model.MetadataLength()):
        if model.Metadata(index).Name() == _ENTRY:
            buffer = model.Buffers(model.Metadata(index).Buffer()).DataAsNumpy().tobytes()
            break
    else:
        raise UserError("TFLite model: expected metadata, found none; export writes it.")
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {
            "labels": archive.read(LABELS_FILE).decode("utf-8").splitlines(),
            "details": json.loads(archive.read(DETAILS_FILE)),
            "metadata": metadata_schema.unpack(buffer),
        }


def _image_tensor(description: ModelDescription) -> dict[str, Any]:
    """Returns the TensorMetadata table of an image."""
    height, width, channels = description.image_shape
    quantized = description.format == "full_int8"
    # Apps hold pixels 0..255. (pixel - mean) / std is what the input tensor wants: the range
    # [0, 1] for floats, the byte itself for uint8.
    top, std = (255.0, 1.0) if quantized else (1.0, 255.0)
    gray = channels == 1
    return {
        "name": "image",
        "description": (
            f"{height} x {width} {'grayscale' if gray else 'RGB'} image as the data source gives"
            f" it; {'uint8 0..255' if quantized else 'float32 0..1'}. Cropping, inversion and"
            " resizing, if training used them, are inside the model."
        ),
        "content": {
            "content_properties_type": metadata_schema.CONTENT_IMAGE,
            "content_properties": {
                "color_space": metadata_schema.COLOR_SPACE_GRAYSCALE
                if gray
                else metadata_schema.COLOR_SPACE_RGB,
                "default_size": {"width": width, "height": height},
            },
        },
        "process_units": [
            {
                "options_type": metadata_schema.PROCESS_NORMALIZATION,
                "options": {"mean": [0.0], "std": [std]},
            }
        ],
        "stats": {"min": [0.0], "max": [top]},
    }


def _plain_tensor(description: ModelDescription) -> dict[str, Any]:
    """Returns the TensorMetadata table of an input that is no image."""
    return {
        "name": "input",
        "description": f"Numbers of shape {list(description.image_shape)}, as the data source gives"
        " them.",
        "content": {
            "content_properties_type": metadata_schema.CONTENT_FEATURE,
            "content_properties": {},
        },
    }


def _metadata_table(description: ModelDescription) -> dict[str, Any]:
    """Returns the ModelMetadata table."""
    is_image = len(description.image_shape) == 3
    source = _image_tensor(description) if is_image else _plain_tensor(description)
    scores = {
        "name": description.outputs,
        "description": f"One score per class ({description.outputs}); the largest wins.",
        "content": {
            "content_properties_type": metadata_schema.CONTENT_FEATURE,
            "content_properties": {},
        },
        "associated_files": [
            {
                "name": LABELS_FILE,
                "description": "A label per class, in the order of the scores.",
                "type": metadata_schema.ASSOCIATED_FILE_AXIS_LABELS,
            }
        ],
    }
    return {
        "name": description.name,
        "description": (
            f"{'Image classifier' if is_image else 'Model'} trained by federated averaging with"
            f" tff_autoprune; run {description.run_id}, format {description.format}."
        ),
        "version": description.run_id,
        "subgraph_metadata": [
            {"input_tensor_metadata": [source], "output_tensor_metadata": [scores]}
        ],
        "associated_files": [
            {
                "name": DETAILS_FILE,
                "description": "How the model was trained and checked, as JSON.",
                "type": metadata_schema.ASSOCIATED_FILE_DESCRIPTIONS,
            }
        ],
        "min_parser_version": metadata_schema.MIN_PARSER_VERSION,
    }


class _AlignedBuffer(tflite_schema.BufferT):
    """A buffer that keeps its alignment; the generated class packs at any byte."""

    def Pack(self, builder: flatbuffers.Builder) -> int:
        if self.data is None or not len(self.data):
            return super().Pack(builder)
        content = np.asarray(self.data, np.uint8).tobytes()
        builder.StartVector(1, len(content), _BUFFER_ALIGNMENT)
        builder.head = builder.Head() - len(content)
        builder.Bytes[builder.Head() : builder.Head() + len(content)] = content
        data = builder.EndVector()
        tflite_schema.BufferStart(builder)
        tflite_schema.BufferAddData(builder, data)
        return tflite_schema.BufferEnd(builder)


def _with_entry(content: bytes, metadata: bytes) -> bytes:
    """Returns the model with `metadata` as its TFLITE_METADATA buffer."""
    model = tflite_schema.ModelT.InitFromObj(tflite_schema.Model.GetRootAsModel(content, 0))
    buffers = []
    for data in [*(buffer.data for buffer in model.buffers), np.frombuffer(metadata, np.uint8)]:
        buffer = _AlignedBuffer()
        buffer.data = data
        buffers.append(buffer)
    model.buffers = buffers
    entry = tflite_schema.MetadataT()
    entry.name, entry.buffer = _ENTRY.decode(), len(buffers) - 1
    model.metadata = [*(model.metadata or []), entry]
    builder = flatbuffers.Builder(len(content) + len(metadata) + 1024)
    builder.Finish(model.Pack(builder), file_identifier=_MODEL_IDENTIFIER)
    return bytes(builder.Output())

"""The part of the TFLite Model Metadata schema that an image classifier needs.

The schema (`metadata_schema.fbs` of TensorFlow Lite Support, file identifier M001) is published at
https://www.tensorflow.org/lite/models/convert/metadata. The package that generates its Python
classes pins a protobuf older than TensorFlow 2.14's, so the tables are written here as data, field
by field in the order of the schema, and packed and unpacked by one generic pair of functions.

A table is a dict; a field left out is absent from the file.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Optional

import flatbuffers
from flatbuffers import encode, number_types, packer
from flatbuffers.table import Table

FILE_IDENTIFIER = b"M001"
# The first release of the schema has every field used here.
MIN_PARSER_VERSION = "1.0.0"

ASSOCIATED_FILE_DESCRIPTIONS = 1
ASSOCIATED_FILE_AXIS_LABELS = 2
COLOR_SPACE_RGB = 1
COLOR_SPACE_GRAYSCALE = 2
CONTENT_IMAGE = 2
CONTENT_FEATURE = 1
PROCESS_NORMALIZATION = 1

_SCALARS = {
    "byte": number_types.Int8Flags,
    "uint": number_types.Uint32Flags,
    "int": number_types.Int32Flags,
    "float": number_types.Float32Flags,
}
# A field is (name, type): a scalar, "string", a table's name, or a list of one of these. None keeps
# the place of a field that this project does not write. A union's type byte comes first.
_TABLES: dict[str, list[Optional[tuple[str, str]]]] = {
    "ModelMetadata": [
        ("name", "string"),
        ("description", "string"),
        ("version", "string"),
        ("subgraph_metadata", "[SubGraphMetadata]"),
        ("author", "string"),
        ("license", "string"),
        ("associated_files", "[AssociatedFile]"),
        ("min_parser_version", "string"),
    ],
    "SubGraphMetadata": [
        ("name", "string"),
        ("description", "string"),
        ("input_tensor_metadata", "[TensorMetadata]"),
        ("output_tensor_metadata", "[TensorMetadata]"),
        ("associated_files", "[AssociatedFile]"),
    ],
    "TensorMetadata": [
        ("name", "string"),
        ("description", "string"),
        None,  # dimension_names
        ("content", "Content"),
        ("process_units", "[ProcessUnit]"),
        ("stats", "Stats"),
        ("associated_files", "[AssociatedFile]"),
    ],
    "AssociatedFile": [("name", "string"), ("description", "string"), ("type", "byte")],
    "Content": [
        ("content_properties_type", "byte"),
        ("content_properties", "ImageProperties"),
    ],
    "ImageProperties": [("color_space", "byte"), ("default_size", "ImageSize")],
    "ImageSize": [("width", "uint"), ("height", "uint")],
    "ProcessUnit": [("options_type", "byte"), ("options", "NormalizationOptions")],
    "NormalizationOptions": [("mean", "[float]"), ("std", "[float]")],
    "Stats": [("max", "[float]"), ("min", "[float]")],
}


def pack(table: Mapping[str, Any]) -> bytes:
    """Packs a ModelMetadata table as a flatbuffer.

    Args:
      table: Values by field name; nested tables as dicts, vectors as lists.

    Returns:
      The flatbuffer, with the schema's file identifier.
    """
    builder = flatbuffers.Builder(1024)
    builder.Finish(_pack_table(builder, "ModelMetadata", table), file_identifier=FILE_IDENTIFIER)
    return bytes(builder.Output())


def unpack(content: bytes) -> dict[str, Any]:
    """The inverse of `pack`; fields that this module does not know are left out."""
    offset = encode.Get(packer.uoffset, content, 0)
    return _unpack_table("ModelMetadata", Table(bytearray(content), offset))


def _pack_table(builder: flatbuffers.Builder, type_name: str, table: Mapping[str, Any]) -> int:
    fields = _TABLES[type_name]
    unknown = set(table) - {field[0] for field in fields if field}
    if unknown:
        raise KeyError(f"{type_name} has no field {', '.join(sorted(unknown))}.")
    # What a table refers to must be written before the table itself is opened.
    values: dict[str, Any] = {}
    for name, kind in filter(None, fields):
        if name in table:
            values[name] = table[name] if kind in _SCALARS else _pack(builder, kind, table[name])
    builder.StartObject(len(fields))
    for slot, field in enumerate(fields):
        if field is None or field[0] not in values:
            continue
        name, kind = field
        if kind in _SCALARS:
            builder.PrependSlot(_SCALARS[kind], slot, values[name], 0)
        else:
            builder.PrependUOffsetTRelativeSlot(slot, values[name], 0)
    return builder.EndObject()


def _pack(builder: flatbuffers.Builder, kind: str, value: Any) -> int:
    if kind == "string":
        return builder.CreateString(value)
    if not kind.startswith("["):
        return _pack_table(builder, kind, value)
    item = kind[1:-1]
    if item in _SCALARS:
        flags = _SCALARS[item]
        builder.StartVector(flags.bytewidth, len(value), flags.bytewidth)
        for number in reversed(value):
            builder.Prepend(flags, number)
    else:
        offsets = [_pack(builder, item, element) for element in value]
        builder.StartVector(4, len(offsets), 4)
        for offset in reversed(offsets):
            builder.PrependUOffsetTRelative(offset)
    return builder.EndVector()


def _unpack_table(type_name: str, table: Table) -> dict[str, Any]:
    values = {}
    for slot, field in enumerate(_TABLES[type_name]):
        position = table.Offset(4 + 2 * slot)
        if field is None or not position:
            continue
        name, kind = field
        values[name] = _unpack(table, kind, position)
    return values


def _unpack(table: Table, kind: str, position: int) -> Any:
    if kind in _SCALARS:
        return table.Get(_SCALARS[kind], table.Pos + position)
    if kind == "string":
        return table.String(table.Pos + position).decode("utf-8")
    if not kind.startswith("["):
        return _unpack_table(kind, Table(table.Bytes, table.Indirect(table.Pos + position)))
    item, start = kind[1:-1], table.Vector(position)
    width = _SCALARS[item].bytewidth if item in _SCALARS else 4
    places = [start + width * index for index in range(table.VectorLen(position))]
    if item in _SCALARS:
        return [table.Get(_SCALARS[item], place) for place in places]
    if item == "string":
        return [table.String(place).decode("utf-8") for place in places]
    return [_unpack_table(item, Table(table.Bytes, table.Indirect(place))) for place in places]

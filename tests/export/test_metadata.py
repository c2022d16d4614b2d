import io
import zipfile

import numpy as np
import pytest
from tensorflow.lite.python import schema_py_generated as tflite_schema

from tff_autoprune import export, models
from tff_autoprune.errors import UserError
from tff_autoprune.export import metadata_schema

SHAPE = (28, 28, 1)
LABELS = ["zero", "eins", "два"]
IMAGES = np.random.default_rng(0).random((4, *SHAPE), np.float32)


@pytest.fixture(scope="module")
def plain():
    model = models.build("cnn", input_shape=SHAPE, num_classes=3, filters=(3, 5))
    return {name: export.convert(model, name, IMAGES) for name in ("float32", "full_int8")}


def description(format_name="float32", **changes):
    fields = {
        "name": "cnn (pruned)",
        "run_id": "0123456789abcdef",
        "format": format_name,
        "image_shape": SHAPE,
        "labels": LABELS,
        "outputs": "probabilities",
        "details": {"seed": 7},
        **changes,
    }
    return export.ModelDescription(**fields)


@pytest.mark.parametrize("format_name", ["float32", "full_int8"])
def test_a_described_model_computes_the_same(plain, format_name):
    content = export.describe(plain[format_name], description(format_name))
    np.testing.assert_array_equal(
        export.run_tflite(content, IMAGES), export.run_tflite(plain[format_name], IMAGES)
    )


def test_labels_and_details_are_files_of_an_appended_archive(plain):
    content = export.describe(plain["float32"], description())
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert archive.namelist() == ["labels.txt", "tff_autoprune.json"]
        assert archive.read("labels.txt").decode() == "zero\neins\nдва\n"
        # Readers on Android map stored files without unpacking them.
        assert all(info.compress_type == zipfile.ZIP_STORED for info in archive.infolist())
    found = export.read_metadata(content)
    assert found["labels"] == LABELS
    assert found["details"]["run_id"] == "0123456789abcdef"
    assert found["details"]["seed"] == 7


@pytest.mark.parametrize(
    ("format_name", "std", "top"), [("float32", 255, 1), ("full_int8", 1, 255)]
)
def test_metadata_says_how_an_app_fills_the_input(plain, format_name, std, top):
    content = export.describe(plain[format_name], description(format_name))
    metadata = export.read_metadata(content)["metadata"]
    image = metadata["subgraph_metadata"][0]["input_tensor_metadata"][0]
    assert image["process_units"][0]["options"] == {"mean": [0.0], "std": [std]}
    assert image["stats"] == {"min": [0.0], "max": [top]}
    properties = image["content"]["content_properties"]
    assert properties["default_size"] == {"width": 28, "height": 28}
    assert properties["color_space"] == metadata_schema.COLOR_SPACE_GRAYSCALE
    scores = metadata["subgraph_metadata"][0]["output_tensor_metadata"][0]
    assert scores["associated_files"][0]["name"] == "labels.txt"
    assert metadata["version"] == "0123456789abcdef"


def test_metadata_carries_the_schema_identifier(plain):
    content = export.describe(plain["float32"], description())
    model = tflite_schema.Model.GetRootAsModel(content, 0)
    entries = {model.Metadata(i).Name(): model.Metadata(i) for i in range(model.MetadataLength())}
    buffer = model.Buffers(entries[b"TFLITE_METADATA"].Buffer()).DataAsNumpy().tobytes()
    assert buffer[4:8] == b"M001"


def test_buffers_are_aligned_as_the_model_schema_asks(plain):
    model = tflite_schema.Model.GetRootAsModel(export.describe(plain["float32"], description()), 0)
    offsets = []
    for index in range(model.BuffersLength()):
        buffer = model.Buffers(index)
        if buffer.DataLength():
            offsets.append(buffer._tab.Vector(buffer._tab.Offset(4)) % 16)
    assert offsets and not any(offsets)


def test_description_is_deterministic(plain):
    one, other = (export.describe(plain["float32"], description()) for _ in range(2))
    assert one == other


def test_labels_of_several_lines_are_refused(plain):
    with pytest.raises(UserError, match="line break"):
        export.describe(plain["float32"], description(labels=["a\nb", "c", "d"]))


def test_a_model_without_metadata_is_named(plain):
    with pytest.raises(UserError, match="expected metadata, found none"):
        export.read_metadata(plain["float32"])


def test_packing_and_unpacking_are_inverse():
    table = {
        "name": "n",
        "subgraph_metadata": [
            {
                "input_tensor_metadata": [
                    {"name": "a", "stats": {"max": [1.0, 2.5], "min": [0.0, -1.0]}},
                    {"name": "b"},
                ]
            }
        ],
        "min_parser_version": "1.0.0",
    }
    assert metadata_schema.unpack(metadata_schema.pack(table)) == table


def test_unknown_fields_are_refused():
    with pytest.raises(KeyError, match="licence"):
        metadata_schema.pack({"licence": "x"})

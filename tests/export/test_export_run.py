import dataclasses
import json
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from tff_autoprune import config as config_lib
from tff_autoprune import data, export
from tff_autoprune.errors import UserError
from tff_autoprune.export import examples


def test_every_model_and_format_is_written_as_the_summary_says(exported_run):
    section = exported_run.read_summary()["export"]
    assert set(section) == {f"{m}.{f}" for m in ("dense", "pruned") for f in export.FORMATS}
    for name, entry in section.items():
        content = (exported_run.path / entry["path"]).read_bytes()
        assert entry["path"] == f"tflite/{name}.tflite"
        assert entry["bytes"] == len(content) > entry["compressed_bytes"] > 0
        assert entry["examples"] >= 256
        assert 0 <= entry["top1_agreement"] <= 1
    assert section["pruned.float32"]["max_abs_difference"] <= 1e-4
    assert section["pruned.float32"]["top1_agreement"] == 1
    assert section["pruned.float32"]["bytes"] < section["dense.float32"]["bytes"]
    assert section["dense.float32"]["accuracy"] is None


def test_exported_model_classifies_raw_images(exported_run):
    """The pixel options of training are inside: raw images give the accuracy of the summary."""
    stored = exported_run.read_config()["config"]
    raw = data.load("digits", seed=stored["seed"])
    images, labels = examples.take([raw.test, raw.validation], 256, stored["seed"])
    assert images.shape[1:] == (8, 8, 1)
    content = (exported_run.path / "tflite/pruned.float32.tflite").read_bytes()
    accuracy = np.mean(export.run_tflite(content, images).argmax(-1) == labels)
    entry = exported_run.read_summary()["export"]["pruned.float32"]
    assert accuracy == entry["accuracy"] == entry["keras_accuracy"]
    assert accuracy > 0.5


def test_metadata_names_the_run_and_its_labels(exported_run):
    content = (exported_run.path / "tflite/pruned.full_int8.tflite").read_bytes()
    found = export.read_metadata(content)
    assert found["labels"] == [str(digit) for digit in range(10)]
    assert found["details"]["run_id"] == exported_run.read_summary()["run_id"]
    assert found["details"]["pixels_inside_model"] == {"invert": True, "crop": [1, 7], "resize": 12}


def test_exporting_again_gives_the_same_bytes(exported_run):
    before = {p.name: p.read_bytes() for p in exported_run.tflite.iterdir()}
    section = export.export_run(exported_run, config_lib.load_data, formats_wanted=["float32"])
    assert set(section) == {"dense.float32", "pruned.float32"}
    for name in section:
        assert (exported_run.path / section[name]["path"]).read_bytes() == before[f"{name}.tflite"]


def test_nothing_is_written_if_the_pixels_of_training_are_not_those_of_the_export(trained_run):
    """An export that inverts although training did not must not look fine."""

    def load_data(config):
        loaded = config_lib.load_data(config)
        if not config["data"]["invert"]:
            return loaded
        pixels = dataclasses.replace(loaded.spec.pixels, invert=False)
        return dataclasses.replace(loaded, spec=dataclasses.replace(loaded.spec, pixels=pixels))

    with pytest.raises(UserError, match=r"within 0\.0001 of Keras.*nothing was written"):
        export.export_run(trained_run, load_data, formats_wanted=["float32"])
    assert not trained_run.tflite.exists()
    assert "export" not in trained_run.read_summary()


def test_the_command_explains_itself_and_fails_in_one_line(tmp_path):
    help_text = subprocess.run(
        [sys.executable, "scripts/export.py", "--help"], capture_output=True, text=True
    ).stdout
    assert "full_int8: weights and activations int8" in " ".join(help_text.split())
    failed = subprocess.run(
        [sys.executable, "scripts/export.py", f"--run_dir={tmp_path}/none"],
        capture_output=True,
        text=True,
    )
    assert failed.returncode == 2
    assert failed.stderr.count("\n") == 1 and "is not a folder" in failed.stderr


def test_the_command_exports(trained_run):
    done = subprocess.run(
        [
            sys.executable,
            "scripts/export.py",
            f"--run_dir={trained_run.path}",
            "--formats=float16",
            "--client",
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "pruned.float16" in done.stdout
    assert "pruned.client" in done.stdout
    assert set(json.loads(trained_run.summary.read_text())["export"]) == {
        "dense.float16",
        "pruned.float16",
    }

    section = json.loads(trained_run.summary.read_text())["client"]
    spec = config_lib.load_data(trained_run.read_config()["config"]).spec
    for name in ("dense", "pruned"):
        client = export.TFLiteClient((trained_run.path / section[name]["path"]).read_bytes())
        assert client.image_shape == tuple(spec.source_shape)
        assert client.batch_size == section["batch_size"]
        assert section[name]["weights_difference"] < 1e-3
    assert section["pruned"]["bytes"] < section["dense"]["bytes"]


def test_what_is_exported_stays_if_fine_tuning_fails(trained_run):
    def fails(model, data, calibration):
        raise UserError("layer 'apart' cannot.")

    with pytest.raises(
        UserError, match=r"layer 'apart' cannot\. The other files have been written"
    ):
        export.export_run(
            trained_run, config_lib.load_data, formats_wanted=["float16"], fine_tune=fails
        )
    section = trained_run.read_summary()["export"]
    assert set(section) == {"dense.float16", "pruned.float16"}
    for entry in section.values():
        assert (trained_run.path / entry["path"]).stat().st_size == entry["bytes"]


def test_a_damaged_model_file_is_named(trained_run):
    trained_run.pruned_model.write_bytes(b"PK not a model")
    with pytest.raises(UserError, match=r"^\S*pruned\.keras: expected a Keras model"):
        export.export_run(trained_run, config_lib.load_data, formats_wanted=["float32"])


def test_examples_come_from_many_clients_and_then_fill_up():
    loaded = data.load("digits", seed=2)
    sizes = data.client_sizes(loaded.test)
    few, _ = examples.take([loaded.test], 20, seed=0)
    assert len(few) == 20
    everything, labels = examples.take([loaded.test], 10**6, seed=0)
    assert len(everything) == len(labels) == sum(sizes.values())
    topped_up, _ = examples.take([loaded.test, loaded.validation], 10**6, seed=0)
    assert len(topped_up) > len(everything)
    np.testing.assert_array_equal(topped_up[: len(everything)], everything)


def test_tensorflow_runs_the_written_files_too(exported_run):
    for path in exported_run.tflite.iterdir():
        interpreter = tf.lite.Interpreter(str(path))
        interpreter.allocate_tensors()
        interpreter.invoke()

"""Phones on the loopback, a real adb server of their own, and small real models."""

from __future__ import annotations

import contextlib
import warnings

import pytest
from adbd_double import AdbdDouble
from loopback import isolated_adb, write_program
from phone_double import MODERN, Phone, PhoneText

from android_bench import cli


@pytest.fixture(scope="session")
def adb_server(tmp_path_factory):
    """A real adb server of the tests' own."""
    with isolated_adb(tmp_path_factory.mktemp("home")) as adb:
        yield adb


@pytest.fixture
def attach(adb_server):
    """Attaches phones to the server: attach(text, **behaviour) -> (phone, serial)."""
    with contextlib.ExitStack() as stack:

        def attach_phone(text: PhoneText = MODERN, connect: bool = True, **behaviour):
            phone = Phone(text, **behaviour)
            stack.callback(phone.remove)
            double = AdbdDouble(phone)
            stack.callback(double.close)
            stack.callback(adb_server.run, ["disconnect", double.serial], 10.0)
            if connect:
                adb_server.connect(double.serial)
            return phone, double.serial

        yield attach_phone


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    """A dense and a pruned convolutional model as a training run exports them: RUN/tflite/."""
    import tensorflow as tf

    folder = tmp_path_factory.mktemp("run") / "tflite"
    folder.mkdir()
    for name, filters in (("dense", (32, 64)), ("pruned", (8, 12))):
        tf.keras.utils.set_random_seed(1)
        model = tf.keras.Sequential(
            [
                tf.keras.Input((28, 28, 1), batch_size=1, name="image"),
                *(
                    tf.keras.layers.Conv2D(f, 5, activation="relu", name=f"conv_{number}")
                    for number, f in enumerate(filters)
                ),
                tf.keras.layers.GlobalAveragePooling2D(name="pool"),
                tf.keras.layers.Dense(10, name="label"),
            ],
            name="model",
        )
        converter = tf.lite.TFLiteConverter.from_keras_model(model)
        (folder / f"{name}.float32.tflite").write_bytes(converter.convert())
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: ([tf.random.uniform((1, 28, 28, 1))],) * 4
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = tf.int8
        with warnings.catch_warnings():
            # It asks for statistics in the same breath as it computes them.
            warnings.simplefilter("ignore")
            (folder / f"{name}.full_int8.tflite").write_bytes(converter.convert())
    return folder


@pytest.fixture(scope="session")
def trainers(tmp_path_factory):
    """A wide and a narrow model with a signature `train`, which takes and gives the weights."""
    import tensorflow as tf

    folder = tmp_path_factory.mktemp("trainers")
    for name, width in (("dense", 64), ("pruned", 16)):
        module = tf.Module()
        shapes = {"x": (20, 8), "w": (8, width)}
        specs = [tf.TensorSpec(shape, tf.float32, key) for key, shape in shapes.items()]

        def train(x, w):
            # The gradient of half the squared norm of x @ w.
            return {"w": w - 0.1 * tf.matmul(x, tf.matmul(x, w), transpose_a=True)}

        def infer(x, w):
            return {"y": tf.matmul(x, w)}

        functions = {
            key: tf.function(function, input_signature=specs).get_concrete_function()
            for key, function in (("train", train), ("infer", infer))
        }
        path = folder / name
        tf.saved_model.save(module, str(path), signatures=functions)
        converter = tf.lite.TFLiteConverter.from_saved_model(str(path), signature_keys=[*functions])
        (folder / f"{name}.tflite").write_bytes(converter.convert())
    return folder


@pytest.fixture
def program(tmp_path):
    """A benchmark_model for 64-bit ARM."""
    return write_program(tmp_path / "benchmark_model")


# Short, and without the rules that a busy test machine would break.
QUICK = (
    "--rounds=3",
    "--threads=1",
    "--num_runs=5",
    "--min_secs=0",
    "--warmup_secs=0",
    "--max_drift=100",
    "--cool_timeout_s=0",
)


@pytest.fixture
def run_cli(program, models, tmp_path, capsys):
    """Runs `android_bench run` quickly: run_cli(*flags) -> (exit code, stdout, stderr, folder)."""
    out = tmp_path / "out"

    def run(*flags, quick=QUICK, files=("dense", "pruned"), model_format="float32"):
        chosen = [f"--model={models / name}.{model_format}.tflite" for name in files]
        code = cli.main(
            ["run", f"--benchmark_binary={program}", f"--out={out}", *chosen, *quick, *flags]
        )
        printed = capsys.readouterr()
        return code, printed.out, printed.err, out

    return run

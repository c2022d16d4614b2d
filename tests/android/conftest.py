"""Phones on the loopback, a real adb server of their own, and small real models."""

from __future__ import annotations

import contextlib
import os
import pathlib
import socket
import struct
import subprocess

import pytest
from adbd_double import AdbdDouble
from phone_double import MODERN, Phone, PhoneText

from android_bench import cli
from android_bench.adb import Adb, find_adb

_ELF_MACHINES = {"arm64-v8a": (2, 183), "armeabi-v7a": (1, 40), "x86_64": (2, 62)}


def write_program(path: pathlib.Path, abi: str = "arm64-v8a") -> pathlib.Path:
    """Writes the head of a statically linked ELF program, which is all that the double looks at."""
    word, machine = _ELF_MACHINES[abi]
    head = b"\x7fELF" + bytes([word, 1, 1, 0]) + bytes(8)
    path.write_bytes(head + struct.pack("<HH", 3, machine) + bytes(44) + b"stands for a program")
    return path


@pytest.fixture(scope="session")
def adb_server(tmp_path_factory):
    """A real adb server that nobody else uses: own port, own keys, no scan for emulators."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    variables = {
        "HOME": str(tmp_path_factory.mktemp("home")),
        "ANDROID_ADB_SERVER_PORT": str(port),
        "ADB_LOCAL_TRANSPORT_MAX_PORT": "5553",
        "ADB_MDNS": "0",
        "ADB_MDNS_OPENSCREEN": "0",
    }
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    adb = Adb(find_adb())
    adb.devices()
    yield adb
    subprocess.run([adb.executable, "kill-server"], check=False, capture_output=True)
    for name, value in before.items():
        os.environ.pop(name) if value is None else os.environ.__setitem__(name, value)


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
                *(tf.keras.layers.Conv2D(f, 5, activation="relu") for f in filters),
                tf.keras.layers.GlobalAveragePooling2D(),
                tf.keras.layers.Dense(10, name="label"),
            ]
        )
        converter = tf.lite.TFLiteConverter.from_keras_model(model)
        (folder / f"{name}.float32.tflite").write_bytes(converter.convert())
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: ([tf.random.uniform((1, 28, 28, 1))],) * 4
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = tf.int8
        (folder / f"{name}.full_int8.tflite").write_bytes(converter.convert())
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

"""Exports the models of a run to TFLite, proves them equal and describes them.

    tff-autoprune export --run_dir=DIR [--formats=float32,full_int8] [--examples=512]

Writes DIR/tflite/{dense,pruned}.FORMAT.tflite and the section `export` of DIR/summary.json. Each
file is run against its Keras model on held-out images; float32 must agree within --tolerance,
otherwise nothing is written. With --qat_rounds (or export.qat_rounds in the configuration), the
pruned model also trains some more rounds on the clients, rounding as int8 will, and is written as
DIR/tflite/pruned_qat.full_int8.tflite.

With --client, DIR/tflite/{dense,pruned}.client.tflite train the models with the run's optimizer and
batch size, on a phone (docs/phone.md); the section `client` has the time of a step on this host.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from absl import flags

from tff_autoprune import cli, settings
from tff_autoprune.run_directory import RunDirectory

FLAGS = cli.new_flags()
cli.define_import(FLAGS)
_RUN_DIR = flags.DEFINE_string("run_dir", None, "The run directory.", flag_values=FLAGS)
_FORMATS = cli.define_override(
    settings.Export,
    "formats",
    FLAGS,
    "; ".join(f"{name}: {text}" for name, text in settings.FORMATS.items()),
)
_EXAMPLES = cli.define_override(settings.Export, "examples", FLAGS)
_TOLERANCE = flags.DEFINE_float(
    "tolerance",
    1e-4,
    "Largest absolute difference of float32 outputs from Keras.",
    lower_bound=0,
    flag_values=FLAGS,
)
_QAT_ROUNDS = cli.define_override(settings.Export, "qat_rounds", FLAGS)
_CLIENT = flags.DEFINE_bool(
    "client",
    False,
    "Also write {dense,pruned}.client.tflite, which train the models on a phone.",
    flag_values=FLAGS,
)


def _print_result(name: str, entry: Mapping[str, Any]) -> None:
    accuracy = "" if entry["accuracy"] is None else f"  accuracy {entry['accuracy']:.4f}"
    print(
        f"{name:22s} {entry['bytes']:>10,} bytes  difference {entry['max_abs_difference']:.1e}"
        f"  same class {entry['top1_agreement']:.2%}{accuracy}",
        flush=True,
    )


def _print_clients(section: Mapping[str, Any]) -> None:
    for name in ("dense", "pruned"):
        entry = section[name]
        print(
            f"{name + '.client':22s} {entry['bytes']:>10,} bytes  a step of"
            f" {section['batch_size']} images {entry['step_ms']:.2f} ms"
            f"  (TensorFlow {entry['tensorflow_step_ms']:.2f} ms)"
        )


def _fine_tuning(config: dict[str, Any]) -> Any:
    """Returns what trains a model for int8 with the settings of the run."""
    from tff_autoprune import export, federated, runtime

    def print_round(round_num: int, metrics: Mapping[str, float]) -> None:
        print(f"int8 round {round_num}: loss {metrics['loss']:.4f}", flush=True)

    def fine_tune(model: Any, data: Any, calibration: Any) -> Any:
        engine_settings = federated.Settings.from_config(config)
        runtime.start()
        try:
            return export.fine_tune(
                model, data, config, engine_settings, calibration, on_round=print_round
            )
        finally:
            runtime.stop()

    return fine_tune


def main(argv: Sequence[str]) -> None:
    """Exports; see the module."""
    cli.no_arguments(argv)
    cli.require(_RUN_DIR, "name the run directory, e.g. --run_dir=runs/demo.")
    run = RunDirectory(_RUN_DIR.value).require("config", "summary")
    from tff_autoprune import config, export

    used = run.read_config()["config"]
    if _QAT_ROUNDS.value is not None:
        used["export"]["qat_rounds"] = _QAT_ROUNDS.value
    export.export_run(
        run,
        config.load_data,
        formats_wanted=_FORMATS.value,
        count=_EXAMPLES.value,
        tolerance=_TOLERANCE.value,
        fine_tune=_fine_tuning(used) if used["export"]["qat_rounds"] else None,
        clients=_CLIENT.value,
        on_result=_print_result,
    )
    if _CLIENT.value:
        _print_clients(run.read_summary()["client"])
    print(f"wrote {run.tflite}")

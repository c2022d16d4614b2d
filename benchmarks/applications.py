"""Prunes every model of tf.keras.applications and proves that nothing but the channels is gone.

Each model gets random weights, batch-norm statistics included; every prunable group loses half of
its channels at random; the outputs of the smaller model and of the original with the readers of
those channels silenced are compared. Prints one row for each model and writes them to a CSV file.

    python benchmarks/applications.py --output=/tmp/applications.csv
"""

from __future__ import annotations

import csv
import gc
import resource
import time
from typing import Any

from absl import flags

from tff_autoprune import cli

_OUTPUT = flags.DEFINE_string("output", "applications.csv", "CSV file to write.")
_MODELS = flags.DEFINE_list("models", [], "Names of models, e.g. ResNet50,VGG16; empty for all.")
_SEED = flags.DEFINE_integer("seed", 0, "Seed of weights, channels and images.")
_PROFILER = flags.DEFINE_bool("profiler", True, "Compare operations with TensorFlow's profiler.")
_CLONE = flags.DEFINE_bool("clone", False, "Also time clone_model and set_weights.")

# The smallest images that the constructors accept, rounded up to give a few pixels at the end.
_SIZES = {"InceptionV3": 96, "InceptionResNetV2": 96, "Xception": 96}
_SIZE = 64


def image_size(name: str) -> int:
    """Returns height and width of the images for a model."""
    return _SIZES.get(name, _SIZE)


def constructors() -> list[str]:
    """Returns the names of all models of tf.keras.applications."""
    import tensorflow as tf

    names = dir(tf.keras.applications)
    return [n for n in names if n[0].isupper() and callable(getattr(tf.keras.applications, n))]


def build(name: str, size: int, seed: int) -> Any:
    """Returns a model with random weights, batch-norm statistics included.

    Args:
      name: Name of the constructor.
      size: Height and width of the images.
      seed: Seed of the statistics.
    """
    import numpy as np
    import tensorflow as tf

    tf.keras.utils.set_random_seed(seed)
    model = getattr(tf.keras.applications, name)(
        weights=None, input_shape=(size, size, 3), classifier_activation=None
    )
    generator = np.random.default_rng(seed)
    for weight in model.weights:
        kind = weight.name.split("/")[-1].split(":")[0]
        if kind in ("gamma", "moving_variance"):
            weight.assign(generator.uniform(0.5, 1.5, weight.shape))
        elif kind in ("beta", "bias", "moving_mean"):
            weight.assign(generator.normal(0, 0.1, weight.shape))
    return model


def prunable_share(model: Any, groups: Any) -> float:
    """Returns the share of convolution filters that belong to prunable groups.

    Counted are the output channels of all convolutions, depthwise ones included, and of dense
    layers that act as 1x1 convolutions on feature maps.
    """
    layers = {id(weight): layer for layer in model.layers for weight in layer.weights}
    weights = model.weights
    total = prunable = 0
    for group in groups:
        for member in group.members:
            layer = layers[id(weights[member.position])]
            is_kernel = (member.kind, member.role.value) in (
                ("kernel", "producer"),
                ("pointwise_kernel", "producer"),
                ("depthwise_kernel", "passenger"),
            )
            if is_kernel and len(layer.output_shape) > 2:
                total += len(member.positions)
                prunable += len(member.positions) * group.prunable
    return prunable / total


def profiler_flops(model: Any) -> int:
    """Returns the operations that TensorFlow's own profiler counts, batch size 1."""
    import tensorflow as tf
    from tensorflow.python.framework import func_graph

    specs = [tf.TensorSpec([1, *x.shape[1:]], x.dtype) for x in model.inputs]
    # The profiler does not look into functions that a graph calls (grouped convolutions are such
    # functions on CPU): run eagerly, they become part of the graph.
    tf.config.run_functions_eagerly(True)
    try:
        graph = func_graph.func_graph_from_py_func(
            "model", lambda *x: model(list(x) if len(x) > 1 else x[0], training=False), specs, {}
        )
    finally:
        tf.config.run_functions_eagerly(False)
    options = tf.compat.v1.profiler.ProfileOptionBuilder.float_operation()
    options["output"] = "none"
    return tf.compat.v1.profiler.profile(graph, cmd="op", options=options).total_float_ops


def measure(name: str, seed: int, profiler: bool, clone: bool) -> dict[str, Any]:
    """Prunes one model; returns a row of the table."""
    import numpy as np
    import tensorflow as tf

    from tff_autoprune import pruning

    size = image_size(name)
    started = time.perf_counter()
    model = build(name, size, seed)
    row: dict[str, Any] = {"model": name, "image": size}
    row["build_s"] = time.perf_counter() - started
    generator = np.random.default_rng(seed)
    groups = pruning.find_filter_groups(model)
    selection = {
        group.name: generator.permutation(group.channels)[: group.channels // 2]
        for group in groups
        if group.prunable
    }
    started = time.perf_counter()
    removal = pruning.plan_removal(model, selection)
    row["plan_s"] = time.perf_counter() - started
    smaller = removal.apply()
    row["cut_s"] = time.perf_counter() - started
    if clone:
        started = time.perf_counter()
        tf.keras.models.clone_model(model).set_weights(model.get_weights())
        row["clone_s"] = time.perf_counter() - started
    images = generator.normal(size=(2, size, size, 3)).astype(np.float32)
    if any(isinstance(layer, tf.keras.layers.Rescaling) for layer in model.layers):
        images = images * 127
    row["difference"] = pruning.difference(removal, smaller, images)
    full, half = model(images).numpy(), smaller(images).numpy()
    row["effect"] = float(np.abs(full - half).max() / np.abs(full).max())
    row["groups"] = len(groups)
    row["prunable_groups"] = sum(group.prunable for group in groups)
    row["prunable_filters"] = prunable_share(model, groups)
    before, after = pruning.cost.of(model), pruning.cost.of(smaller)
    row.update(
        parameters=before.parameters,
        parameters_after=after.parameters,
        flops=before.flops,
        flops_after=after.flops,
    )
    if profiler:
        row["profiler_flops"] = profiler_flops(model)
    row["peak_gib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return row


def main(argv: list[str]) -> None:
    """Measures the models and prints the table."""
    del argv
    import tensorflow as tf

    rows = []
    for name in _MODELS.value or constructors():
        tf.keras.backend.clear_session()
        gc.collect()
        rows.append(measure(name, _SEED.value, _PROFILER.value, _CLONE.value))
        cells = [
            f"{k}={v:.4g}" if isinstance(v, float) else f"{k}={v}" for k, v in rows[-1].items()
        ]
        print("  ".join(cells), flush=True)
        with open(_OUTPUT.value, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, fieldnames=rows[0])
            writer.writeheader()
            writer.writerows(rows)
    worst = max(rows, key=lambda row: row["difference"])
    share = sum(row["prunable_filters"] for row in rows) / len(rows)
    print(f"{len(rows)} models; largest difference {worst['difference']:.2e} ({worst['model']});")
    print(f"on average {share:.1%} of the convolution filters are prunable.")
    if _PROFILER.value:
        wrong = [row["model"] for row in rows if row["flops"] != row["profiler_flops"]]
        print(f"operations differ from the profiler's for: {', '.join(wrong) or 'none'}")
    print(f"wrote {_OUTPUT.value}")


if __name__ == "__main__":
    cli.run(main)

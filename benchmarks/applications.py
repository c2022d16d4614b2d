"""Prunes every model of tf.keras.applications and proves that nothing but the channels is gone.

Each model gets random weights, batch-norm statistics included; every prunable group loses half of
its channels at random; the outputs of the smaller model and of the original with the readers of
those channels silenced are compared. Prints one row for each model and adds it to a CSV file;
models that the file already has are not measured again, so that a run can be continued.

    python benchmarks/applications.py --output=/tmp/applications.csv --page=docs/applications.md

With --factorize every layer that pays is factorized first, at half of the rank that loses nothing
and in a way drawn from those with fewer parameters and operations; the outputs are compared with
those of the original with the kernels of low rank in place. Then half of the channels of every
prunable group go, ranks included, and the proof above is made for the factorized model:

    python benchmarks/applications.py --factorize --output=/tmp/factorized.csv \
        --page=docs/applications.md

What a cut costs is measured with a model that nothing was built before, side by side with
clone_model and set_weights:

    python benchmarks/applications.py --models=ResNet50 --repeats=7 --output=/tmp/resnet50.csv
    python benchmarks/applications.py --models=EfficientNetB7 --repeats=1 --output=/tmp/b7.csv
"""

from __future__ import annotations

import csv
import ctypes
import gc
import pathlib
import re
import statistics
import time
from collections.abc import Callable
from typing import Any

from absl import flags

from tff_autoprune import cli

_OUTPUT = flags.DEFINE_string("output", "applications.csv", "CSV file to write or to continue.")
_PAGE = flags.DEFINE_string("page", None, "Markdown page whose table is to be renewed.")
_MODELS = flags.DEFINE_list("models", [], "Names of models, e.g. ResNet50,VGG16; empty for all.")
_FACTORIZE = flags.DEFINE_bool("factorize", False, "Factorize the layers that pay, then cut.")
_SEED = flags.DEFINE_integer("seed", 0, "Seed of weights, channels and images.")
_PROFILER = flags.DEFINE_bool("profiler", True, "Compare operations with TensorFlow's profiler.")
_REPEATS = flags.DEFINE_integer(
    "repeats", 0, "Time the cut this often, in turns with clone_model and set_weights."
)

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


def random_images(model: Any, number: int, generator: Any) -> Any:
    """Returns images in the range that the model takes, float32."""
    import numpy as np
    import tensorflow as tf

    images = generator.normal(size=(number, *model.input_shape[1:])).astype(np.float32)
    rescales = any(isinstance(layer, tf.keras.layers.Rescaling) for layer in model.layers)
    return images * 127 if rescales else images


def build(name: str, size: int, seed: int) -> Any:
    """Returns a model with random weights, batch-norm statistics included.

    The statistics are near those of random images: with any others the signal would vanish or
    saturate on its way through the layers, and an output that no longer depends on the image proves
    nothing.

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
    kinds = [weight.name.split("/")[-1].split(":")[0] for weight in model.weights]
    for weight, kind in zip(model.weights, kinds):
        if kind == "kernel" and "gamma" not in kinds:
            # VGG has no normalization that would make up for what ReLU and the cut take away.
            weight.assign(2 * weight)
        elif kind == "gamma":
            weight.assign(generator.uniform(0.5, 1.5, weight.shape))
        elif kind in ("beta", "bias"):
            weight.assign(generator.normal(0, 0.1, weight.shape))
    fit_statistics(model, generator)
    return model


def fit_statistics(model: Any, generator: Any) -> None:
    """Sets the statistics of batch normalization near those of random images."""
    import numpy as np
    import tensorflow as tf

    norms = [x for x in model.layers if isinstance(x, tf.keras.layers.BatchNormalization)]
    for norm in norms:
        momentum, norm.momentum = norm.momentum, 0.0
        norm.usual_momentum = momentum
    if norms:
        model(random_images(model, 2, generator), training=True)
    for norm in norms:
        norm.momentum = norm.usual_momentum
        shape, deviation = norm.moving_mean.shape, np.sqrt(norm.moving_variance)
        norm.moving_mean.assign_add(deviation * generator.normal(0, 0.1, shape))
        norm.moving_variance.assign(norm.moving_variance * generator.uniform(0.5, 1.5, shape))


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


def resident_mib(peak: bool = False) -> float:
    """Returns the memory that this process holds now, or held at most since `forget_peak`."""
    text = pathlib.Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+)" if peak else r"VmRSS:\s+(\d+)", text)[1]) / 2**10


def forget_peak() -> None:
    """Lets Linux count the peak of memory anew, with what is free given back to it."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    pathlib.Path("/proc/self/clear_refs").write_text("5")


def seconds(action: Callable[[], Any]) -> float:
    """Returns how long a call takes."""
    gc.collect()
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def time_in_turns(model: Any, selection: Any, repeats: int) -> dict[str, float]:
    """Returns the medians of cutting and of copying a model, measured in turns."""
    import tensorflow as tf

    from tff_autoprune import surgery

    def clone() -> None:
        tf.keras.models.clone_model(model).set_weights(model.get_weights())

    cuts, clones = [], []
    for _ in range(repeats):
        cuts.append(seconds(lambda: surgery.remove_filters(model, selection)))
        clones.append(seconds(clone))
    cut, copy = statistics.median(cuts), statistics.median(clones)
    return {"median_cut_s": cut, "median_clone_s": copy, "cut_per_clone": cut / copy}


def measure(name: str, seed: int, profiler: bool, repeats: int) -> dict[str, Any]:
    """Prunes one model; returns a row of the table."""
    import numpy as np

    from tff_autoprune import surgery

    size = image_size(name)
    started = time.perf_counter()
    model = build(name, size, seed)
    row: dict[str, Any] = {"model": name, "image": size}
    row["build_s"] = time.perf_counter() - started
    generator = np.random.default_rng(seed)
    groups = surgery.find_filter_groups(model)
    selection = {
        group.name: generator.permutation(group.channels)[: group.channels // 2]
        for group in groups
        if group.prunable
    }
    before = surgery.cost.of(model)
    weights_mib = before.bytes / 2**20
    forget_peak()
    resident, started = resident_mib(), time.perf_counter()
    removal = surgery.plan_removal(model, selection)
    row["plan_s"] = time.perf_counter() - started
    smaller = removal.apply()
    row["cut_s"] = time.perf_counter() - started
    row["model_mib"] = weights_mib
    row["cut_mib"] = resident_mib(peak=True) - resident
    row["peak_per_model"] = (weights_mib + row["cut_mib"]) / weights_mib
    images = random_images(model, 2, generator)
    row["difference"] = surgery.difference(removal, smaller, images)
    full, half = model(images).numpy(), smaller(images).numpy()
    row["effect"] = float(np.abs(full - half).max() / np.abs(full).max())
    row["spread"] = float(np.abs(half[0] - half[1]).max() / np.abs(half).max())
    row["groups"] = len(groups)
    row["prunable_groups"] = sum(group.prunable for group in groups)
    row["prunable_filters"] = prunable_share(model, groups)
    after = surgery.cost.of(smaller)
    row.update(
        parameters=before.parameters,
        parameters_after=after.parameters,
        flops=before.flops,
        flops_after=after.flops,
    )
    if profiler:
        row["profiler_flops"] = profiler_flops(model)
    if repeats:
        row.update(time_in_turns(model, selection, repeats))
    return row


def choose_factorizations(found: Any, generator: Any) -> dict[str, Any]:
    """Returns for every layer that pays at half of its full rank one of the ways that do.

    Args:
      found: From `surgery.candidates`.
      generator: Draws the way.
    """
    from tff_autoprune import surgery

    ways: dict[str, list[Any]] = {}
    for candidate in found:
        half = -(-candidate.max_rank // 2)
        if 1 <= half <= candidate.paying_rank:
            ways.setdefault(candidate.layer, []).append(surgery.Factorization(candidate.kind, half))
    return {layer: some[generator.integers(len(some))] for layer, some in ways.items()}


def measure_factorized(name: str, seed: int, profiler: bool) -> dict[str, Any]:
    """Factorizes and then prunes one model; returns a row of the table."""
    import numpy as np

    from tff_autoprune import surgery
    from tff_autoprune.surgery import equivalence

    size = image_size(name)
    model = build(name, size, seed)
    generator = np.random.default_rng(seed)
    found = surgery.candidates(model)
    chosen = choose_factorizations(found, generator)
    layers = {candidate.layer for candidate in found if not candidate.reason}
    row: dict[str, Any] = {"model": name, "image": size, "layers": len(layers)}
    for kind in ("spatial", "channel", "depthwise", "dense"):
        row[kind] = sum(way.kind == kind for way in chosen.values())
    before = surgery.cost.of(model)
    images = random_images(model, 2, generator)
    full = model(images).numpy()
    started = time.perf_counter()
    plan = surgery.plan_factorization(model, chosen)
    factorized = plan.apply()
    row["factorize_s"] = time.perf_counter() - started
    equivalence.set_weights(model, plan.weights_in_place())
    expected, narrow = model(images).numpy(), factorized(images).numpy()
    del model, plan
    gc.collect()
    row["difference"] = float(np.abs(expected - narrow).max() / np.abs(expected).max())
    row["effect"] = float(np.abs(full - narrow).max() / np.abs(full).max())
    # What is lost at half of the rank of random weights is much: what follows shall see signals.
    fit_statistics(factorized, generator)
    groups = [group for group in surgery.find_filter_groups(factorized) if group.prunable]
    # A depthwise layer makes no channels of its own; a rank of one channel cannot be cut.
    ranks = {
        f"{layer.split('/')[-1]}_rank"
        for layer, way in chosen.items()
        if way.kind != "depthwise" and way.rank > 1
    }
    row["ranks"] = len(ranks)
    row["prunable_ranks"] = len(ranks & {group.name.split("/")[-1] for group in groups})
    removal = surgery.plan_removal(
        factorized,
        {g.name: generator.permutation(g.channels)[: g.channels // 2] for g in groups},
    )
    smaller = removal.apply()
    row["cut_difference"] = surgery.difference(removal, smaller, images)
    cut = smaller(images).numpy()
    row["spread"] = float(np.abs(cut[0] - cut[1]).max() / np.abs(cut).max())
    costs = {"": before, "_factorized": surgery.cost.of(factorized)}
    costs["_cut"] = surgery.cost.of(smaller)
    for state, cost in costs.items():
        row[f"parameters{state}"], row[f"flops{state}"] = cost.parameters, cost.flops
    if profiler:
        row["profiler_flops"] = profiler_flops(factorized)
    return row


def read_rows(path: pathlib.Path) -> list[dict[str, Any]]:
    """Returns the rows of an earlier run, numbers as numbers."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return [
            {k: v if k == "model" else float(v) for k, v in row.items()}
            for row in csv.DictReader(file)
        ]


def write_rows(path: pathlib.Path, rows: list[dict[str, Any]]) -> None:
    """Writes the table."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=rows[0])
        writer.writeheader()
        writer.writerows(rows)


def summary(rows: list[dict[str, Any]]) -> str:
    """Returns what the bar asks for, in words."""
    worst = max(rows, key=lambda row: row["difference"])
    share = sum(row["prunable_filters"] for row in rows) / len(rows)
    lines = [
        f"{len(rows)} models; largest difference {worst['difference']:.1e} ({worst['model']}).",
        f"On average {share:.1%} of the convolution filters are prunable.",
    ]
    if all("profiler_flops" in row for row in rows):
        wrong = [row["model"] for row in rows if row["flops"] != row["profiler_flops"]]
        lines.append(f"Operations differ from the profiler's for: {', '.join(wrong) or 'none'}.")
    return "\n".join(lines)


def markdown(rows: list[dict[str, Any]]) -> str:
    """Returns the summary and one line for each model."""
    lines = [
        "| model | prunable filters | difference | parameters (M) | after the cut (M) |",
        "|---|---:|---:|---:|---:|",
    ]
    for row in sorted(rows, key=lambda row: row["model"]):
        before, after = row["parameters"] / 1e6, row["parameters_after"] / 1e6
        lines.append(
            f"| {row['model']} | {row['prunable_filters']:.1%} | {row['difference']:.1e} "
            f"| {before:.2f} | {after:.2f} |"
        )
    return "\n".join([summary(rows), "", *lines, ""])


def markdown_factorized(rows: list[dict[str, Any]]) -> str:
    """Returns the summary and one line for each factorized model."""
    lines = [
        "| model | layers | spatial | channel | depthwise | dense | difference | after the cut "
        "| parameters (M) | factorized (M) | cut (M) |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in sorted(rows, key=lambda row: row["model"]):
        kinds = [f"{row[kind]:.0f}" for kind in ("spatial", "channel", "depthwise", "dense")]
        states = ("parameters", "parameters_factorized", "parameters_cut")
        cells = [
            row["model"],
            f"{row['layers']:.0f}",
            *kinds,
            f"{row['difference']:.1e}",
            f"{row['cut_difference']:.1e}",
            *(f"{row[state] / 1e6:.2f}" for state in states),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([summary_factorized(rows), "", *lines, ""])


def summary_factorized(rows: list[dict[str, Any]]) -> str:
    """Returns what the bar asks for, in words."""
    worst = max(rows, key=lambda row: row["difference"])
    cut = max(rows, key=lambda row: row["cut_difference"])
    ranks, prunable = (sum(row[key] for row in rows) for key in ("ranks", "prunable_ranks"))
    return (
        f"{len(rows)} models; largest difference {worst['difference']:.1e} ({worst['model']}), "
        f"after the cut {cut['cut_difference']:.1e} ({cut['model']}).\n"
        f"{prunable:.0f} of {ranks:.0f} ranks of at least two channels are prunable groups."
    )


def renew_page(path: pathlib.Path, text: str, marker: str) -> None:
    """Replaces what follows the page's line `<!-- MARKER ... -->`, up to the next heading."""
    page = path.read_text(encoding="utf-8")
    head = re.match(rf".*?<!-- {re.escape(marker)}[^\n]*-->\n", page, re.DOTALL)
    rest = re.search(r"^## ", page[len(head[0]) :], re.MULTILINE)
    tail = "\n" + page[len(head[0]) + rest.start() :] if rest else ""
    path.write_text(f"{head[0]}\n{text}{tail}", encoding="utf-8")


def main(argv: list[str]) -> None:
    """Measures the models and prints the table."""
    del argv
    import tensorflow as tf

    output = pathlib.Path(_OUTPUT.value)
    rows = read_rows(output)
    known = {row["model"] for row in rows}
    for name in _MODELS.value or constructors():
        if name in known:
            continue
        tf.keras.backend.clear_session()
        gc.collect()
        if _FACTORIZE.value:
            rows.append(measure_factorized(name, _SEED.value, _PROFILER.value))
        else:
            rows.append(measure(name, _SEED.value, _PROFILER.value, _REPEATS.value))
        cells = [
            f"{k}={v:.4g}" if isinstance(v, float) else f"{k}={v}" for k, v in rows[-1].items()
        ]
        print("  ".join(cells), flush=True)
        write_rows(output, rows)
    text = markdown_factorized(rows) if _FACTORIZE.value else markdown(rows)
    print(text.split("\n\n")[0])
    print(f"wrote {output}")
    if _PAGE.value:
        marker = "made by benchmarks/applications.py" + (" --factorize" * _FACTORIZE.value) + ":"
        renew_page(pathlib.Path(_PAGE.value), text, marker)
        print(f"wrote {_PAGE.value}")


if __name__ == "__main__":
    cli.run(main)

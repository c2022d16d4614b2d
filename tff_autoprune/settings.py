"""Every option of a run, section by section.

This is the one place where an option is declared: its type, default, meaning and range. Only what a
single data set can be asked for is declared where that is registered, in `tff_autoprune.data`.
"""

from __future__ import annotations

import dataclasses
from typing import Optional

from tff_autoprune.options import (
    Section,
    at_least,
    choice,
    fraction,
    inside,
    option,
    positive,
)

OPTIMIZERS = ("sgd", "momentum", "adam", "adamw", "yogi")
SCHEDULES = ("constant", "cosine", "linear")
AGGREGATORS = ("mean", "robust", "secure", "dp", "compressed")
_ROBUST = ("robust", "secure", "compressed")
METHODS = ("none", "paper", "uniform", "unstructured", "auto")
#: TFLite formats in the order of tables, from exact to smallest.
FORMATS = {
    "float32": "weights and arithmetic as trained",
    "float16": "weights stored as float16, arithmetic in float32 (float16 on a GPU)",
    "dynamic_int8": "large weight tensors stored as int8, activations quantized while running",
    "full_int8": "weights and activations int8, input and output uint8",
}
IMPORTANCES = ("energy", "l1", "l2", "geometric_median", "batch_norm", "random")


@dataclasses.dataclass(frozen=True)
class Run(Section):
    """What belongs to no section."""

    section = ""

    seed: int = at_least(0, 0, "Everything random derives from it.")


@dataclasses.dataclass(frozen=True)
class Data(Section):
    """The clients and their examples; what only some data sets know is added to it."""

    section = "data"

    name: str = option("fontwriters", "The data set.", "a data set's name")
    path: Optional[str] = option(
        None, "Folder or file of your own copy, for the sets that need one."
    )
    cache_dir: Optional[str] = option(None, "Where rendered data sets are kept.")
    invert: bool = option(False, "Whether pixels become 1 - value (ink 1, paper 0).")
    crop: Optional[tuple[int, int]] = option(
        None,
        "(start, stop): rows and columns kept, as image[start:stop].",
        "two integers",
        lambda v: len(v) == 2 and all(type(end) is int for end in v),
    )
    resize: Optional[int] = positive(None, "Height and width in pixels after resizing.")


@dataclasses.dataclass(frozen=True)
class Model(Section):
    """The network."""

    section = "model"

    name: str = option("cnn", "cnn, resnet, inception, a Keras file or module:function.")
    filters: Optional[tuple[int, ...]] = option(
        None,
        "Widths of the built-in networks.",
        "integers > 0",
        lambda v: bool(v) and all(type(width) is int and width > 0 for width in v),
    )
    normalization: Optional[str] = choice(None, ("batch", "group"), "resnet: batch or group.")
    group_size: Optional[int] = positive(None, "resnet: channels in a group.")


@dataclasses.dataclass(frozen=True)
class Federated(Section):
    """Federated averaging: clients, their training, the server."""

    section = "federated"

    rounds: int = positive(200, "Rounds of federated averaging.")
    clients_per_round: int = positive(10, "Clients sampled in each round.")
    local_epochs: int = positive(2, "Epochs over its own examples that a client trains.")
    batch_size: int = positive(20, "Examples in a client's batch.")
    max_examples: Optional[int] = positive(None, "Examples used of a client, at most.")
    client_optimizer: str = choice("adam", OPTIMIZERS, "Optimizer on the clients, new each round.")
    client_learning_rate: float = positive(1e-3, "Its learning rate.")
    # With next to nothing, every weight moves by the learning rate however small its gradient is:
    # also those of labels that the client does not have, which the others then have to mend.
    client_epsilon: float = positive(
        1e-7, "Adam, AdamW, Yogi on the clients: smaller gradients move less."
    )
    client_learning_rate_schedule: str = choice(
        "constant", SCHEDULES, "How the client learning rate falls over the rounds."
    )
    server_optimizer: str = choice("sgd", OPTIMIZERS, "Optimizer on the server.")
    server_learning_rate: float = positive(1.0, "Its learning rate.")
    client_weighting: str = choice(
        "examples", ("examples", "uniform"), "How client updates are weighted."
    )
    proximal_strength: float = at_least(
        0, 0.0, "FedProx: pull of clients' weights to the server's (mu); 0 is off."
    )
    batch_norm: str = choice(
        "aggregate",
        ("aggregate", "average"),
        "Batch-norm statistics: law of total variance, or the plain average of the reference.",
    )
    client_precision: str = choice(
        "float32",
        ("float32", "bfloat16"),
        "What clients compute in while they train; weights are float32.",
    )
    average_share: float = fraction(
        0.0, "Share of the rounds, the last ones, whose weights the final model is the mean of."
    )
    evaluate_every: int = positive(10, "Rounds between evaluations on validation clients.")
    evaluation_clients: int = positive(30, "Validation clients sampled for them, at most.")
    feedback_clients: int = positive(
        15, "Validation clients that a pruning method asks about a model, at most."
    )
    dropout_probability: float = fraction(0.0, "Probability that a client returns nothing.")
    max_attempts: int = positive(5, "Samples tried for a round whose whole cohort fails.")
    checkpoint_every: int = positive(10, "Rounds between checkpoints.")


@dataclasses.dataclass(frozen=True)
class Aggregator(Section):
    """How client updates become one update.

    "mean"; "robust" (adaptive zeroing and clipping before the mean); "secure" (robust, then
    fixed-point secure summation); "dp" (DP-FedAvg with adaptive clipping); "compressed" (robust,
    then quantization to 8 bits).
    """

    section = "aggregator"

    name: str = choice("mean", AGGREGATORS, "How client updates are aggregated.")
    zeroing: bool = option(True, "Zero extreme updates.", only=_ROBUST)
    clipping: bool = option(True, "Clip large updates.", only=_ROBUST)
    # 3 is the least at which no client can subtract its own value and read another's.
    min_clients: int = at_least(1, 3, "Fewest clients over which anything is summed.")
    noise_multiplier: float = at_least(0, 1.0, "Noise over clipping norm.", only=("dp",))
    report_noise_multiplier: Optional[float] = at_least(
        0,
        None,
        "Noise on what clients report, over its sensitivity (default noise_multiplier).",
        only=("dp",),
    )
    delta: float = inside(1e-5, "Delta at which epsilon is reported.", only=("dp",))
    dp_initial_clip: float = positive(
        0.1, "L2 norm that updates are first clipped to.", only=("dp",)
    )
    dp_target_quantile: float = inside(
        0.5, "Share of updates that shall stay unclipped.", only=("dp",)
    )


@dataclasses.dataclass(frozen=True)
class Pruning(Section):
    """What decides what is removed."""

    section = "pruning"

    method: str = choice("auto", METHODS, "The pruning method.")
    tolerance: Optional[float] = at_least(
        0, None, "Points of accuracy that may be lost (default 1).", only=("auto",)
    )
    target_parameters: Optional[int] = positive(
        None,
        "Parameters to reach.",
        only=("auto", "uniform", "unstructured"),
    )
    target_flops: Optional[int] = positive(None, "FLOPs of an inference to reach.", only=("auto",))
    target_bytes: Optional[int] = positive(
        None, "Bytes of the float32 model to reach.", only=("auto",)
    )
    target_latency_ms: Optional[float] = positive(
        None, "Milliseconds to reach, on this host or on a profiled device.", only=("auto",)
    )
    latency_profile: Optional[str] = option(
        None, "The device: result.json of `android_bench run --profile`.", only=("auto",)
    )
    importance: Optional[str] = choice(
        None,
        IMPORTANCES,
        "What a filter is worth; the method's own measure by default.",
        only=("auto", "uniform"),
    )
    round_to: int = positive(1, "Widths stay multiples of this; phones want 4 or 8.", ("auto",))
    ignore_layers: tuple[str, ...] = option(
        (),
        "Layers that keep all their filters.",
        "names of layers",
        lambda v: all(isinstance(name, str) for name in v),
    )
    penalty: float = at_least(
        0.0,
        0.0,
        "Strength of the group lasso in the clients' loss while the search lasts.",
        only=("auto",),
    )
    factorize: bool = option(
        True, "Whether layers may be factorized, not only narrowed.", only=("auto",)
    )
    paper_k: float = positive(2.2, "Bounds at mean +- k standard deviations.", only=("paper",))
    paper_rounds: int = positive(50, "Rounds of structure search, at most.", only=("paper",))
    paper_patience: int = positive(3, "Rounds without a removal that end it.", only=("paper",))
    uniform_fraction: float = fraction(
        0.5, "Share of filters removed in every layer.", only=("uniform",)
    )
    uniform_round: int = at_least(0, 20, "Rounds before the one cut.", only=("uniform",))
    uniform_factorize: bool = option(
        False, "Whether layers are factorized, too.", only=("uniform",)
    )


@dataclasses.dataclass(frozen=True)
class Export(Section):
    """The files for phones."""

    section = "export"

    formats: tuple[str, ...] = option(
        tuple(FORMATS),
        "TFLite formats to write.",
        f"some of {', '.join(FORMATS)}",
        lambda v: bool(v) and set(v) <= set(FORMATS),
    )
    examples: int = at_least(256, 256, "Held-out images of the parity check.")
    qat_rounds: int = at_least(0, 0, "Rounds of quantization-aware fine-tuning.")


@dataclasses.dataclass(frozen=True)
class Benchmark(Section):
    """Latency on this host."""

    section = "benchmark"

    rounds: int = at_least(2, 30, "Interleaved rounds.")
    runs: int = at_least(2, 50, "Inferences in a round.")
    threads: int = positive(1, "Threads of the interpreter.")


@dataclasses.dataclass(frozen=True)
class Fleet(Section):
    """The phones that a report models; round numbers, to be replaced by your own."""

    section = "fleet"

    devices: Optional[str] = option(
        None, "CSV file of device classes, or of android_bench's measurements."
    )
    gflops: float = positive(5.0, "Median speed of a client's training, 1e9 FLOPs a second.")
    gflops_spread: float = at_least(0, 0.6, "Standard deviation of its logarithm.")
    download_mbps: float = positive(20.0, "Median download, 1e6 bits a second.")
    upload_mbps: float = positive(5.0, "Median upload, 1e6 bits a second.")
    mbps_spread: float = at_least(0, 0.8, "Standard deviation of their logarithms.")
    joules_per_gflop: float = positive(0.5, "Energy of 1e9 FLOPs of training.")
    joules_per_megabyte: float = positive(2.0, "Energy of sending or receiving 1e6 bytes.")


SECTIONS: tuple[type[Section], ...] = (
    Run,
    Data,
    Model,
    Federated,
    Aggregator,
    Pruning,
    Export,
    Benchmark,
    Fleet,
)

"""The configuration of a run: every field, its default, what it may be, what it means.

`configs/*.py` start from `default()` and set what differs; flags override single fields
(`--config.federated.rounds=20`). `validate` is called before any work starts.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Union

import ml_collections
from absl import flags
from ml_collections import config_dict, config_flags

from tff_autoprune.errors import UserError
from tff_autoprune.export.formats import FORMATS

if TYPE_CHECKING:
    import tensorflow as tf

    from tff_autoprune.data import DataSpec, FederatedData


@dataclasses.dataclass(frozen=True)
class Field:
    """One field of the configuration.

    Attributes:
      default: Its default; None makes the field optional.
      kind: Its type. An int is taken where a float is wanted.
      help: What it means.
      allowed: What values it may have, in words.
      check: Whether a value is allowed.
    """

    default: Any
    kind: type
    help: str
    allowed: str = "any value"
    check: Callable[[Any], bool] = lambda value: True


def _positive(kind: type, default: Any, text: str) -> Field:
    return Field(default, kind, text, "a number > 0", lambda v: math.isfinite(v) and v > 0)


def _at_least(kind: type, least: float, default: Any, text: str) -> Field:
    return Field(
        default, kind, text, f"a number >= {least}", lambda v: math.isfinite(v) and v >= least
    )


def _fraction(default: Any, text: str) -> Field:
    return Field(default, float, text, "a number >= 0 and < 1", lambda v: 0 <= v < 1)


def _choice(default: str, choices: tuple[str, ...], text: str) -> Field:
    return Field(default, str, text, f"one of {', '.join(choices)}", lambda v: v in choices)


OPTIMIZERS = ("sgd", "momentum", "adam", "adamw", "yogi")
SCHEDULES = ("constant", "cosine", "linear")
AGGREGATORS = ("mean", "robust", "secure", "dp", "compressed")
METHODS = ("none", "paper", "uniform", "unstructured", "auto")

SCHEMA: dict[str, Union[Field, dict[str, Field]]] = {
    "seed": _at_least(int, 0, 0, "Everything random derives from it."),
    "data": {
        "name": Field("fontwriters", str, "The data set.", "a data set's name"),
        "path": Field(None, str, "Folder or file of your own copy, for the sets that need one."),
        "cache_dir": Field(None, str, "Where rendered data sets are kept."),
        "invert": Field(False, bool, "Whether pixels become 1 - value (ink 1, paper 0)."),
        "crop": Field(None, tuple, "(start, stop): rows and columns kept, as image[start:stop]."),
        "resize": _positive(int, None, "Height and width in pixels after resizing."),
        "writers": _positive(int, None, "fontwriters: number of writers."),
        "identities": _positive(int, None, "avatars: number of identities."),
        "label": Field(None, str, "celeba: the attribute to predict."),
        "only_digits": Field(None, bool, "femnist: only the ten digits."),
        "split": Field(None, str, "femnist, celeba, leaf: clients held out, or the source's own."),
        "validation_fraction": _fraction(None, "Share of clients held out for validation."),
        "test_fraction": _fraction(None, "Share of clients held out for the test."),
    },
    "model": {
        "name": Field("cnn", str, "cnn, resnet, inception, a Keras file or module:function."),
        "filters": Field(
            None,
            tuple,
            "Widths of the built-in networks.",
            "integers > 0",
            lambda v: all(isinstance(width, int) and width > 0 for width in v),
        ),
        "normalization": Field(None, str, "resnet: batch or group."),
        "group_size": _positive(int, None, "resnet: channels in a group of group normalization."),
    },
    "federated": {
        "rounds": _positive(int, 200, "Rounds of federated averaging."),
        "clients_per_round": _positive(int, 10, "Clients sampled in each round."),
        "local_epochs": _positive(int, 2, "Epochs over its own examples that a client trains."),
        "batch_size": _positive(int, 20, "Examples in a client's batch."),
        "max_examples": _positive(int, None, "Examples used of a client, at most."),
        "client_optimizer": _choice("adam", OPTIMIZERS, "Optimizer on the clients."),
        "client_learning_rate": _positive(float, 1e-3, "Its learning rate."),
        "client_epsilon": _positive(
            float, 1e-7, "Adam, AdamW, Yogi on the clients: smaller gradients move less."
        ),
        "client_learning_rate_schedule": _choice(
            "constant", SCHEDULES, "How the client learning rate falls over the rounds."
        ),
        "server_optimizer": _choice("sgd", OPTIMIZERS, "Optimizer on the server."),
        "server_learning_rate": _positive(float, 1.0, "Its learning rate."),
        "client_weighting": _choice(
            "examples", ("examples", "uniform"), "How client updates are weighted."
        ),
        "batch_norm": _choice(
            "aggregate",
            ("aggregate", "average"),
            "Batch-norm statistics: law of total variance, or the plain average of the reference.",
        ),
        "client_precision": _choice(
            "float32",
            ("float32", "bfloat16"),
            "What clients compute in while they train; weights are float32.",
        ),
        "evaluate_every": _positive(int, 10, "Rounds between evaluations on validation clients."),
        "evaluation_clients": _positive(int, 30, "Validation clients sampled for them, at most."),
        "feedback_clients": _positive(
            int, 15, "Validation clients that a pruning method asks about a model, at most."
        ),
        "dropout_probability": _fraction(0.0, "Probability that a client returns nothing."),
        "max_attempts": _positive(int, 5, "Samples tried for a round whose whole cohort fails."),
        "checkpoint_every": _positive(int, 10, "Rounds between checkpoints."),
    },
    "aggregator": {
        "name": _choice("mean", AGGREGATORS, "How client updates are aggregated."),
        "zeroing": Field(True, bool, "robust, secure, compressed: zero extreme updates."),
        "clipping": Field(True, bool, "robust, secure, compressed: clip large updates."),
        "noise_multiplier": _at_least(float, 0, 1.0, "dp: noise over clipping norm."),
        "delta": _positive(float, 1e-5, "dp: delta at which epsilon is reported."),
        "dp_initial_clip": _positive(float, 0.1, "dp: L2 norm that updates are first clipped to."),
        "dp_target_quantile": _fraction(0.5, "dp: share of updates that shall stay unclipped."),
    },
    "pruning": {
        "method": _choice("auto", METHODS, "The pruning method."),
        "tolerance": _at_least(
            float, 0, None, "auto: points of accuracy that may be lost (default 1)."
        ),
        "target_parameters": _positive(
            int, None, "auto, uniform, unstructured: parameters to reach."
        ),
        "target_flops": _positive(int, None, "auto: FLOPs of an inference to reach."),
        "target_bytes": _positive(int, None, "auto: bytes of the float32 model to reach."),
        "target_latency_ms": _positive(
            float, None, "auto: milliseconds to reach, on this host or on a profiled device."
        ),
        "latency_profile": Field(
            None, str, "auto: the device: result.json of `android_bench run --profile`."
        ),
        "paper_k": _positive(float, 2.2, "paper: bounds at mean +- k standard deviations."),
        "paper_rounds": _positive(int, 50, "paper: rounds of structure search, at most."),
        "paper_patience": _positive(int, 3, "paper: rounds without a removal that end it."),
        "uniform_fraction": _fraction(0.5, "uniform: share of filters removed in every layer."),
        "uniform_round": _at_least(int, 0, 20, "uniform: rounds before the one cut."),
    },
    "export": {
        "formats": Field(
            tuple(FORMATS),
            tuple,
            "TFLite formats to write.",
            f"some of {', '.join(FORMATS)}",
            lambda v: bool(v) and set(v) <= set(FORMATS),
        ),
        "examples": _at_least(int, 256, 256, "Held-out images of the parity check."),
        "qat_rounds": _at_least(int, 0, 0, "Rounds of quantization-aware fine-tuning."),
    },
    "benchmark": {
        "rounds": _positive(int, 30, "Interleaved rounds."),
        "runs": _positive(int, 50, "Inferences in a round."),
        "threads": _positive(int, 1, "Threads of the interpreter."),
    },
}


def default() -> ml_collections.ConfigDict:
    """Returns the configuration with every field at its default."""

    def value(field: Field) -> Any:
        return config_dict.placeholder(field.kind) if field.default is None else field.default

    config = ml_collections.ConfigDict()
    for name, entry in SCHEMA.items():
        if isinstance(entry, Field):
            config[name] = value(entry)
        else:
            config[name] = ml_collections.ConfigDict({k: value(f) for k, f in entry.items()})
    return config


def reference(
    data: str, model: str, *, clients_per_round: int, paper_k: float, paper_rounds: int
) -> ml_collections.ConfigDict:
    """Returns the settings that arXiv 2411.01759 used for one data set and model.

    Args:
      data: "femnist" or "celeba".
      model: "cnn", "resnet" or "inception".
      clients_per_round: Clients in a round.
      paper_k: Width of the paper's bounds in standard deviations, for pruning.method=paper.
      paper_rounds: Rounds of the paper's structure search, at most.
    """
    config = default()
    config.data.name = data
    if data == "femnist":
        config.data.split = "examples"  # TFF's own: every writer has training and test examples.
    config.model.name = model
    config.federated.rounds = 500
    config.federated.clients_per_round = clients_per_round
    config.federated.local_epochs = 5
    config.federated.batch_size = 32
    config.federated.client_optimizer = "adam"
    config.federated.client_learning_rate = 1e-3
    config.pruning.paper_k = paper_k
    config.pruning.paper_rounds = paper_rounds
    return config


def fields() -> dict[str, Field]:
    """Returns every field by its dotted name, e.g. "federated.rounds"."""
    found: dict[str, Field] = {}
    for name, entry in SCHEMA.items():
        if isinstance(entry, Field):
            found[name] = entry
        else:
            found.update({f"{name}.{key}": field for key, field in entry.items()})
    return found


def check_flag_names(arguments: Sequence[str]) -> None:
    """Checks the names in `--config.NAME=VALUE` flags.

    Args:
      arguments: The command line.

    Raises:
      UserError: If there is no such field; says which there are.
    """
    known = fields()
    for argument in arguments:
        flag, _, rest = argument.lstrip("-").partition("=")
        if not argument.startswith("-") or not flag.startswith("config."):
            continue
        name = flag[len("config.") :]
        if name not in known:
            section = f"{name.partition('.')[0]}."
            near = [n for n in known if n.startswith(section)] or known
            raise UserError(
                f"--config.{name}: there is no such field (found value {rest!r}); allowed are"
                f" {', '.join(near)}."
            )


def read_flag(flag: flags.FlagHolder) -> ml_collections.ConfigDict:
    """Returns the validated configuration that a `--config` flag holds.

    Args:
      flag: What `config_flags.DEFINE_config_file` returned.

    Raises:
      UserError: If the flag is missing, its file does not load, or a field is wrong.
    """
    if flag.value is None:
        raise UserError("--config: name a file of configs/, e.g. --config=configs/demo.py.")
    try:
        return validate(flag.value)
    except OSError as error:
        # ml_collections wraps the cause in two sentences of its own.
        cause = str(error).rpartition("[Errno ")[2].partition("] ")[2] or error
        raise UserError(f"--config: {cause}") from error


def read_arguments(arguments: Sequence[str]) -> ml_collections.ConfigDict:
    """Returns the validated configuration that flags for scripts/train.py ask for.

    Args:
      arguments: `--config=FILE`, `--config.NAME=VALUE`; other flags are passed over.

    Raises:
      UserError: As `read_flag`.
    """
    check_flag_names(arguments)
    values, argv = flags.FlagValues(), ["", *arguments]
    holder = config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=argv)
    try:
        values(argv, known_only=True)
    except flags.Error as error:
        raise UserError(str(error)) from error
    # A config file is the user's own Python: anything can come out.
    except Exception as error:
        raise UserError(f"--config: {type(error).__name__}: {error}") from error
    return read_flag(holder)


def validate(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """Checks every field.

    Args:
      config: What a config file returned, overridden by flags.

    Returns:
      The same configuration.

    Raises:
      UserError: If a field is unknown, missing, or has a wrong type or value. Names the field, the
        value found and what is allowed.
    """
    _check_section("", config, SCHEMA)
    # What a method does not read is not checked: runs that are compared share their flags.
    if config.pruning.method == "uniform":
        _check_uniform(config)
    if config.pruning.method == "auto":
        _check_auto(config)
    return config


def _check_uniform(config: ml_collections.ConfigDict) -> None:
    if config.pruning.uniform_round >= config.federated.rounds:
        raise UserError(
            f"pruning.uniform_round: expected less than the {config.federated.rounds} of"
            f" federated.rounds, found {config.pruning.uniform_round}."
        )


def _check_auto(config: ml_collections.ConfigDict) -> None:
    budgets = [name for name in config.pruning if name.startswith("target_")]
    asked = [n for n in (*budgets, "tolerance") if config.pruning[n] is not None]
    if len(asked) > 1:
        raise UserError(
            f"pruning.{asked[0]}: give at most one of pruning.tolerance and pruning.target_*, found"
            f" {', '.join('pruning.' + n for n in asked)}."
        )
    profile = config.pruning.latency_profile
    if profile is not None and config.pruning.target_latency_ms is None:
        raise UserError(
            f"pruning.latency_profile: expected a pruning.target_latency_ms with it, found"
            f" {profile!r} alone."
        )


def _check_section(prefix: str, section: Mapping[str, Any], schema: Mapping[str, Any]) -> None:
    for name in section:
        if name not in schema:
            raise UserError(
                f"{prefix}{name}: there is no such field; allowed are {', '.join(schema)}."
            )
    for name, entry in schema.items():
        path = f"{prefix}{name}"
        if name not in section:
            raise UserError(f"{path}: the field is missing; start from config.default().")
        if isinstance(entry, Field):
            _check_field(path, section[name], entry)
        elif isinstance(section[name], ml_collections.ConfigDict):
            _check_section(f"{path}.", section[name], entry)
        else:
            raise UserError(f"{path}: expected a section of fields, found {section[name]!r}.")


def _check_field(path: str, value: Any, field: Field) -> None:
    if value is None and field.default is None:
        return
    kinds = {float: (float, int), tuple: (tuple, list)}.get(field.kind, (field.kind,))
    if not isinstance(value, kinds) or (isinstance(value, bool) and field.kind is not bool):
        raise UserError(f"{path}: expected {field.kind.__name__}, found {value!r}.")
    if not field.check(value):
        raise UserError(f"{path}: expected {field.allowed}, found {value!r}.")


def check_same(flag: str, config: ml_collections.ConfigDict, used: Mapping[str, Any]) -> None:
    """Checks that a run has the configuration that is asked for now.

    Args:
      flag: What the user gave to reach that run, for the message.
      config: The configuration of now.
      used: "config" of the run's config.json.

    Raises:
      UserError: If a field differs; names it and both values.
    """
    _check_same_section(flag, "", to_json(config), used)


def _check_same_section(
    flag: str, prefix: str, wanted: Mapping[str, Any], used: Mapping[str, Any]
) -> None:
    for name, value in wanted.items():
        if isinstance(value, dict):
            _check_same_section(flag, f"{prefix}{name}.", value, used.get(name, {}))
        elif used.get(name) != value:
            raise UserError(
                f"{flag}: {prefix}{name} is {value!r}, but the run was started with"
                f" {used.get(name)!r}."
            )


def to_json(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """Returns the configuration as plain JSON values."""
    return json.loads(config.to_json_best_effort())


def flat(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """Returns the configuration as plain JSON values by dotted name, e.g. "federated.rounds"."""
    values = {}
    for name, value in to_json(config).items():
        if isinstance(value, dict):
            values.update({f"{name}.{key}": inner for key, inner in value.items()})
        else:
            values[name] = value
    return values


def load_data(config: Mapping[str, Any]) -> FederatedData:
    """Loads the data set that a configuration names.

    Args:
      config: The configuration, as a ConfigDict or as read from config.json.

    Returns:
      The clients for training, validation and test.

    Raises:
      UserError: If the data cannot be had as configured.
    """
    from tff_autoprune import data

    options = {k: v for k, v in dict(config["data"]).items() if v is not None and k != "name"}
    if "crop" in options:
        options["crop"] = tuple(options["crop"])
    return data.load(config["data"]["name"], seed=config["seed"], **options)


def build_model(config: Mapping[str, Any], spec: DataSpec) -> tf.keras.Model:
    """Builds the model that a configuration names.

    Args:
      config: The configuration.
      spec: Of the data it is for.

    Returns:
      The model, with the initial weights of the configuration's seed.

    Raises:
      UserError: If the model cannot be had as configured.
    """
    from tff_autoprune import models

    options = {k: v for k, v in dict(config["model"]).items() if k != "name"}
    return models.build(
        config["model"]["name"],
        input_shape=spec.image_shape,
        num_classes=spec.num_classes,
        seed=config["seed"],
        **options,
    )


def describe() -> str:
    """Returns a table of every field, its default and its meaning, in Markdown."""
    rows = ["| field | default | allowed | meaning |", "|---|---|---|---|"]
    for path, field in fields().items():
        allowed = "True or False" if field.kind is bool else field.allowed
        rows.append(f"| `{path}` | `{field.default}` | {allowed} | {field.help} |")
    return "\n".join(rows)

"""The configuration of a run: the options of `tff_autoprune.settings`, as ml_collections has them.

`configs/*.py` start from `default()` and set what differs; flags override single fields
(`--config.federated.rounds=20`). `validate` is called before any work starts.
"""

from __future__ import annotations

import json
import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import ml_collections
from absl import flags
from ml_collections import config_dict, config_flags

from tff_autoprune import data, files, settings
from tff_autoprune.data.options import Option as DataOption
from tff_autoprune.errors import UserError
from tff_autoprune.options import Option, options_of

if TYPE_CHECKING:
    import tensorflow as tf

    from tff_autoprune.data import DataSpec, FederatedData


def _is_allowed(options: Iterable[DataOption]) -> Callable[[Any], bool]:
    """Returns whether one of them allows a value; the data set that is asked says which."""

    def allows(option: DataOption, value: Any) -> bool:
        try:
            option.parse("", value)
        except UserError:
            return False
        return True

    return lambda value: any(allows(option, value) for option in options)


def _data_options() -> dict[str, Option]:
    found = options_of(settings.Data)
    for name, by_source in data.declared_options().items():
        one, *others = by_source.values()
        words = dict.fromkeys(option.allowed for option in (one, *others))
        short = len(one.allowed) < 100
        found[name] = Option(
            name=f"data.{name}",
            kind=one.kind,
            default=None,
            help=f"{', '.join(by_source)}: {one.help}.",
            allowed=" or ".join(words) if short else "see `tff-autoprune show-data --list`",
            check=_is_allowed((one, *others)),
            optional=True,  # Data sets have defaults of their own.
        )
    return found


#: The options of each section; "" has those that are in none.
SCHEMA: Mapping[str, Mapping[str, Option]] = {
    section.section: _data_options() if section is settings.Data else options_of(section)
    for section in settings.SECTIONS
}


def default() -> ml_collections.ConfigDict:
    """Returns the configuration with every field at its default."""
    config = ml_collections.ConfigDict()
    for name, section in SCHEMA.items():
        target = config
        if name:
            target = config[name] = ml_collections.ConfigDict()
        for key, option in section.items():
            none = option.default is None
            target[key] = config_dict.placeholder(option.kind) if none else option.default
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


def fields() -> dict[str, Option]:
    """Returns every field by its dotted name, e.g. "federated.rounds"."""
    return {option.name: option for section in SCHEMA.values() for option in section.values()}


def check_flags(arguments: Sequence[str]) -> None:
    """Checks the names and values in `--config.NAME=VALUE` flags.

    Args:
      arguments: The command line.

    Raises:
      UserError: If there is no such field, or the value is not allowed; says what is.
    """
    known = fields()
    for argument in arguments:
        flag, equals, rest = argument.lstrip("-").partition("=")
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
        if equals:
            known[name].require_text(rest)


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
    """Returns the validated configuration that flags of `tff-autoprune train` ask for.

    Args:
      arguments: `--config=FILE`, `--config.NAME=VALUE`; other flags are passed over.

    Raises:
      UserError: As `read_flag`.
    """
    check_flags(arguments)
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
    for name in config:
        if name not in SCHEMA and name not in SCHEMA[""]:
            allowed = ", ".join([*SCHEMA[""], *filter(None, SCHEMA)])
            raise UserError(f"{name}: there is no such field; allowed are {allowed}.")
    for name, section in SCHEMA.items():
        _check_section(name, config.get(name) if name else config, section)
    # What a method does not read is not checked: runs that are compared share their flags.
    if config.pruning.method == "uniform":
        _check_uniform(config)
    if config.pruning.method == "auto":
        _check_auto(config)
        _check_feedback(config)
    return config


def _check_feedback(config: ml_collections.ConfigDict) -> None:
    if config.aggregator.name == "dp":
        raise UserError(
            "pruning.method: 'auto' asks validation clients what a change would cost, and noise"
            " that covers the answers would drown them; with aggregator.name='dp' choose one of"
            " none, paper, uniform, unstructured."
        )


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


def _check_section(name: str, values: Any, section: Mapping[str, Option]) -> None:
    if not isinstance(values, ml_collections.ConfigDict):
        found = "none" if values is None else repr(values)
        raise UserError(f"{name}: expected a section of fields, found {found}.")
    for key in values if name else ():
        if key not in section:
            raise UserError(
                f"{name}.{key}: there is no such field; allowed are {', '.join(section)}."
            )
    for key, option in section.items():
        if key not in values:
            raise UserError(f"{option.name}: the field is missing; start from config.default().")
        option.require(values[key])


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
        dtype=spec.dtype,
        seed=config["seed"],
        **options,
    )


def describe() -> str:
    """Returns a table of every field, its default and its meaning, in Markdown."""
    rows = ["| field | default | allowed | meaning |", "|---|---|---|---|"]
    for name, option in fields().items():
        rows.append(f"| `{name}` | `{option.default}` | {option.allowed} | {option.help} |")
    return "\n".join(rows)


def write_page(page: pathlib.Path) -> None:
    """Renews the table of all fields in a page of the documentation.

    Args:
      page: A file with a line `<!-- made by ... -->`; what follows is replaced.
    """
    head, marker, _ = page.read_text(encoding="utf-8").partition(" -->\n")
    files.write_text(page, f"{head}{marker}{describe()}\n")

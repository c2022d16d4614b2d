import pathlib
import subprocess
import sys

import pytest

from tff_autoprune import config as config_lib
from tff_autoprune import data, settings
from tff_autoprune.errors import UserError

ROOT = pathlib.Path(__file__).parents[1]
CONFIGS = sorted(path.name for path in (ROOT / "configs").glob("*.py"))


def _set(config, path, value):
    *sections, name = path.split(".")
    for section in sections:
        config = config[section]
    with config.unlocked(), config.ignore_type():
        config[name] = value


@pytest.mark.parametrize(
    "path, value, allowed",
    [
        ("seed", -1, ">= 0"),
        ("federated.rounds", 0, "> 0"),
        ("federated.rounds", 2.5, "an integer > 0"),
        ("federated.rounds", True, "an integer > 0"),
        ("federated.client_learning_rate", float("nan"), "> 0"),
        ("federated.client_optimizer", "adamax", "adam"),
        ("federated.dropout_probability", 1.0, "< 1"),
        ("pruning.method", "magic", "auto"),
        ("data.crop", 3, "two integers"),
        ("export.formats", ("float33",), "float32"),
        ("pruning.misspelt", 1, "no such field"),
    ],
)
def test_a_wrong_field_is_named_with_what_is_allowed(path, value, allowed):
    config = config_lib.default()
    _set(config, path, value)
    with pytest.raises(UserError) as caught:
        config_lib.validate(config)
    assert path in str(caught.value)
    assert allowed in str(caught.value)


def test_a_missing_field_is_named():
    config = config_lib.default()
    with config.unlocked():
        del config.pruning.method
    with pytest.raises(UserError, match=r"pruning\.method"):
        config_lib.validate(config)


def test_tolerance_and_a_budget_exclude_each_other():
    config = config_lib.default()
    config.pruning.tolerance = 1.0
    config.pruning.target_flops = 1000
    with pytest.raises(UserError, match="at most one"):
        config_lib.validate(config)


def test_only_what_a_method_reads_is_checked_against_each_other():
    config = config_lib.default()
    config.pruning.tolerance = 1.0
    config.pruning.target_parameters = 1000
    config.pruning.method = "unstructured"
    config_lib.validate(config)
    config.pruning.method = "uniform"
    config.pruning.uniform_round = config.federated.rounds
    with pytest.raises(UserError, match=r"uniform_round: expected less than the 200 of"):
        config_lib.validate(config)


def test_arguments_are_read_as_train_reads_them():
    arguments = ["--config=configs/demo.py", "--quiet", "--config.seed=4"]
    config = config_lib.read_arguments([*arguments, "--config.pruning.method=paper"])
    assert (config.seed, config.pruning.method) == (4, "paper")
    assert config_lib.read_arguments(arguments).pruning.method == "auto"
    with pytest.raises(UserError, match=r"seed"):
        config_lib.read_arguments([*arguments, "--config.seed=-1"])


def test_an_int_is_taken_where_a_float_is_wanted():
    config = config_lib.default()
    config.federated.server_learning_rate = 1
    assert config_lib.validate(config).federated.server_learning_rate == 1


def test_every_field_is_described():
    text = config_lib.describe()
    for name, field in config_lib.fields().items():
        assert f"`{name}`" in text
        assert field.help in text


def test_a_section_of_settings_takes_what_the_configuration_takes():
    """One declaration: what a file may say, a program may say, and the other way round."""
    config = config_lib.default()
    for section in settings.SECTIONS:
        names = config_lib.SCHEMA[section.section]
        values = config[section.section] if section.section else config
        made = section(**{name: values[name] for name in names if hasattr(section, name)})
        assert all(
            getattr(made, name) == option.default
            for name, option in names.items()
            if hasattr(section, name)
        )
    with pytest.raises(UserError, match=r"^federated\.rounds: expected an integer > 0, found 0\.$"):
        settings.Federated(rounds=0)


def test_options_of_data_sets_are_fields():
    for name in data.declared_options():
        assert config_lib.fields()[f"data.{name}"].default is None


def test_the_page_of_all_fields_is_up_to_date():
    page = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    assert config_lib.describe() in page, "run `make docs`"


@pytest.mark.parametrize("name", CONFIGS)
def test_every_config_file_is_valid(name):
    namespace = {}
    exec((ROOT / "configs" / name).read_text(), namespace)
    config_lib.validate(namespace["get_config"]())


@pytest.mark.parametrize(
    "arguments, expected",
    [
        (["--config=configs/demo.py", "--config.federated.rondz=3"], "federated.rounds"),
        (
            ["--config=configs/demo.py", "--config.federated.rounds=x"],
            "federated.rounds: expected an integer > 0, found 'x'",
        ),
        (["--config=configs/demo.py", "--config.data.split=magic"], "one of clients, examples"),
        (["--config=configs/demo.py", "--config.federated.rounds=-2"], "> 0"),
        (["--config=configs/absent.py"], "absent.py"),
        (["--config=configs/demo.py"], "--run_dir"),
        ([], "--config"),
        (["--config=configs/demo.py", "stray"], "stray"),
        (["--nonsense=1"], "nonsense"),
    ],
)
def test_a_wrong_command_line_is_one_clear_line(arguments, expected):
    done = subprocess.run(
        [sys.executable, "scripts/train.py", *arguments], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: ")
    assert expected in done.stderr

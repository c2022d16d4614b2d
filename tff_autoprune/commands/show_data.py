"""Shows a data set: a contact sheet (a row for each client) and how unequal the clients are.

    tff-autoprune show-data --data=fontwriters --out=sheet.png [--option=writers=50]
    tff-autoprune show-data --data=npz --path=mine.npz --out=sheet.png --part=test

`--list` names the data sets and their options.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
from typing import Any

from absl import flags

from tff_autoprune import cli, data
from tff_autoprune.errors import UserError

FLAGS = cli.new_flags()
_DATA = flags.DEFINE_string("data", "fontwriters", "The data set's name.", flag_values=FLAGS)
_OUT = flags.DEFINE_string(
    "out", None, "Where the contact sheet goes, a .png file.", flag_values=FLAGS
)
_PATH = flags.DEFINE_string("path", None, "Folder or file of your own copy.", flag_values=FLAGS)
_CACHE_DIR = flags.DEFINE_string(
    "cache_dir", None, "Where rendered data sets are kept.", flag_values=FLAGS
)
_SEED = flags.DEFINE_integer(
    "seed", 0, "Everything random derives from it.", lower_bound=0, flag_values=FLAGS
)
_INVERT = flags.DEFINE_bool("invert", False, "Whether pixels become 1 - value.", flag_values=FLAGS)
_CROP = flags.DEFINE_list("crop", None, "start,stop: rows and columns kept.", flag_values=FLAGS)
_RESIZE = flags.DEFINE_integer(
    "resize", None, "Height and width after resizing, in pixels.", flag_values=FLAGS
)
_OPTION = flags.DEFINE_multi_string(
    "option", [], "name=value: one of the data set's own options.", flag_values=FLAGS
)
_PART = flags.DEFINE_enum(
    "part", "train", ["train", "validation", "test"], "What to draw.", flag_values=FLAGS
)
_CLIENTS = flags.DEFINE_integer("clients", 16, "Clients drawn.", lower_bound=1, flag_values=FLAGS)
_EXAMPLES = flags.DEFINE_integer(
    "examples", 24, "Examples drawn of each.", lower_bound=1, flag_values=FLAGS
)
_LIST = flags.DEFINE_bool(
    "list", False, "Name the data sets and their options, and stop.", flag_values=FLAGS
)


def _value(text: str) -> Any:
    """Reads a number or True or False where the text is one."""
    try:
        return ast.literal_eval(text)
    except (SyntaxError, ValueError):
        return text


def _options() -> dict[str, Any]:
    options = {}
    for text in _OPTION.value:
        name, equals, value = text.partition("=")
        if not equals:
            raise UserError(f"--option: expected name=value, found {text!r}.")
        if name not in data.option_help(_DATA.value):
            has = ", ".join(data.option_help(_DATA.value)) or "none"
            raise UserError(f"--option: {_DATA.value!r} has no option {name!r}; it has {has}.")
        options[name] = _value(value)
    return options


def _print_list() -> None:
    for name in data.names():
        print(f"{name}: {data.describe(name)}")
        for option, text in data.option_help(name).items():
            print(f"  {option}: {text}")


def main(argv: Sequence[str]) -> None:
    """Loads, draws and prints; see the module."""
    cli.no_arguments(argv)
    if _LIST.value:
        _print_list()
        return
    loaded = data.load(
        _DATA.value,
        path=_PATH.value,
        cache_dir=_CACHE_DIR.value,
        seed=_SEED.value,
        invert=_INVERT.value,
        crop=tuple(_value(text) for text in _CROP.value) if _CROP.value else None,
        resize=_RESIZE.value,
        **_options(),
    )
    spec = loaded.spec
    print(f"{spec.name}: images {spec.image_shape}, {spec.num_classes} classes")
    for part in ("train", "validation", "test"):
        table = data.statistics(getattr(loaded, part))
        print(f"\n{part}: {len(table)} clients, {table['examples'].sum()} examples")
        print(table.describe().loc[["mean", "min", "50%", "max"]].round(2).to_string())
    if _OUT.value:
        from tff_autoprune import files
        from tff_autoprune.data.contact_sheet import contact_sheet

        clients = getattr(loaded, _PART.value)
        shown = clients.client_ids[: _CLIENTS.value]
        sheet = contact_sheet(clients, shown, spec.label_names, _EXAMPLES.value)
        with files.replacing(_OUT.value) as temporary:
            sheet.save(temporary, format="PNG")
        print(f"\n{_OUT.value}: {len(shown)} clients of {_PART.value}")

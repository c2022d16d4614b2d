"""Declares an option once: a dataclass field that knows its help and what it may be.

    @dataclasses.dataclass(frozen=True)
    class Benchmark(Section):
        section = "benchmark"
        rounds: int = positive(30, "Interleaved rounds.")

The class checks its values when it is made. The schema of configurations, the flags of commands and
docs/configuration.md are read from the same declaration, with `options_of`.
"""

from __future__ import annotations

import ast
import dataclasses
import math
import typing
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Optional

from tff_autoprune.errors import UserError

_OPTION = "option"
_NOUNS = {
    int: "an integer",
    float: "a number",
    bool: "True or False",
    str: "a text",
    tuple: "a tuple",
}


@dataclasses.dataclass(frozen=True)
class Option:
    """One option.

    Attributes:
      name: Its dotted name, e.g. "federated.rounds".
      kind: Its type: int, float, bool, str or tuple. An int is taken where a float is wanted.
      default: Its value if nobody gives one.
      help: What it means.
      allowed: What values it may have, in words.
      check: Whether a value of its type is allowed.
      optional: Whether None is allowed, too.
      only: Which choices of the section's first word (a method, an aggregator) read it; all of them
        if empty.
    """

    name: str
    kind: type
    default: Any
    help: str
    allowed: str
    check: Callable[[Any], bool] = lambda value: True
    optional: bool = False
    only: tuple[str, ...] = ()

    def require(self, value: Any) -> None:
        """Checks a value.

        Raises:
          UserError: If it is not allowed; says what is.
        """
        if value is None and self.optional:
            return
        kinds = {float: (float, int), tuple: (tuple, list)}.get(self.kind, (self.kind,))
        right = isinstance(value, kinds) and isinstance(value, bool) == (self.kind is bool)
        if not right or not self.check(value):
            raise UserError(f"{self.name}: expected {self.allowed}, found {value!r}.")

    def require_text(self, text: str) -> None:
        """Checks a value as it is written on a command line.

        Raises:
          UserError: If it is not allowed; says what is.
        """
        if text == "None" and self.optional:
            return
        value: Any = text
        if self.kind is not str:
            try:
                value = ast.literal_eval({"true": "True", "false": "False"}.get(text, text))
            except (SyntaxError, ValueError):
                value = text
            if self.kind is float and isinstance(value, str):
                value = _float(value)
            if self.kind is tuple and isinstance(value, (int, str)):
                value = (value,)
        self.require(value)


def _float(text: str) -> Any:
    try:
        return float(text)
    except ValueError:
        return text


def option(
    default: Any,
    help: str,
    allowed: Optional[str] = None,
    check: Callable[[Any], bool] = lambda value: True,
    only: Sequence[str] = (),
) -> Any:
    """Declares a field of a `Section`; see `Option` for the arguments."""
    if only:
        help = f"{', '.join(only)}: {help}"
    declared = {"help": help, "allowed": allowed, "check": check, "only": tuple(only)}
    return dataclasses.field(default=default, metadata={_OPTION: declared})


def positive(default: Any, help: str, only: Sequence[str] = ()) -> Any:
    """Declares a number > 0."""
    return option(default, help, "a number > 0", lambda v: math.isfinite(v) and v > 0, only)


def at_least(least: float, default: Any, help: str, only: Sequence[str] = ()) -> Any:
    """Declares a number >= `least`."""
    return option(
        default, help, f"a number >= {least}", lambda v: math.isfinite(v) and v >= least, only
    )


def fraction(default: Any, help: str, only: Sequence[str] = ()) -> Any:
    """Declares a number from 0, included, to 1, excluded."""
    return option(default, help, "a number >= 0 and < 1", lambda v: 0 <= v < 1, only)


def inside(default: Any, help: str, only: Sequence[str] = ()) -> Any:
    """Declares a number between 0 and 1, both excluded."""
    return option(default, help, "a number > 0 and < 1", lambda v: 0 < v < 1, only)


def choice(default: Any, choices: Sequence[str], help: str, only: Sequence[str] = ()) -> Any:
    """Declares one of some words."""
    return option(default, help, f"one of {', '.join(choices)}", lambda v: v in choices, only)


class Section:
    """Base of dataclasses whose fields are options; checks them when it is made.

    A subclass may have further fields, which are then no options: values that a program derives.
    """

    #: What stands before the dot in the names of its options.
    section: ClassVar[str]

    def __post_init__(self) -> None:
        """Checks every option.

        Raises:
          UserError: If a value is not allowed; names the option.
        """
        for name, declared in options_of(type(self)).items():
            declared.require(getattr(self, name))


def options_of(section: type[Section]) -> dict[str, Option]:
    """Returns the options that a section declares, by field name."""
    hints = typing.get_type_hints(section)
    found = {}
    for field in dataclasses.fields(section):
        if _OPTION in field.metadata:
            kind, optional = _kind(hints[field.name])
            declared = dict(field.metadata[_OPTION])
            if declared["allowed"] is None:
                declared["allowed"] = _NOUNS[kind]
            elif kind is int:
                declared["allowed"] = declared["allowed"].replace(_NOUNS[float], _NOUNS[int])
            found[field.name] = Option(
                name=f"{section.section}.{field.name}" if section.section else field.name,
                kind=kind,
                default=field.default,
                optional=optional,
                **declared,
            )
    return found


def _kind(hint: Any) -> tuple[type, bool]:
    """Returns a type hint's plain type, and whether it is Optional."""
    arguments: Optional[tuple[Any, ...]] = typing.get_args(hint)
    if typing.get_origin(hint) is typing.Union:
        [inner] = [argument for argument in arguments if argument is not type(None)]
        return _kind(inner)[0], True
    return typing.get_origin(hint) or hint, False

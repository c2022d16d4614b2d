"""The options of a data set, and the check of what a user gave for them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, Optional

from tff_autoprune.data.federated_data import MAX_RESIZE, PixelOptions
from tff_autoprune.errors import UserError


@dataclasses.dataclass(frozen=True)
class Option:
    """One option of a data set.

    Attributes:
      kind: The type of its values.
      default: Its value if the user gives none.
      help: What it is, in a few words.
      low: Smallest number allowed; None if there is none.
      high: Largest number allowed; None if there is none.
      choices: The values allowed; None if there is no list.
    """

    kind: type
    default: Any
    help: str
    low: Optional[float] = None
    high: Optional[float] = None
    choices: Optional[tuple[Any, ...]] = None

    @property
    def allowed(self) -> str:
        """What values are allowed, in words."""
        if self.choices is not None:
            return "one of " + ", ".join(str(choice) for choice in self.choices)
        noun = {int: "an integer", float: "a number", bool: "True or False", str: "a text"}
        text = noun[self.kind]
        if self.low is not None and self.high is not None:
            return f"{text} from {self.low} to {self.high}"
        if self.low is not None:
            return f"{text} of at least {self.low}"
        return text

    def parse(self, field: str, value: Any) -> Any:
        """Returns `value` as this option's type.

        Raises:
          UserError: If it is not allowed.
        """
        failure = UserError(f"{field}: expected {self.allowed}, found {value!r}.")
        # True is an int to Python, but no count to a person; 1 is a number where 1.0 is meant.
        if isinstance(value, bool) != (self.kind is bool):
            raise failure
        if self.kind is float and isinstance(value, int):
            value = float(value)
        if not isinstance(value, self.kind):
            raise failure
        if self.kind is float and not math.isfinite(value):
            raise failure
        if self.choices is not None and value not in self.choices:
            raise failure
        if self.low is not None and value < self.low:
            raise failure
        if self.high is not None and value > self.high:
            raise failure
        return value


def held_out_fractions(validation: float, test: float) -> dict[str, Option]:
    """Returns the two options of every data set whose clients this project splits itself."""
    return {
        "validation_fraction": Option(
            float, validation, "share of the clients held out for validation", 0.0, 0.9
        ),
        "test_fraction": Option(
            float, test, "share of the clients held out for the test", 0.0, 0.9
        ),
    }


def parse_options(
    name: str, declared: Mapping[str, Option], given: Mapping[str, Any]
) -> dict[str, Any]:
    """Returns a value for every declared option.

    Args:
      name: The data set's name.
      declared: The data set's options.
      given: What the user gave; None stands for the default.

    Raises:
      UserError: If an option is unknown, or its value is not allowed.
    """
    given = {key: value for key, value in given.items() if value is not None}
    for key in given:
        if key not in declared:
            has = f"its options are {', '.join(declared)}" if declared else "it has no options"
            raise UserError(f"data.{key}: `{name}` has no such option; {has}.")
    return {
        key: option.parse(f"data.{key}", given[key]) if key in given else option.default
        for key, option in declared.items()
    }


def parse_pixels(invert: Any, crop: Any, resize: Any) -> PixelOptions:
    """Returns the pixel options that the user gave.

    Raises:
      UserError: If a value is not allowed, whatever the images.
    """
    if not isinstance(invert, bool):
        raise UserError(f"data.invert: expected True or False, found {invert!r}.")
    if crop is not None:
        pair = isinstance(crop, Sequence) and not isinstance(crop, str) and len(crop) == 2
        if not pair or not all(isinstance(x, int) and not isinstance(x, bool) for x in crop):
            raise UserError(f"data.crop: expected two integers (start, stop), found {crop!r}.")
        crop = (crop[0], crop[1])
    if resize is not None:
        resize = Option(int, None, "", 1, MAX_RESIZE).parse("data.resize", resize)
    return PixelOptions(invert=invert, crop=crop, resize=resize)

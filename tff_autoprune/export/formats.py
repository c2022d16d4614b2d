"""The number formats a model is exported in."""

from __future__ import annotations

from tff_autoprune.errors import UserError
from tff_autoprune.settings import FORMATS


def check(name: str) -> str:
    """Returns `name` if it is a known format.

    Raises:
      UserError: If it is not.
    """
    if name not in FORMATS:
        raise UserError(f"export format: expected one of {', '.join(FORMATS)}, found {name!r}.")
    return name

"""The number formats a model is exported in."""

from __future__ import annotations

from tff_autoprune.errors import UserError

# In the order of tables: from exact to smallest.
FORMATS = {
    "float32": "weights and arithmetic as trained",
    "float16": "weights stored as float16, arithmetic in float32 (float16 on a GPU)",
    "dynamic_int8": "large weight tensors stored as int8, activations quantized while running",
    "full_int8": "weights and activations int8, input and output uint8",
}


def check(name: str) -> str:
    """Returns `name` if it is a known format.

    Raises:
      UserError: If it is not.
    """
    if name not in FORMATS:
        raise UserError(f"export format: expected one of {', '.join(FORMATS)}, found {name!r}.")
    return name

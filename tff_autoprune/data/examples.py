"""Checks of examples that come from outside, and how they are kept."""

from __future__ import annotations

import numpy as np

from tff_autoprune.errors import UserError

# Floats this near to a multiple of 1/255 were bytes once.
_BYTE_TOLERANCE = 1e-3


def check_images(images: np.ndarray, where: str) -> None:
    """Checks that pixels are finite numbers in [0, 1].

    Args:
      images: float32 [n, h, w, c].
      where: The file, and the client if known, for the message.

    Raises:
      UserError: If one is not.
    """
    if np.isnan(images).any():
        row = int(np.flatnonzero(np.isnan(images).any(axis=(1, 2, 3)))[0])
        raise UserError(f"{where}: example {row} has pixels that are not numbers (NaN).")
    low, high = float(images.min()), float(images.max())
    if low < 0.0 or high > 1.0:
        wrong = low if low < 0.0 else high
        raise UserError(f"{where}: pixels must lie in [0, 1], found {wrong:g}.")


def check_labels(labels: np.ndarray, num_classes: int, where: str) -> None:
    """Checks that labels are of known classes.

    Args:
      labels: Integers [n].
      num_classes: Number of classes.
      where: The file, and the client if known, for the message.

    Raises:
      UserError: If one is not.
    """
    wrong = (labels < 0) | (labels >= num_classes)
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise UserError(
            f"{where}: example {row} has label {int(labels[row])}; expected 0 to {num_classes - 1}."
        )


def as_bytes(images: np.ndarray) -> np.ndarray:
    """Returns images as bytes where nothing is lost by it.

    Args:
      images: float32 [n, h, w, c] in [0, 1].

    Returns:
      uint8 (0 to 255) if all pixels were bytes once, else the float32 itself.
    """
    scaled = images * np.float32(255)
    rounded = np.rint(scaled)
    if np.abs(scaled - rounded).max(initial=0) > _BYTE_TOLERANCE:
        return images
    return rounded.astype(np.uint8)

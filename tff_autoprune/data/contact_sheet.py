"""One picture of a data set: a row for each client, its examples side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from tff_autoprune.data.statistics import client_arrays

if TYPE_CHECKING:
    import tensorflow_federated as tff

# Small images are enlarged, in whole steps, until they are at least this large.
_TILE = 44
_GAP = 4
_TEXT = 13
_PAPER = (250, 250, 250)
_INK = (40, 40, 40)


def contact_sheet(
    client_data: tff.simulation.datasets.ClientData,
    client_ids: Sequence[str],
    label_names: Sequence[str],
    examples: int,
) -> Image.Image:
    """Draws clients, one under the other.

    Args:
      client_data: Any `ClientData` of (image, label) examples, images of 1 or 3 channels.
      client_ids: The clients to draw.
      label_names: The names to write below the images.
      examples: How many of each client's examples to draw, at most.

    Returns:
      The picture.
    """
    height, width = client_data.element_type_structure[0].shape[:2]
    factor = max(1, -(-_TILE // max(height, width)))
    tile_width, tile_height = width * factor, height * factor
    font = ImageFont.load_default(_TEXT)
    captions = max(font.getlength(text) for text in label_names) <= tile_width
    titles = [f"{client_id}" for client_id in client_ids]
    margin = int(max(font.getlength(title) for title in titles)) + 3 * _GAP
    row_height = tile_height + _GAP + (_TEXT + _GAP if captions else 0)
    sheet = Image.new(
        "RGB",
        (margin + examples * (tile_width + _GAP), _GAP + len(titles) * row_height),
        _PAPER,
    )
    pen = ImageDraw.Draw(sheet)
    for row, (client_id, title) in enumerate(zip(client_ids, titles)):
        top = _GAP + row * row_height
        pen.text((_GAP, top + (tile_height - _TEXT) / 2), title, fill=_INK, font=font)
        images, labels = client_arrays(client_data, client_id)
        for column, (image, label) in enumerate(zip(images[:examples], labels)):
            left = margin + column * (tile_width + _GAP)
            sheet.paste(_picture(image).resize((tile_width, tile_height), 0), (left, top))
            if captions:
                middle = (left + tile_width / 2, top + tile_height)
                pen.text(middle, label_names[label], fill=_INK, font=font, anchor="ma")
    return sheet


def _picture(image: np.ndarray) -> Image.Image:
    """Turns float32 [h, w, c] in [0, 1] into a picture; of other channels, shows the first."""
    pixels = np.rint(255 * image).astype(np.uint8)
    if pixels.shape[-1] != 3:
        pixels = np.repeat(pixels[..., :1], 3, axis=-1)
    return Image.fromarray(pixels)

"""Which sizes of a network may change without tracing it anew.

Removing filters changes widths: sizes in the last two axes of a weight. A network that is traced
with those sizes unknown serves all its narrower versions, unless a layer has put a width into its
graph as a constant. Attributes of Keras' own layers that would do so are replaced here while the
network is traced; for all others, whoever traces must check (see `compiled`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Optional

import tensorflow as tf

# (inputs, outputs) of a kernel; one axis for a bias or a normalization.
_WIDTH_AXES = 2
# What the configurations of layers may differ in; names count on with every model.
_FREE_FIELDS = ("filters", "units", "groups", "name")


def unknown_widths(shape: Sequence[Optional[int]]) -> tuple[Optional[int], ...]:
    """Returns the shape of a weight with its widths unknown."""
    fixed = max(0, len(shape) - _WIDTH_AXES)
    return (*shape[:fixed], *(None for _ in shape[fixed:]))


def attributes(
    layer: tf.keras.layers.Layer,
) -> Iterator[tuple[str, Callable[[tf.keras.layers.Layer], Any]]]:
    """Yields the attributes of a layer that hold a width.

    Yields:
      Name, and a function that returns what to put there while the layer is called; it reads the
      layer's weights, which are tensors of unknown widths then.
    """
    if "filters" in vars(layer):
        # From it, convolutions tell the static shape of their outputs; None is "unknown".
        yield "filters", lambda layer: None
    size = _group_size(layer)
    if size:
        weight = "gamma" if layer.scale else "beta"
        yield "groups", lambda layer: tf.shape(getattr(layer, weight))[0] // size


def _group_size(layer: tf.keras.layers.Layer) -> int:
    """Returns the channels in a group of a group normalization; 0 for any other layer."""
    if not isinstance(layer, tf.keras.layers.GroupNormalization) or not layer.weights:
        return 0
    return layer.weights[0].shape[0] // layer.groups


def _fixed_part(config: Any) -> Any:
    if isinstance(config, dict):
        return {k: _fixed_part(v) for k, v in config.items() if k not in _FREE_FIELDS}
    if isinstance(config, (list, tuple)):
        return [_fixed_part(v) for v in config]
    return config


def signature(model: tf.keras.Model) -> tuple[Any, ...]:
    """Returns what two models must have in common to differ in their widths only."""
    parts: list[Any] = [(v.dtype.name, unknown_widths(v.shape), v.trainable) for v in model.weights]
    for layer in model._flatten_layers(include_self=False, recursive=True):
        if isinstance(layer, tf.keras.Model):
            continue
        try:
            config = json.dumps(_fixed_part(layer.get_config()), default=repr)
        except NotImplementedError:
            # A layer of the user's own that cannot be described.
            config = ""
        parts.append((type(layer), config, _group_size(layer)))
    return tuple(parts)

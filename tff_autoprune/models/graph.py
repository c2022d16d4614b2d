"""Whether a model has a graph of layers that can be read."""

from __future__ import annotations

import tensorflow as tf

from tff_autoprune.errors import UserError


def check_graph(model: object, where: str = "model") -> None:
    """Checks that something is a built functional or sequential Keras model.

    Args:
      model: Whatever the user gave.
      where: What to begin the message with.

    Raises:
      UserError: If it is not; says what to do.
    """
    if not isinstance(model, tf.keras.Model):
        raise UserError(f"{where}: expected a Keras model, found {type(model).__name__}.")
    if getattr(model, "inputs", None):
        return
    if isinstance(model, tf.keras.Sequential):
        raise UserError(
            f"{where}: {model.name!r} is not built, so its sizes are not known; begin it with"
            " tf.keras.Input(shape)."
        )
    raise UserError(
        f"{where}: {model.name!r} is a subclass of tf.keras.Model, whose layers cannot be read;"
        " build it with the functional API: tf.keras.Model(inputs, outputs)."
    )

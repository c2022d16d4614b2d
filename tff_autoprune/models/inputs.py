"""What a model does to its inputs before its first weights see them."""

from __future__ import annotations

from typing import Optional

import numpy as np
import tensorflow as tf

# Inputs whose spread falls below this, and by as much, carry next to nothing to the first weights.
_SQUASHED = 0.05


def squashed_inputs(model: tf.keras.Model, inputs: np.ndarray) -> Optional[str]:
    """Says in one line that a model scales its inputs to nearly nothing; None if it does not.

    A `Rescaling(1 / 255)` in front, or the `preprocess_input` of `tf.keras.applications`, expects
    pixels of 0 to 255. Pixels in [0, 1] all look the same behind it.

    Args:
      model: A built model with one input.
      inputs: Some examples, as the model is fed, float32 [n, ...].
    """
    if not np.issubdtype(inputs.dtype, np.floating):
        return None
    before = float(np.std(inputs))
    name, seen = _first_read(model, inputs)
    if name is None or before == 0:
        return None
    after = float(np.std(seen))
    if after > _SQUASHED * min(before, 1.0):
        return None
    return (
        f"model: {name!r}, the first layer with weights, reads inputs that the layers before"
        f" it scale down {before / max(after, 1e-12):,.0f} times: the data lies in"
        f" [{inputs.min():.3g}, {inputs.max():.3g}], and they seem to expect 0 to 255. Leave them"
        " out, or the model will hardly learn."
    )


def _first_read(
    model: tf.keras.Model, inputs: tf.Tensor
) -> tuple[Optional[str], Optional[tf.Tensor]]:
    """Returns the name of the first layer with a kernel, and what it reads."""
    for layer in model.layers:
        if any(len(weight.shape) > 1 for weight in layer.weights):
            # Not `layer.input`, which for a nested model is inside of it.
            tensors = layer.inbound_nodes[-1].input_tensors
            if isinstance(tensors, (list, tuple, dict)):
                return None, None
            read = tf.keras.Model(model.inputs, tensors)(inputs, training=False)
            return (
                _first_read(layer, read)
                if isinstance(layer, tf.keras.Model)
                else (layer.name, read)
            )
    return None, None

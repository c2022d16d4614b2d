"""Local training in bfloat16: half the bytes to move, and matrix units where a CPU has them.

Weights, updates, gradients of weights, losses and all of the server's arithmetic stay float32; what
layers compute in between is bfloat16 (Micikevicius et al., arXiv 1710.03740; no scaling of the loss
is needed, because bfloat16 has the range of float32: Kalamkar et al., arXiv 1905.12322).
"""

from __future__ import annotations

import tensorflow as tf

from tff_autoprune.federated.stateless import StatelessModel

# Means and variances over many numbers lose too much in 8 bits of mantissa.
_NORMALIZATIONS = (
    tf.keras.layers.BatchNormalization,
    tf.keras.layers.GroupNormalization,
    tf.keras.layers.LayerNormalization,
    tf.keras.layers.UnitNormalization,
)


def _outputs(model: tf.keras.Model) -> set[str]:
    """Returns the names of the layers that make a model's outputs."""
    return {tensor._keras_history.layer.name for tensor in model.outputs}


def _lowered_copy(model: tf.keras.Model, *, makes_outputs: bool) -> tf.keras.Model:
    outputs = _outputs(model) if makes_outputs else set()

    def copy(layer: tf.keras.layers.Layer) -> tf.keras.layers.Layer:
        if isinstance(layer, tf.keras.Model):
            return _lowered_copy(layer, makes_outputs=layer.name in outputs)
        config = layer.get_config()
        # A layer that has a policy of its own keeps it.
        is_float32 = layer.dtype_policy.name == "float32"
        if is_float32 and layer.name not in outputs and not isinstance(layer, _NORMALIZATIONS):
            config["dtype"] = "mixed_bfloat16"
        return layer.from_config(config)

    return tf.keras.models.clone_model(model, clone_function=copy)


def in_bfloat16(stateless: StatelessModel) -> StatelessModel:
    """Returns a model that computes in bfloat16 and takes the same float32 weights.

    Normalizations and the layers that make the outputs go on computing in float32.

    Args:
      stateless: The model.
    """
    return StatelessModel(_lowered_copy(stateless.model, makes_outputs=True))

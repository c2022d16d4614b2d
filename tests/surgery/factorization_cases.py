"""One model for each kind of layer that can be factorized."""

import numpy as np
import pruning_models
import tensorflow as tf

from tff_autoprune import surgery
from tff_autoprune.surgery.decomposition import KINDS

L = tf.keras.layers


def single(layer, shape):
    """Returns a model of one layer 'own' between an input and a reader."""
    i = L.Input(shape)
    x = L.ReLU()(layer(i))
    return pruning_models.randomized(tf.keras.Model(i, L.Dense(3, name="head")(L.Flatten()(x))))


LAYERS = {
    "conv1d": (lambda: L.Conv1D(7, 3, name="own"), (9, 4)),
    "conv1d_causal": (lambda: L.Conv1D(7, 3, padding="causal", name="own"), (9, 4)),
    "conv1d_strided": (lambda: L.Conv1D(7, 3, 2, padding="same", name="own"), (9, 4)),
    "conv1d_dilated": (lambda: L.Conv1D(7, 3, dilation_rate=2, name="own"), (9, 4)),
    "conv2d": (lambda: L.Conv2D(7, 3, name="own"), (8, 9, 4)),
    "conv2d_same": (lambda: L.Conv2D(7, (3, 5), padding="same", name="own"), (8, 9, 4)),
    "conv2d_strided": (lambda: L.Conv2D(7, 3, 2, "same", name="own"), (8, 9, 4)),
    "conv2d_strides": (lambda: L.Conv2D(7, (4, 3), (2, 3), "same", name="own"), (8, 9, 4)),
    "conv2d_valid": (lambda: L.Conv2D(7, (4, 3), (2, 3), name="own"), (8, 9, 4)),
    "conv2d_dilated": (lambda: L.Conv2D(7, 3, dilation_rate=(2, 2), name="own"), (8, 9, 4)),
    "conv2d_dilated_same": (
        lambda: L.Conv2D(7, 3, dilation_rate=(1, 3), padding="same", name="own"),
        (8, 9, 4),
    ),
    "conv2d_1x1": (lambda: L.Conv2D(7, 1, name="own"), (8, 9, 4)),
    "conv2d_7x1": (lambda: L.Conv2D(7, (3, 1), padding="same", name="own"), (8, 9, 4)),
    "conv2d_gray": (lambda: L.Conv2D(7, 5, activation="tanh", name="own"), (8, 9, 1)),
    "conv2d_no_bias": (lambda: L.Conv2D(7, 3, use_bias=False, name="own"), (8, 9, 4)),
    "conv3d": (lambda: L.Conv3D(5, 3, name="own"), (5, 5, 6, 3)),
    "conv3d_same": (lambda: L.Conv3D(5, (3, 2, 3), (1, 2, 1), "same", name="own"), (5, 5, 6, 3)),
    "conv1d_transposed": (lambda: L.Conv1DTranspose(7, 3, 2, name="own"), (6, 4)),
    "conv2d_transposed": (lambda: L.Conv2DTranspose(7, 3, 2, "same", name="own"), (4, 5, 4)),
    "conv2d_transposed_valid": (lambda: L.Conv2DTranspose(5, (2, 3), 3, name="own"), (4, 5, 4)),
    "conv2d_transposed_padded": (
        lambda: L.Conv2DTranspose(5, 3, (2, 3), "same", output_padding=(1, 2), name="own"),
        (4, 5, 4),
    ),
    "conv3d_transposed": (lambda: L.Conv3DTranspose(4, 3, 2, "same", name="own"), (3, 3, 4, 3)),
    "dense": (lambda: L.Dense(7, "relu", name="own"), (5,)),
    "dense_on_images": (lambda: L.Dense(4, name="own"), (5, 5, 6)),
}


def ways():
    for name, (make, shape) in LAYERS.items():
        layer = make()
        layer.build((None, *shape))
        for kind in KINDS:
            if not surgery.refusal(layer, kind):
                yield name, kind


def inputs_of(model, number=3, seed=0):
    shape = (number, *model.input_shape[1:])
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def relative(expected, found):
    expected, found = np.asarray(expected), np.asarray(found)
    return np.abs(expected - found).max() / np.abs(expected).max()

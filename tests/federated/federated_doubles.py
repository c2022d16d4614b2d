"""Small clients and models."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess

import numpy as np
import tensorflow as tf

from tff_autoprune import federated

IMAGE_SHAPE = (8, 8, 1)
NUM_CLASSES = 4


def make_arrays(count, *, seed, image_shape=IMAGE_SHAPE, num_classes=NUM_CLASSES):
    """Noise whose brightness tells the class."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, num_classes, count).astype(np.int32)
    noise = generator.random((count, *image_shape))
    images = 0.3 * noise + 0.7 * labels[:, None, None, None] / num_classes
    return images.astype(np.float32), labels


def make_datasets(sizes, *, batch_size=8, **shape):
    return [
        tf.data.Dataset.from_tensor_slices(make_arrays(size, seed=i, **shape)).batch(batch_size)
        for i, size in enumerate(sizes)
    ]


def make_model(
    filters=(4, 6), *, normalization=None, softmax=False, seed=0, image_shape=IMAGE_SHAPE
):
    tf.keras.utils.set_random_seed(seed)
    inputs = x = tf.keras.Input(image_shape)
    for width in filters:
        x = tf.keras.layers.Conv2D(width, 3)(x)
        if normalization == "batch":
            x = tf.keras.layers.BatchNormalization(momentum=0.5)(x)
        x = tf.keras.layers.ReLU()(x)
    x = tf.keras.layers.GlobalAveragePooling2D()(x)
    outputs = tf.keras.layers.Dense(NUM_CLASSES, activation="softmax" if softmax else None)(x)
    return tf.keras.Model(inputs, outputs)


def weights_of(state):
    weights = state.global_model_weights
    return [np.asarray(w) for w in (*weights.trainable, *weights.non_trainable)]


def assert_same_bits(left, right):
    assert len(left) == len(right)
    for a, b in zip(left, right):
        assert a.dtype == b.dtype and a.tobytes() == b.tobytes()


def few_clients(aggregator=None, **fields):
    """Settings that let a single client be summed, as small tests want."""
    aggregator = aggregator or federated.AggregatorSettings()
    return federated.Settings(aggregator=dataclasses.replace(aggregator, min_clients=1), **fields)


def stop_workers():
    """Ends what TFF's own runtime leaves running; it holds on to the output of the tests."""
    listed = subprocess.run(
        ["pgrep", "-P", str(os.getpid()), "-f", "worker_binary"],
        capture_output=True,
        text=True,
        check=False,
    )
    for worker in listed.stdout.split():
        os.kill(int(worker), signal.SIGKILL)

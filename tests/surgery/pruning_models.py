"""Small models of the families that the project trains, with random weights."""

import numpy as np
import tensorflow as tf

L = tf.keras.layers


def randomized(model, seed=0):
    generator = np.random.default_rng(seed)
    for weight in model.weights:
        positive = "variance" in weight.name
        weight.assign(
            generator.uniform(0.5, 1.5, weight.shape)
            if positive
            else generator.normal(0, 0.3, weight.shape)
        )
    return model


def cnn():
    return randomized(
        tf.keras.Sequential(
            [
                L.Input((28, 28, 1)),
                L.Conv2D(32, 5, name="conv_1"),
                L.ReLU(),
                L.MaxPool2D(),
                L.Conv2D(64, 5, name="conv_2"),
                L.ReLU(),
                L.MaxPool2D(),
                L.GlobalAveragePooling2D(),
                L.Dense(62, name="head"),
            ]
        )
    )


def cnn_with_flatten():
    return randomized(
        tf.keras.Sequential(
            [
                L.Input((16, 16, 3)),
                L.Conv2D(8, 5, padding="same", activation="relu", name="conv_1"),
                L.MaxPool2D(),
                L.Flatten(),
                L.Dense(2, name="head"),
            ]
        )
    )


def resnet(norm="batch"):
    def normalize(name):
        if norm == "batch":
            return L.BatchNormalization(name=name)
        return L.GroupNormalization(4, name=name)

    i = L.Input((16, 16, 3))
    x = L.Conv2D(16, 3, 2, "same", name="stem")(i)
    x = L.ReLU()(normalize("stem_norm")(x))
    y = L.ReLU()(normalize("norm_1")(L.Conv2D(32, 3, 2, "same", name="conv_1")(x)))
    y = normalize("norm_2")(L.Conv2D(16, 3, padding="same", name="conv_2")(y))
    s = normalize("norm_s")(L.Conv2D(16, 1, 2, "same", name="shortcut")(x))
    x = L.ReLU()(L.Add()([y, s]))
    return randomized(tf.keras.Model(i, L.Dense(2, name="head")(L.Flatten()(x))))


def inception():
    x = i = L.Input((16, 16, 1))
    x = L.Conv2D(32, 3, 2, activation="relu", name="stem")(x)
    branches = [
        L.Conv2D(f, k, padding="same", activation="relu", name=f"branch_{k}")(x)
        for k, f in ((1, 8), (3, 6), (5, 4))
    ]
    x = L.Conv2D(16, 3, 2, name="conv")(L.Concatenate()(branches))
    x = L.Dense(10, "relu", name="dense")(L.GlobalAveragePooling2D()(x))
    return randomized(tf.keras.Model(i, L.Dense(5, name="head")(x)))

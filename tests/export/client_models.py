"""Small models of every kind that a client must train."""

import tensorflow as tf

from tff_autoprune import models

L = tf.keras.layers


def _built_in(name, **options):
    shape = {"cnn": (28, 28, 1), "inception": (28, 28, 1), "resnet": (32, 32, 3)}[name]
    return lambda: models.build(name, input_shape=shape, num_classes=10, seed=1, **options)


def mobile():
    """What MobileNetV2 is made of, with all its kinds of padding and one residual block."""
    tf.keras.utils.set_random_seed(1)
    image = L.Input((17, 16, 3))
    x = L.Conv2D(8, 3, 2, "same", use_bias=False, name="stem")(image)
    x = skip = L.ReLU(6.0)(L.BatchNormalization(name="stem_norm")(x))
    for number, stride in ((1, 1), (2, 2)):
        x = L.ReLU(6.0)(L.BatchNormalization()(L.Conv2D(16, 1, use_bias=False)(x)))
        if stride == 2:
            x = L.ZeroPadding2D(((0, 1), (1, 1)))(x)
        padding = "valid" if stride == 2 else "same"
        x = L.DepthwiseConv2D(3, stride, padding, use_bias=False, name=f"depthwise_{number}")(x)
        x = L.ReLU(6.0)(L.BatchNormalization()(x))
        x = L.BatchNormalization()(L.Conv2D(8, 1, use_bias=False)(x))
        if stride == 1:
            x = L.Add()([x, skip])
    return tf.keras.Model(image, L.Dense(10)(L.GlobalAveragePooling2D()(x)), name="mobile")


def factorized():
    """A network whose convolutions are pairs of kx1 and 1xk, as factorization leaves them."""
    tf.keras.utils.set_random_seed(1)
    image = x = L.Input((14, 14, 2))
    for number in (1, 2):
        x = L.Conv2D(3, (5, 1), padding="same", use_bias=False, name=f"conv_{number}_vertical")(x)
        x = L.Conv2D(6, (1, 5), padding="valid", activation="relu", name=f"conv_{number}")(x)
        x = L.MaxPooling2D((2, 1))(x)
    return tf.keras.Model(image, L.Dense(10)(L.Flatten()(x)), name="factorized")


def assorted():
    """Further layers that users have: dilation, other poolings, norms and activations."""
    tf.keras.utils.set_random_seed(1)
    image = L.Input((13, 12, 2))
    x = L.SeparableConv2D(6, 3, depth_multiplier=2, activation="swish")(image)
    x = L.AveragePooling2D(3, 2, "same")(x)
    x = L.LayerNormalization()(x)
    x = L.Conv2D(6, 3, dilation_rate=2, padding="same")(x)
    x = L.LeakyReLU()(L.GroupNormalization(3)(x))
    y = L.MaxPooling2D(3, 2, "same")(x)
    y = L.Concatenate()([L.Flatten()(y), L.GlobalMaxPooling2D()(x)])
    y = L.Dense(7, "elu")(y)
    y = L.Dense(7, "tanh")(L.Dense(7, "sigmoid")(y))
    return tf.keras.Model(image, L.Dense(10, "softmax")(y), name="assorted")


MODELS = {
    "cnn": _built_in("cnn", filters=(8, 12)),
    "pruned_cnn": _built_in("cnn", filters=(3, 7)),
    "resnet_batch_norm": _built_in("resnet", filters=(8, 16)),
    "resnet_group_norm": _built_in("resnet", filters=(8, 16), normalization="group"),
    "inception": _built_in("inception", filters=(8, 4, 4, 4, 4, 4, 4, 8, 8)),
    "mobile": mobile,
    "factorized": factorized,
    "assorted": assorted,
}

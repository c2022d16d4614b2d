"""One small model for each way in which channels meet, with what is known of its groups."""

import numpy as np
import pruning_models
import tensorflow as tf

L = tf.keras.layers
CASES = {}


def case(**prunable):
    """Registers a model; `prunable` are the channels of prunable groups, 0 for a fixed one."""

    def register(function):
        CASES[function.__name__.strip("_")] = (function, prunable)
        return function

    return register


def conv(number, size=1, **kwargs):
    return L.Conv2D(number, size, padding="same", **kwargs)


def build(name):
    """Returns the model: a convolution 'a' of 8 filters, the case, a convolution 'z', Flatten."""
    tf.keras.utils.set_random_seed(1)
    i = L.Input((8, 8, 3))
    y = CASES[name][0](conv(8, 3, name="a")(i), i)
    model = tf.keras.Model(i, L.Flatten()(conv(5, 3, name="z")(y)))
    return pruning_models.randomized(model, seed=1)


def sequence(x):
    return L.Reshape((64, x.shape[-1]))(x)


def image(x):
    return x[:, None]


@case(a=8)
def _relu(x, i):
    return tf.nn.relu(x)


@case(a=8)
def _add_constant_per_channel(x, i):
    return np.arange(8.0, dtype=np.float32) + x


@case(a=8)
def _clip_by_constant_per_channel(x, i):
    return tf.clip_by_value(x, -1.0, np.arange(8.0, dtype=np.float32))


@case(a=8)
def _residual(x, i):
    return x + conv(8, 3, name="b")(x)


@case(a=8, b=0)
def _added_to_the_input(x, i):
    return conv(3, name="b")(x) + i


@case(a=8, b=3)
def _squeeze_and_excite(x, i):
    s = L.GlobalAveragePooling2D(keepdims=True)(x)
    s = conv(8, name="c", activation="sigmoid")(conv(3, name="b", activation="relu")(s))
    return L.Multiply()([x, s])


@case(a=8, b=0)
def _spatial_mask(x, i):
    return x * conv(1, name="b", activation="sigmoid")(x)


@case(a=8, b=6)
def _concatenate(x, i):
    return L.Concatenate()([x, conv(6, name="b")(i), i])


@case(a=8)
def _concatenate_in_space(x, i):
    return L.Concatenate(axis=1)([x, conv(8, name="b")(i)])


@case(b=4, c=4, **{"a#1": 4, "a#2": 4})
def _split_in_halves(x, i):
    first, second = tf.split(x, 2, axis=-1)
    return tf.concat([conv(4, name="b")(first), conv(4, name="c")(second)], -1)


@case(b=4, **{"a#1": 4, "a#2": 4})
def _split_and_keep_a_half(x, i):
    first, second = tf.split(x, [4, 4], axis=-1)
    return tf.concat([first, conv(4, name="b")(second)], -1)


@case(**{"a#1": 4, "a#2": 4})
def _slice(x, i):
    return x[:, 1:, :, 2:6]


@case(**{"a#1": 5, "a#2": 3})
def _gather(x, i):
    return tf.gather(x, [1, 5, 2, 2], axis=-1)


@case(**{"a#1": 7, "a#2": 0})
def _single_channel(x, i):
    return tf.expand_dims(x[..., 3], -1)


@case(a=4)
def _channel_shuffle(x, i):
    y = tf.reshape(x, [-1, 8, 8, 2, 4])
    return tf.reshape(tf.transpose(y, [0, 1, 2, 4, 3]), [-1, 8, 8, 8])


@case(a=2)
def _depth_to_space(x, i):
    return tf.nn.depth_to_space(x, 2)


@case(a=8)
def _space_to_depth(x, i):
    return tf.nn.space_to_depth(x, 2)


@case(a=8)
def _pad_channels(x, i):
    return tf.pad(x, [[0, 0], [1, 1], [0, 0], [0, 4]])


@case(a=8)
def _tile_channels(x, i):
    return tf.tile(x, [1, 1, 1, 2])


@case(a=8)
def _transposed_and_back(x, i):
    return tf.transpose(tf.nn.relu(tf.transpose(x, [0, 3, 1, 2])), [0, 2, 3, 1])


@case(a=8)
def _stack(x, i):
    return tf.reduce_max(tf.stack([x, conv(8, name="b")(i)], -1), -1)


@case(a=0)
def _mean_over_channels(x, i):
    return x * tf.reduce_mean(x, -1, keepdims=True)


@case(a=0)
def _softmax(x, i):
    return tf.nn.softmax(x)


@case(a=8, b=0)
def _softmax_as_activation(x, i):
    return conv(8, name="b", activation="softmax")(x)


@case(a=8, b=0)
def _layer_normalization(x, i):
    return L.LayerNormalization()(conv(8, name="b")(x))


@case(a=8)
def _layer_normalization_over_space(x, i):
    return L.LayerNormalization(axis=[1, 2])(x)


@case(a=4)
def _group_normalization(x, i):
    return L.GroupNormalization(4)(x)


@case(a=8)
def _synchronized_batch_normalization(x, i):
    return L.experimental.SyncBatchNormalization()(x)


@case(a=8, b=0)
def _layer_as_activation(x, i):
    return conv(8, name="b", activation=L.PReLU())(L.Conv2D(8, 1, activation=L.ReLU())(x))


@case(a=8)
def _constant_normalization(x, i):
    return L.Normalization(mean=np.arange(8.0), variance=np.arange(1.0, 9.0))(x)


@case(a=4)
def _grouped_convolution(x, i):
    return conv(12, 3, groups=4, name="b")(x)


@case(b=3)
def _grouped_convolution_of_the_input(x, i):
    return conv(9, groups=3, name="b")(i)


@case(a=8)
def _depthwise_with_multiplier(x, i):
    return L.DepthwiseConv2D(3, depth_multiplier=3)(x)


@case(a=8, b=7)
def _separable(x, i):
    return L.SeparableConv2D(7, 3, depth_multiplier=2, name="b")(x)


@case(a=8, b=7)
def _transposed_convolution(x, i):
    return L.Conv2DTranspose(7, 3, strides=2, name="b")(x)


@case(a=8)
def _prelu(x, i):
    return L.PReLU(shared_axes=[1, 2])(L.PReLU()(x))


@case(a=8, b=6)
def _decoder(x, i):
    return L.Reshape((4, 4, 6))(L.Dense(96, name="b")(L.Flatten()(x)))


@case(a=8)
def _size_of_space(x, i):
    return tf.reshape(x, [tf.shape(x)[0], 64, 1, 8])


@case(a=0)
def _size_of_channels(x, i):
    return x / tf.cast(tf.shape(x)[-1], tf.float32)


@case(a=8)
def _tile_by_computed_sizes(x, i):
    mean, size = tf.reduce_mean(x, [1, 2], keepdims=True), tf.shape(x)
    return x * tf.tile(mean, [1, size[1], size[2], 1])


@case(a=8, b=6)
def _resize_to_a_computed_size(x, i):
    y = tf.image.resize(conv(6, 3, strides=2, name="b")(x), tf.shape(x)[1:3])
    return tf.concat([x, tf.ensure_shape(y, [None, 8, 8, 6])], -1)


@case(a=8)
def _cut_and_padded_by_computed_sizes(x, i):
    size = tf.shape(x)[1] // 4
    y = tf.slice(x, [0, size, 0, 0], [-1, 8 - size, 8, 8])
    y = tf.pad(y, tf.stack([[0, 0], [size, 0], [0, 0], [0, 0]]))
    return tf.ensure_shape(y, [None, 8, 8, 8])


@case(a=8)
def _reshaped_with_its_own_sizes(x, i):
    size = tf.shape(x)
    y = tf.nn.relu(tf.reshape(x, [size[0], size[1] * size[2], size[3]]))
    return tf.reshape(y, size)


@case(a=8)
def _reshaped_like_another(x, i):
    y = sequence(conv(8, name="b")(i))
    return tf.ensure_shape(tf.reshape(y, tf.shape(x)), [None, 8, 8, 8])


@case(a=0)
def _computed_number_of_channels(x, i):
    return tf.ensure_shape(x[..., : tf.shape(x)[-1] // 2], [None, 8, 8, 4])


@case(a=0)
def _unknown_layer(x, i):
    return L.Lambda(lambda t: 2 * t)(x)


@case(c=8, b=5)
def _shared_layer(x, i):
    layer = conv(5, name="b")
    return layer(x) * layer(conv(8, name="c")(i))


@case(a=8, c=0, b=5)
def _shared_with_the_input(x, i):
    layer = conv(5, name="b")
    return layer(i) + layer(conv(3, name="c")(x))


@case(a=8, **{"b/c": 6, "b/d": 7})
def _nested_model(x, i):
    inner = [L.InputLayer((8, 8, 8)), conv(6, name="c"), L.BatchNormalization(), conv(7, name="d")]
    return tf.keras.Sequential(inner, name="b")(x)


@case(a=8)
def _nested_with_named_inputs(x, i):
    p, q = L.Input((8, 8, 8), name="p"), L.Input((8, 8, 3), name="q")
    inner = tf.keras.Model({"q": q, "p": p}, L.Add()([p, conv(8)(q)]))
    return inner({"p": x, "q": i})


@case(c=8)
def _nested_called_twice(x, i):
    inner = tf.keras.Sequential([L.InputLayer((8, 8, 8)), L.ReLU()])
    return inner(x) + conv(8, name="z2")(inner(conv(8, name="c")(i)))


@case(a=8, **{"b/query": 4, "b/attention_output": 6})
def _multi_head_attention(x, i):
    other = sequence(conv(8, name="c")(i))
    return image(L.MultiHeadAttention(4, 3, output_shape=6, name="b")(sequence(x), other))


@case(a=8, **{"b/query": 4})
def _attention_residual(x, i):
    t = sequence(x)
    return image(t + L.MultiHeadAttention(4, 3, name="b")(t, t))


@case(a=8, b=6)
def _lstm(x, i):
    return image(L.LSTM(6, return_sequences=True, name="b")(sequence(x)))


@case(a=8, b=6)
def _gru(x, i):
    return image(L.GRU(6, return_sequences=True, name="b")(sequence(x)))


@case(a=8, **{"b/forward_lstm": 6})
def _bidirectional(x, i):
    inner = L.LSTM(6, return_sequences=True, name="lstm")
    return image(L.Bidirectional(inner, name="b")(sequence(x)))


@case(a=8, **{"b/forward_lstm": 6, "b/backward_gru": 4})
def _bidirectional_of_two(x, i):
    forward = L.LSTM(6, "softsign", return_sequences=True, name="lstm")
    backward = L.GRU(4, "softsign", return_sequences=True, go_backwards=True, name="gru")
    return image(L.Bidirectional(forward, backward_layer=backward, name="b")(sequence(x)))


@case(a=8, b=4)
def _fused_attention(x, i):
    y = tf.reshape(L.Dense(24, name="b")(sequence(x)), [-1, 64, 3, 4, 2])
    query, key, value = tf.unstack(tf.transpose(y, [2, 0, 3, 1, 4]))
    y = tf.matmul(tf.nn.softmax(tf.matmul(query, key, transpose_b=True)), value)
    return image(tf.reshape(tf.transpose(y, [0, 2, 1, 3]), [-1, 64, 8]))


@case(c=4, d=4)
def _groups_shuffled(x, i):
    # Whole groups cannot go; the same places of all groups can.
    x = conv(8, name="c")(i)
    y = L.Reshape((8, 8, 2, 4))(conv(8, groups=2, name="b")(x))
    y = conv(8, groups=2, name="d")(L.Reshape((8, 8, 8))(L.Permute((1, 2, 4, 3))(y)))
    return tf.concat([x, y], -1)


@case(a=8)
def _renormalized(x, i):
    return L.BatchNormalization(renorm=True)(x)


@case(a=8)
def _virtual_batches(x, i):
    return L.BatchNormalization(virtual_batch_size=1, fused=False)(x)


@case(a=8, b=6)
def _values_from_an_array(x, i):
    kernel = np.linspace(0, 1, 48).reshape(1, 1, 8, 6)
    return conv(6, name="b", kernel_initializer=tf.keras.initializers.Constant(kernel))(x)


@case(a=8, b=6)
def _shared_kernel(x, i):
    first, second = (conv(6, name=name, activation=f) for name, f in (("b", "tanh"), ("c", None)))
    y = first(x) + second(x)
    second.kernel = first.kernel
    return y


@case(a=8, **{"b/c": 5})
def _time_distributed(x, i):
    return L.TimeDistributed(L.Conv1D(5, 3, name="c"), name="b")(x)


@case(a=8, **{"b/c/d": 5})
def _time_distributed_model(x, i):
    inner = tf.keras.Sequential([L.Conv1D(5, 3, name="d"), L.BatchNormalization()], name="c")
    return L.TimeDistributed(inner, name="b")(x)


@case(a=8, b=6)
def _einsum_dense(x, i):
    return L.EinsumDense("abcd,de->abce", (None, None, 6), bias_axes="e", name="b")(x)


@case(a=8, b=5)
def _dot_over_space(x, i):
    return image(L.Dot((1, 1))([sequence(i), L.Conv1D(5, 1, name="b")(sequence(x))]))


@case(a=0)
def _dot_over_channels(x, i):
    return image(L.Dot((2, 2))([sequence(x), sequence(x)]))

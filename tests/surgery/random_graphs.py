"""Builds a Keras model from a list of plain numbers, so that hypothesis can draw and shrink it.

A step is (operation, a, b, c). `a` and `b` choose operands among the tensors made so far and `c` is
a parameter; a step that has no fitting operand is left out. Whatever no other step reads becomes an
output of the model behind a dense layer.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

L = tf.keras.layers
OPERATIONS = {}

Step = tuple  # (name, a, b, c)


def operation(function):
    OPERATIONS[function.__name__.strip("_")] = function
    return function


class Graph:
    """Tensors made so far."""

    def __init__(self, channels):
        self.inputs = [tf.keras.Input((6, 6, channels))]
        first = L.Conv2D(6, 3, padding="same", name="first")(self.inputs[0])
        self.tensors = [*self.inputs, first]
        self.used = {id(self.inputs[0])}
        self.shared = {}

    def pick(self, rank, a, like=None, check=None):
        fitting = [
            x
            for x in self.tensors
            if (rank is None or x.shape.rank == rank)
            and (like is None or x.shape.as_list() == like.shape.as_list())
            and (check is None or check(x))
        ]
        if not fitting and like is None and check is None:
            return self.convert(rank, a)
        return fitting[a % len(fitting)] if fitting else None

    def convert(self, rank, a):
        """Makes a sequence or a vector of an image, so that layers that need one find one."""
        images = [x for x in self.tensors if x.shape.rank == 4]
        if rank not in (2, 3) or not images:
            return None
        x = images[a % len(images)]
        layer = L.GlobalAveragePooling2D() if rank == 2 else L.Reshape((-1, x.shape[-1]))
        self.use(x)
        self.tensors.append(layer(x))
        return self.tensors[-1]

    def use(self, *tensors):
        self.used.update(id(x) for x in tensors)


def build(steps, channels=3, applied=None):
    """Returns the model; the names of the operations that took part are added to `applied`."""
    graph = Graph(channels)
    for name, a, b, c in steps:
        made = OPERATIONS[name](graph, a, b, c)
        if made is not None:
            if applied is not None:
                applied.append(name)
            *operands, result = made
            graph.use(*operands)
            results = result if isinstance(result, list) else [result]
            graph.tensors.extend(x for x in results if np.prod(x.shape[1:]) <= 2000)
    leaves = [x for x in graph.tensors if id(x) not in graph.used]
    outputs = []
    for number, x in enumerate(leaves[-2:]):
        if x.shape.rank == 4 and number % 2:
            x = L.GlobalAveragePooling2D()(x)
        outputs.append(L.Dense(2, name=f"head_{number}")(L.Flatten()(x)))
    return tf.keras.Model(graph.inputs, outputs)


def randomize(model, generator):
    for weight in model.weights:
        positive = weight.name.split("/")[-1].startswith(("gamma", "moving_variance", "variance"))
        values = (
            generator.uniform(0.5, 1.5, weight.shape)
            if positive
            else generator.normal(0, 1 / np.sqrt(max(1, np.prod(weight.shape[:-1]))), weight.shape)
            + generator.normal(0, 0.1, weight.shape)
        )
        weight.assign(values)


def _filters(c):
    return 2 + c % 7


def _activation(c):
    return [None, "relu", "tanh", "swish", "gelu", "sigmoid", "elu", "softmax"][c % 8]


def _divisor(number, c):
    divisors = [d for d in range(2, number + 1) if number % d == 0]
    return divisors[c % len(divisors)] if divisors else None


def _one(graph, rank, a, make):
    x = graph.pick(rank, a)
    return None if x is None else (x, make(x))


# -- Convolutions ----------------------------------------------------------------------------------


@operation
def conv2d(g, a, b, c):
    layer = L.Conv2D(
        _filters(c), 1 + 2 * (b % 2), padding="same", strides=1 + (c % 5 == 0),
        activation=_activation(b), use_bias=c % 3 > 0,
    )  # fmt: skip
    return _one(g, 4, a, layer)


@operation
def conv2d_grouped(g, a, b, c):
    x = g.pick(4, a, check=lambda x: _divisor(x.shape[-1], b))
    if x is None:
        return None
    groups = _divisor(x.shape[-1], b)
    return x, L.Conv2D(groups * (1 + c % 3), 3, padding="same", groups=groups)(x)


@operation
def conv2d_transpose(g, a, b, c):
    return _one(g, 4, a, L.Conv2DTranspose(_filters(c), 2, strides=1, padding="same"))


@operation
def depthwise(g, a, b, c):
    return _one(g, 4, a, L.DepthwiseConv2D(3, padding="same", depth_multiplier=1 + b % 3))


@operation
def separable(g, a, b, c):
    layer = L.SeparableConv2D(_filters(c), 3, padding="same", depth_multiplier=1 + b % 2)
    return _one(g, 4, a, layer)


@operation
def conv1d(g, a, b, c):
    return _one(g, 3, a, L.Conv1D(_filters(c), 2, padding=["same", "causal"][b % 2]))


@operation
def conv1d_family(g, a, b, c):
    layers = [
        lambda: L.Conv1DTranspose(_filters(c), 2, padding="same"),
        lambda: L.SeparableConv1D(_filters(c), 2, padding="same"),
        lambda: L.DepthwiseConv1D(2, padding="same", depth_multiplier=1 + c % 2),
    ]
    return _one(g, 3, a, layers[b % 3]())


@operation
def conv3d(g, a, b, c):
    x = g.pick(4, a, check=lambda x: x.shape[1] % 2 == 0)
    if x is None:
        return None
    h, w, n = x.shape[1:]
    y = L.Conv3D(_filters(c), 2, padding="same")(L.Reshape((2, h // 2, w, n))(x))
    if b % 2:
        y = L.Conv3DTranspose(_filters(b), 2, padding="same")(y)
    y = [L.MaxPooling3D((2, 1, 1)), L.AveragePooling3D((2, 1, 1))][c % 2](L.BatchNormalization()(y))
    return x, L.Reshape(tuple(y.shape[2:]))(y)


# -- Dense and recurrent ---------------------------------------------------------------------------


@operation
def dense(g, a, b, c):
    return _one(g, None, a, L.Dense(_filters(c), activation=_activation(b)))


@operation
def einsum_dense(g, a, b, c):
    if b % 2:
        layer = L.EinsumDense("abc,cd->abd", (None, _filters(c)), bias_axes="d")
        return _one(g, 3, a, layer)
    x = g.pick(3, a)
    if x is None:
        return None
    heads = 1 + c % 3
    y = L.EinsumDense("abc,cde->abde", (None, heads, _filters(b)), bias_axes="de")(x)
    return x, L.EinsumDense("abde,def->abf", (None, _filters(c)))(y)


# With any activation but tanh Keras does not build a second, fused kernel, which takes several
# times as long as the rest of a small graph; the fixed cases in graph_cases.py have tanh.
_FAST = "softsign"


@operation
def lstm(g, a, b, c):
    cls = [L.LSTM, L.GRU, L.SimpleRNN][b % 3]
    return _one(g, 3, a, cls(_filters(c), activation=_FAST, return_sequences=c % 2 > 0))


@operation
def bidirectional(g, a, b, c):
    inner = [L.LSTM, L.GRU][b % 2](_filters(c), activation=_FAST, return_sequences=True)
    return _one(g, 3, a, L.Bidirectional(inner, merge_mode=["concat", "sum", "mul"][c % 3]))


@operation
def lstm_with_state(g, a, b, c):
    x, state = g.pick(3, a), g.pick(2, b)
    if x is None or state is None:
        return None
    return x, state, L.GRU(state.shape[-1], _FAST, return_sequences=True)(x, initial_state=state)


@operation
def multi_head_attention(g, a, b, c):
    x, y = g.pick(3, a), g.pick(3, b)
    if x is None:
        return None
    return x, y, L.MultiHeadAttention(1 + c % 4, 2, value_dim=1 + c % 3)(x, y)


@operation
def attention(g, a, b, c):
    x = g.pick(3, a)
    y = g.pick(3, b, check=lambda y: x is not None and y.shape[-1] == x.shape[-1])
    if x is None or y is None:
        return None
    return x, y, [L.Attention, L.AdditiveAttention][c % 2]()([x, y])


# -- Normalization and activation ------------------------------------------------------------------


@operation
def batch_normalization(g, a, b, c):
    return _one(g, None, a, L.BatchNormalization(scale=b % 3 > 0, center=c % 3 > 0))


@operation
def group_normalization(g, a, b, c):
    x = g.pick(4, a)
    groups = _divisor(x.shape[-1], b) or 1
    return x, L.GroupNormalization(groups if c % 4 else -1)(x)


@operation
def other_normalization(g, a, b, c):
    makers = [
        lambda x: L.LayerNormalization(),
        lambda x: L.UnitNormalization(),
        lambda x: L.LayerNormalization(axis=1),
        lambda x: L.Normalization(
            mean=np.arange(x.shape[-1]) / 9.0, variance=np.arange(1.0, 1 + x.shape[-1])
        ),
        lambda x: L.Rescaling(np.linspace(0.5, 1, x.shape[-1]).tolist(), 0.1),
    ]
    x = g.pick(None, a)
    return x, makers[b % len(makers)](x)(x)


@operation
def activation_layer(g, a, b, c):
    makers = [
        lambda: L.ReLU(6.0),
        lambda: L.LeakyReLU(),
        lambda: L.ELU(),
        lambda: L.ThresholdedReLU(0.1),
        lambda: L.Softmax(),
        lambda: L.Softmax(axis=1),
        lambda: L.PReLU(),
        lambda: L.Activation(_activation(c)),
        lambda: L.Activation(tf.nn.relu6),
    ]
    return _one(g, None, a, makers[b % len(makers)]())


@operation
def prelu_shared(g, a, b, c):
    return _one(g, 4, a, L.PReLU(shared_axes=[[1, 2], [1], [3], [1, 2, 3]][b % 4]))


@operation
def noise(g, a, b, c):
    makers = [
        lambda: L.Dropout(0.5),
        lambda: L.GaussianNoise(0.1),
        lambda: L.AlphaDropout(0.1),
        lambda: L.GaussianDropout(0.1),
        lambda: L.ActivityRegularization(0.1),
    ]
    return _one(g, None, a, makers[b % len(makers)]())


# -- Space -----------------------------------------------------------------------------------------


@operation
def spatial2d(g, a, b, c):
    makers = [
        lambda: L.MaxPooling2D(2, 1, padding="same"),
        lambda: L.AveragePooling2D(2, padding="same"),
        lambda: L.UpSampling2D(2, interpolation="bilinear"),
        lambda: L.ZeroPadding2D(((1, 0), (0, 1))),
        lambda: L.Cropping2D(((0, 0), (0, 1))),
        lambda: L.SpatialDropout2D(0.1),
        lambda: L.Resizing(5, 4),
    ]
    x = g.pick(4, a, check=lambda x: x.shape[1] > 1 and x.shape[2] > 1)
    return None if x is None else (x, makers[b % len(makers)]()(x))


@operation
def spatial1d(g, a, b, c):
    makers = [
        lambda: L.MaxPooling1D(2, 1, padding="same"),
        lambda: L.AveragePooling1D(2, padding="same"),
        lambda: L.UpSampling1D(2),
        lambda: L.ZeroPadding1D(1),
        lambda: L.SpatialDropout1D(0.1),
    ]
    return _one(g, 3, a, makers[b % len(makers)]())


@operation
def global_pooling(g, a, b, c):
    cls = [L.GlobalAveragePooling2D, L.GlobalMaxPooling2D][b % 2]
    return _one(g, 4, a, cls(keepdims=c % 2 > 0))


@operation
def squeeze_excite(g, a, b, c):
    x = g.pick(4, a)
    n = x.shape[-1]
    s = L.GlobalAveragePooling2D(keepdims=True)(x)
    s = L.Conv2D(_filters(b), 1, activation="relu")(s)
    s = L.Conv2D(n, 1, activation="sigmoid")(s)
    return x, L.Multiply()([x, s] if c % 2 else [s, x])


# -- Shape -----------------------------------------------------------------------------------------


@operation
def flatten(g, a, b, c):
    return _one(g, None, a, L.Flatten())


@operation
def to_sequence(g, a, b, c):
    x = g.pick(4, a)
    h, w, n = x.shape[1:]
    if b % 3 == 0:
        return x, tf.reshape(x, (-1, h * w, n))
    return x, L.Reshape([(h * w, n), (h, w * n)][b % 2])(x)


@operation
def to_image(g, a, b, c):
    x = g.pick(3, a)
    if x is None:
        return None
    t, n = x.shape[1:]
    if b % 3 == 0:
        return x, x[:, None]
    return x, L.Reshape((1, t, n) if b % 3 == 1 else (t, n, 1))(x)


@operation
def vector_to_image(g, a, b, c):
    x = g.pick(2, a, check=lambda x: x.shape[-1] % 4 == 0)
    if x is None:
        return None
    return x, L.Reshape([(2, 2, x.shape[-1] // 4), (1, 1, x.shape[-1])][b % 2])(x)


@operation
def decoder(g, a, b, c):
    return _one(g, 2, a, lambda x: L.Reshape((2, 3, _filters(c)))(L.Dense(6 * _filters(c))(x)))


@operation
def repeat_vector(g, a, b, c):
    return _one(g, 2, a, L.RepeatVector(1 + b % 3))


@operation
def permute(g, a, b, c):
    x = g.pick(None, a, check=lambda x: x.shape.rank > 2)
    if x is None:
        return None
    orders = {3: [(2, 1)], 4: [(2, 1, 3), (3, 1, 2), (1, 3, 2), (3, 2, 1)]}[x.shape.rank]
    order = orders[b % len(orders)]
    return x, (tf.transpose(x, (0, *order)) if c % 2 else L.Permute(order)(x))


@operation
def permuted_and_back(g, a, b, c):
    x = g.pick(4, a)
    y = tf.nn.relu(tf.transpose(x, [0, 3, 1, 2]))
    if c % 2:
        y = L.Dense(y.shape[-1])(y)
    return x, L.Permute((2, 3, 1))(y)


@operation
def channel_shuffle(g, a, b, c):
    x = g.pick(4, a, check=lambda x: _divisor(x.shape[-1], b))
    if x is None:
        return None
    h, w, n = x.shape[1:]
    groups = _divisor(n, b)
    y = tf.reshape(x, [-1, h, w, groups, n // groups])
    return x, tf.reshape(tf.transpose(y, [0, 1, 2, 4, 3]), [-1, h, w, n])


@operation
def pixel_shuffle(g, a, b, c):
    if b % 2:
        x = g.pick(4, a, check=lambda x: x.shape[-1] % 4 == 0)
        return None if x is None else (x, tf.nn.depth_to_space(x, 2))
    x = g.pick(4, a, check=lambda x: x.shape[1] % 2 == 0 and x.shape[2] % 2 == 0)
    return None if x is None else (x, tf.nn.space_to_depth(x, 2))


# -- Several operands ------------------------------------------------------------------------------


@operation
def merge(g, a, b, c):
    x = g.pick(None, a)
    y = g.pick(None, b, like=x)
    cls = [L.Add, L.Subtract, L.Multiply, L.Average, L.Maximum, L.Minimum][c % 6]
    return x, y, cls()([x, y])


@operation
def residual(g, a, b, c):
    x = g.pick(4, a)
    y = L.Conv2D(x.shape[-1], 3, padding="same")(x)
    if b % 2:
        y = L.BatchNormalization()(y)
    return x, (L.Add()([x, y]) if c % 2 else y + x)


@operation
def merge_new_channels(g, a, b, c):
    x = g.pick(4, a)
    y = L.Conv2D(x.shape[-1], 1, padding="same")(g.inputs[0])
    if y.shape.as_list() != x.shape.as_list():
        return None
    return x, [x + y, x * y, x - y, tf.maximum(x, y), tf.stack([x, y], 1)[:, 0]][c % 5]


@operation
def spread(g, a, b, c):
    x = g.pick(4, a)
    y = L.Conv2D(1, 1, activation="sigmoid")(x) if c % 2 else tf.reduce_mean(x, [1, 2], True)
    return x, x * y


@operation
def concatenate(g, a, b, c):
    x = g.pick(None, a)
    same = lambda y: y.shape.rank == x.shape.rank and y.shape[1:-1] == x.shape[1:-1]  # noqa: E731
    y = g.pick(None, b, check=same)
    return x, y, (L.Concatenate()([x, y]) if c % 2 else tf.concat([x, y], -1))


@operation
def concatenate_space(g, a, b, c):
    x = g.pick(4, a)
    y = g.pick(4, b, check=lambda y: y.shape[2:] == x.shape[2:])
    return x, y, L.Concatenate(axis=1)([x, y])


@operation
def dot(g, a, b, c):
    x = g.pick(3, a)
    if x is None:
        return None
    y = g.pick(3, b, check=lambda y: y.shape[1] == x.shape[1])
    return x, y, (L.Dot((1, 1))([x, y]) if c % 2 else tf.matmul(x, y, transpose_a=True))


@operation
def shared_layer(g, a, b, c):
    x = g.pick(4, a)
    y = g.pick(4, b, check=lambda y: y.shape[-1] == x.shape[-1])
    layer = g.shared.setdefault(x.shape[-1], L.Conv2D(_filters(c), 1))
    return x, y, [layer(x), layer(y)]


# -- Operators -------------------------------------------------------------------------------------


@operation
def operator(g, a, b, c):
    x = g.pick(None, a)
    constant = np.linspace(0.5, 1.5, x.shape[-1]).astype(np.float32)
    makers = [
        lambda: tf.nn.relu(x),
        lambda: x + constant,
        lambda: constant * x,
        lambda: 1.0 - x,
        lambda: x / 2.0,
        lambda: tf.clip_by_value(x, -1.0, constant),
        lambda: tf.where(x > 0.0, x, 0.1 * x),
        lambda: -tf.nn.gelu(x),
        lambda: tf.nn.bias_add(x, constant),
        lambda: tf.square(tf.tanh(x)),
        lambda: tf.nn.softmax(x),
        lambda: tf.math.l2_normalize(x, -1),
        lambda: tf.identity(tf.stop_gradient(x)),
    ]
    return x, makers[b % len(makers)]()


@operation
def reduction(g, a, b, c):
    x = g.pick(4, a)
    axis = [[1, 2], 1, -1, [2], [1, 3]][b % 5]
    return x, [tf.reduce_mean, tf.reduce_max, tf.reduce_sum][c % 3](x, axis, keepdims=c % 2 > 0)


@operation
def slicing(g, a, b, c):
    x = g.pick(None, a)
    n = x.shape[-1]
    start, stop = sorted([b % n, c % n])
    stop += 1
    makers = [
        lambda: x[..., start:stop],
        lambda: x[..., -stop:],
        lambda: x[..., ::2],
        lambda: tf.gather(x, [start, stop - 1, start], axis=-1),
        lambda: tf.slice(x, [0] * (x.shape.rank - 1) + [start], [-1] * (x.shape.rank - 1) + [1]),
        lambda: tf.expand_dims(x[..., start], -1),
        lambda: tf.reverse(x, [-1]),
        lambda: tf.pad(x, [[0, 0]] * (x.shape.rank - 1) + [[start % 2, 1]]),
        lambda: tf.tile(x, [1] * (x.shape.rank - 1) + [2]),
        lambda: tf.repeat(x, 2, axis=-1),
    ]
    return x, makers[(b + c) % len(makers)]()


@operation
def split(g, a, b, c):
    x = g.pick(None, a, check=lambda x: x.shape[-1] > 1)
    if x is None:
        return None
    n = x.shape[-1]
    cut = 1 + c % (n - 1)
    sizes = [cut, n - cut] if b % 2 or n % 2 else 2
    first, second = tf.split(x, sizes, axis=-1)
    if b % 3 == 0 and x.shape.rank == 4:
        first = L.Conv2D(first.shape[-1], 1)(first)
    return x, tf.concat([first, second], -1)


@operation
def dynamic_shape(g, a, b, c):
    x = g.pick(4, a)
    h, w, n = x.shape[1:]
    if b % 2:
        return x, tf.reshape(x, [tf.shape(x)[0], h * w, n])
    return x, x / tf.cast(tf.shape(x)[-1 - c % 3], tf.float32)


def _with_shape(x, *shape):
    return tf.ensure_shape(x, (None, *shape))


@operation
def computed_sizes(g, a, b, c):
    x = g.pick(4, a)
    h, w, n = x.shape[1:]
    s, mean = tf.shape(x), tf.reduce_mean(x, [1, 2], keepdims=True)
    part = 1 + h // 2
    makers = [
        lambda: x * tf.tile(mean, [1, s[1], s[2], 1]),
        lambda: x - tf.tile(mean, tf.concat([[1], s[1:3], [1]], 0)),
        lambda: x + _with_shape(tf.broadcast_to(mean, [s[0], s[1], s[2], n]), h, w, n),
        lambda: _with_shape(tf.reshape(x, [s[0], s[1] * s[2], n]), h * w, n),
        lambda: _with_shape(tf.reshape(x, [s[0], s[1] * s[2], s[3]]), h * w, n),
        lambda: _with_shape(tf.reshape(x, [s[0], s[2], s[1], s[3] // 1]), w, h, n),
        lambda: _with_shape(tf.reshape(L.Flatten()(x), tf.shape(g.inputs[0])),
                            *g.inputs[0].shape[1:])
        if np.prod(g.inputs[0].shape[1:]) == h * w * n else tf.nn.relu(x),
        lambda: _with_shape(tf.reshape(L.Conv2D(n, 1)(x), s), h, w, n),
        lambda: _with_shape(x[:, : 1 + s[1] // 2], part, w, n),
        lambda: _with_shape(x[..., : 1 + s[3] // 2], h, w, 1 + n // 2),
        lambda: _with_shape(tf.slice(x, [0, s[1] - part, 0, 0], [-1, part, -1, n]), part, w, n),
        lambda: _with_shape(tf.pad(x, [[0, 0], [s[1] // h, 0], [0, 1], [0, 0]]), h + 1, w + 1, n),
        lambda: _with_shape(tf.pad(x, tf.stack([[0, 0], [s[1] // h] * 2, [0, 0], [0, 1]])),
                            h + 2, w, n + 1),
        lambda: _with_shape(tf.image.resize(x[:, :1], s[1:3]), h, w, n),
        lambda: _with_shape(tf.gather(x, tf.range(1 + s[1] // 2), axis=1), part, w, n),
        lambda: _with_shape(tf.repeat(x, s[1] // h + 1, axis=1 + c % 3),
                            *[size * (1 + (axis == c % 3)) for axis, size in enumerate((h, w, n))]),
        lambda: _with_shape(tf.concat([x, tf.zeros([s[0], s[1], s[2], 2])], -1), h, w, n + 2),
        lambda: x + _with_shape(tf.zeros(tf.shape(x)), h, w, n),
        lambda: _with_shape(tf.transpose(x, [0, 2, 1, tf.rank(x) - 1]), w, h, n),
        lambda: x * tf.reduce_max(x, axis=tf.rank(x) - 1 - c % 3, keepdims=True),
        lambda: _with_shape(tf.concat([x, x], tf.rank(x) - 1), h, w, 2 * n),
    ]  # fmt: skip
    return x, makers[b % len(makers)]()


# -- Nesting ---------------------------------------------------------------------------------------


@operation
def nested(g, a, b, c):
    x = g.pick(4, a)
    inner = [
        L.Conv2D(_filters(b), 1, activation="relu"),
        L.BatchNormalization(),
        L.Conv2D(_filters(c), 1),
    ]
    if b % 3 == 0:
        return x, tf.keras.Sequential(inner)(x)
    i = y = tf.keras.Input(x.shape[1:])
    for layer in inner:
        y = layer(y)
    outputs = [y, L.ReLU()(i)] if c % 2 else y
    result = tf.keras.Model(i, outputs)(x)
    return x, result


@operation
def nested_twice(g, a, b, c):
    x = g.pick(4, a)
    y = g.pick(4, b, like=x)
    model = tf.keras.Sequential([L.InputLayer(x.shape[1:]), L.ReLU(), L.Conv2D(_filters(c), 1)])
    return x, y, [model(x), model(y)]


@operation
def time_distributed(g, a, b, c):
    makers = [
        lambda: L.Dense(_filters(c)),
        lambda: L.Conv1D(_filters(c), 2, padding="same"),
        lambda: L.BatchNormalization(),
        lambda: tf.keras.Sequential([L.Dense(_filters(c), "relu"), L.Dense(3)]),
    ]
    return _one(g, 4, a, L.TimeDistributed(makers[b % len(makers)]()))


class Residual(tf.keras.Sequential):
    """Looks like a chain of layers and computes something else."""

    def call(self, inputs, training=None, mask=None):
        return inputs + super().call(inputs, training=training)


@operation
def residual_block(g, a, b, c):
    x = g.pick(4, a)
    inner = [L.Conv2D(_filters(b), 1), L.Conv2D(x.shape[-1], 1)]
    return x, Residual([L.InputLayer(x.shape[1:]), *inner][c % 2 :])(x)


# -- Weights ---------------------------------------------------------------------------------------


@operation
def shared_kernel(g, a, b, c):
    x = g.pick(None, a)
    layers = [L.Dense(_filters(c), activation=act) for act in ("relu", "tanh")]
    results = [layer(x) for layer in layers]
    layers[b % 2].kernel = layers[1 - b % 2].kernel
    return x, results


@operation
def values_from_an_array(g, a, b, c):
    x = g.pick(None, a)
    n, units = x.shape[-1], _filters(c)
    kernel = tf.keras.initializers.Constant(np.linspace(-1, 1, n * units).reshape(n, units))
    bias = tf.keras.initializers.Constant(np.arange(units) / 9)
    return x, L.Dense(units, kernel_initializer=kernel, bias_initializer=bias)(x)


@operation
def renormalization(g, a, b, c):
    return _one(g, None, a, L.BatchNormalization(renorm=True))


@operation
def bidirectional_of_two(g, a, b, c):
    forward = L.LSTM(_filters(b), activation=_FAST, return_sequences=True)
    backward = L.GRU(_filters(c), activation=_FAST, return_sequences=True, go_backwards=True)
    return _one(g, 3, a, L.Bidirectional(forward, backward_layer=backward))


@operation
def fused_attention(g, a, b, c):
    x = g.pick(3, a)
    if x is None:
        return None
    heads, size, length = 1 + b % 3, 1 + c % 2, x.shape[1]
    y = L.Dense(3 * heads * size)(x)
    if c % 3:
        y = tf.transpose(tf.reshape(y, [-1, length, 3, heads, size]), [2, 0, 3, 1, 4])
        query, key, value = tf.unstack(y) if c % 3 == 1 else (y[0], y[1], y[2])
    else:
        parts = [L.Reshape((length, heads, size))(part) for part in tf.split(y, 3, -1)]
        query, key, value = [L.Permute((2, 1, 3))(part) for part in parts]
    weights = tf.nn.softmax(tf.matmul(query, key, transpose_b=True))
    y = tf.transpose(tf.matmul(weights, value), [0, 2, 1, 3])
    return x, tf.reshape(y, [-1, length, heads * size])


@operation
def shuffled_groups(g, a, b, c):
    x = g.pick(4, a, check=lambda x: _divisor(x.shape[-1], b))
    if x is None:
        return None
    groups, (h, w, n) = _divisor(x.shape[-1], b), x.shape[1:]
    y = L.Conv2D(n, 1, groups=groups)(x)
    y = L.Permute((1, 2, 4, 3))(L.Reshape((h, w, groups, n // groups))(y))
    y = L.Conv2D(n, 1, groups=groups)(L.Reshape((h, w, n))(y))
    return x, (y + x if c % 2 else y)

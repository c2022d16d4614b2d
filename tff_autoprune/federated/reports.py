"""How what clients report (loss, metric, differences) is summed at the server.

    client's sums ──prepare──> ──sum over clients──> ──release──> sums that the server sees

Which of these an aggregator uses is said in `aggregators`:

| | prepare | sum | release |
|---|---|---|---|
| `Plain` | as they are | in the clear | as they are |
| `Secure` | fixed-point integers | secure summation | as floats |
| `Noised` | one bounded mean of each client | in the clear | with Gaussian noise |
"""

from __future__ import annotations

import collections
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

from tff_autoprune.errors import UserError
from tff_autoprune.federated.task import Task

# Integers stay exact, sums of losses are right to 1e-5.
_FRACTION_BITS = 16
# Up to a thousand million; 2^16 clients' sums still fit 63 bits.
_MAX_INTEGER = 2**46
#: A client's mean loss, or mean absolute error, counts as this at most once noise must cover it.
LOSS_BOUND = 5.0
# For decisions only, which noise would drown.
_TEMPERED = "tempered_loss_sums"
# What says how many clients failed, beside the sums over examples.
NON_FINITE = "non_finite_clients"


class Plain:
    """Sums in the clear.

    Attributes:
      exact: Whether what the server sees are the sums, up to rounding.
    """

    exact = True

    def prepare(self, sums: Mapping[str, Any]) -> Mapping[str, Any]:
        """Returns what a client sends in place of its sums; TensorFlow."""
        return sums

    def sum(self, value: tff.Value) -> tff.Value:
        """Sums over clients; called while a federated computation is built."""
        return tff.federated_sum(value)

    def release(self, sums: Mapping[str, Any], seed: Any) -> Mapping[str, Any]:
        """Returns what the server gets to see of a sum; TensorFlow.

        Args:
          sums: The sum over clients.
          seed: int32 [3] that noise derives from; never the same for two sums.
        """
        del seed
        return sums


class Secure(Plain):
    """Sums by TFF's secure summation, in fixed-point integers.

    Values are right to 2^-17 for each client; what is not finite counts as 0, and what is beyond
    2^30 as that.
    """

    def sum(self, value: tff.Value) -> tff.Value:
        """Sums over clients; called while a federated computation is built."""
        member = value.type_signature.member
        scale = 2.0**_FRACTION_BITS

        @tff.tensorflow.computation(member)
        def encode(tree):
            def one(leaf):
                wide = tf.cast(leaf, tf.float64)
                wide = tf.where(tf.math.is_finite(wide), wide * scale, tf.zeros_like(wide))
                wide = tf.clip_by_value(wide, -float(_MAX_INTEGER), float(_MAX_INTEGER))
                return tf.cast(tf.round(wide), tf.int64)

            return tf.nest.map_structure(one, tree)

        process = tff.aggregators.SecureSumFactory(_MAX_INTEGER).create(
            encode.type_signature.result
        )
        dtypes = _dtypes(member)

        @tff.tensorflow.computation(encode.type_signature.result)
        def decode(tree):
            floats = [
                tf.cast(tf.cast(leaf, tf.float64) / scale, dtype)
                for leaf, dtype in zip(tf.nest.flatten(tree), dtypes)
            ]
            return tf.nest.pack_sequence_as(tree, floats)

        encoded = tff.federated_map(encode, value)
        return tff.federated_map(decode, process.next(process.initialize(), encoded).result)


class Noised(Plain):
    """Sums of bounded values with Gaussian noise.

    A client sends the mean over its own examples of each figure, clipped to [0, bound]: 1 for what
    is a share, `LOSS_BOUND` for losses. Replacing a client changes each figure by its bound at
    most, so all D of them, each over its bound, by the root of D. The noise on each is that times
    the multiplier: together they are one Gaussian mechanism with this multiplier. "num_examples"
    becomes the number of clients, which the server knows.
    """

    exact = False

    def __init__(self, noise_multiplier: float, task: Task) -> None:
        """Sets the noise.

        Args:
          noise_multiplier: Standard deviation of the noise over the sensitivity.
          task: Says which figures are shares.

        Raises:
          UserError: If the task has metrics of the user's own.
        """
        if task.metrics_fn is not None:
            raise UserError(
                "aggregator.name: with 'dp' only loss and metric can be reported, since nothing"
                " bounds what a client says of metrics of one's own; leave `metrics` out."
            )
        self._multiplier = noise_multiplier
        self._shares = {NON_FINITE}
        for number, head in enumerate(task.heads):
            if head.classifies:
                self._shares.add(f"{head.name}/metric_sum" if number else "metric_sum")

    def _bounds(self, sums: Mapping[str, Any]) -> dict[str, float]:
        figures = [name for name in sums if name not in ("num_examples", _TEMPERED)]
        return {name: 1.0 if name in self._shares else LOSS_BOUND for name in figures}

    def prepare(self, sums: Mapping[str, Any]) -> Mapping[str, Any]:
        """Returns a client's bounded means; TensorFlow."""
        bounds = self._bounds(sums)
        examples = tf.maximum(sums["num_examples"], 1e-6)
        found = collections.OrderedDict()
        for name, value in sums.items():
            if name == _TEMPERED:
                continue
            if name not in bounds:
                found[name] = tf.ones_like(value)
                continue
            mean = value if name == NON_FINITE else value / examples
            worst = tf.fill(tf.shape(mean), bounds[name])
            mean = tf.where(tf.math.is_finite(mean), mean, worst)
            found[name] = tf.clip_by_value(mean, 0.0, bounds[name])
        return found

    def release(self, sums: Mapping[str, Any], seed: Any) -> Mapping[str, Any]:
        """Returns the noised sums; TensorFlow."""
        bounds = self._bounds(sums)
        sizes = {name: int(np.prod(sums[name].shape)) for name in bounds}
        stddev = self._multiplier * sum(sizes.values()) ** 0.5
        # Stateless generators take two numbers; the third is folded in.
        base = tf.random.experimental.stateless_fold_in(tf.cast(seed[:2], tf.int32), seed[2])
        found = collections.OrderedDict(sums)
        for number, (name, bound) in enumerate(bounds.items()):
            own = tf.random.experimental.stateless_fold_in(base, number)
            noise = tf.random.stateless_normal(tf.shape(sums[name]), own)
            found[name] = sums[name] + stddev * bound * noise
        return found


def _dtypes(type_spec: tff.Type) -> list[tf.DType]:
    """Returns the data types of a structure's tensors, in order."""
    if isinstance(type_spec, tff.StructType):
        return [dtype for child in type_spec for dtype in _dtypes(child)]
    return [tf.as_dtype(type_spec.dtype)]

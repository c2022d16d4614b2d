"""Puts a narrow linear layer, the rank, inside a convolution or dense layer.

    conv_2 5x5, 32 -> 64    becomes    conv_2_rank 5x1, 32 -> 12, linear, no bias
                                       conv_2      1x5, 12 -> 64, bias and activation of conv_2

The second layer keeps the name, so that whatever speaks of it still finds it. The rank is a
dependency group like any other afterwards: `find_filter_groups` finds it, `remove_filters` cuts it,
and cutting its last channels gives the network that was factorized at the lower rank.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Optional, Union

import numpy as np
import tensorflow as tf

from tff_autoprune.errors import UserError
from tff_autoprune.surgery import decomposition
from tff_autoprune.surgery.decomposition import KINDS
from tff_autoprune.surgery.factor_layers import (
    Factorization,
    check_finite,
    check_told,
    leaves,
    max_rank,
    new_layers,
    refusal,
    split_of,
)
from tff_autoprune.surgery.network import Network
from tff_autoprune.surgery.rebuild import Rebuilder
from tff_autoprune.surgery.rewrite import Rewrite, all_kept
from tff_autoprune.surgery.trace import Trace

# By layer: means of x x^T, float [channels, channels], and of x, float [channels].
Moments = Mapping[str, np.ndarray]
Means = Mapping[str, np.ndarray]


class FactorizationPlan(Rewrite):
    """A checked factorization, not yet carried out.

    Attributes:
      model: The model that it is about; not changed.
      factorizations: By name of the layer.
    """

    def __init__(
        self,
        trace: Trace,
        layers: Mapping[str, tf.keras.layers.Layer],
        factorizations: Mapping[str, Factorization],
        moments: Moments,
        means: Means,
    ) -> None:
        super().__init__(trace)
        self.factorizations = dict(factorizations)
        self._layers = {name: layers[name] for name in factorizations}
        self._taken = {path.split("/")[-1] for path in layers} | _all_names(trace.model)
        self._moments = moments
        self._means = means
        self._splits = {
            name: split_of(self._layers[name], wanted.kind)
            for name, wanted in factorizations.items()
        }
        # Singular value decompositions take time; the last of each layer is kept, with its kernel.
        self._decomposed: dict[str, tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]] = {}

    def apply(self, weights: Optional[Sequence[np.ndarray]] = None) -> tf.keras.Model:
        """Builds the factorized model, see `Rewrite.apply`."""
        values = self._values(weights)
        pairs = {
            id(layer): new_layers(layer, self.factorizations[name], self._taken)
            for name, layer in self._layers.items()
        }
        rebuilder = Rebuilder(self._trace, all_kept, replacements=pairs)
        new = rebuilder.build()
        biases = {}
        for name, layer in self._layers.items():
            first, second = pairs[id(layer)]
            reading, writing = self._decompose(name, self._kernel(name, values))
            first.weights[0].assign(self._splits[name].reading_kernel(reading))
            second.kernel.assign(self._splits[name].writing_kernel(writing))
            if layer.use_bias:
                biases[id(second.bias)] = self._position[id(layer.bias)]
        self._inherit(rebuilder, new, self._with_mean_errors(values), biases)
        return new

    def weights_in_place(self, weights: Optional[Sequence[np.ndarray]] = None) -> list[np.ndarray]:
        """Returns weights with which the old architecture computes what the new one would.

        Args:
          weights: Values of `model.weights` to factorize; None for the present ones.

        Returns:
          The same values, but for the kernels of the factorized layers, which are those of low rank
          (and their biases, if they absorb the mean error).
        """
        values = self._values(weights)
        changed = self._with_mean_errors(values)
        for name, layer in self._layers.items():
            kernel = self._kernel(name, values)
            changed[self._position[id(layer.kernel)]] = self._product(name, kernel)
        return changed

    def _decompose(self, name: str, kernel: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        known = self._decomposed.get(name)
        if known is not None and np.array_equal(known[0], kernel):
            return known[1]
        check_finite(name, kernel)
        rank, moments = self.factorizations[name].rank, self._moments.get(name)
        mean = self._means.get(name)
        if moments is not None and mean is not None and self._layers[name].use_bias:
            moments = moments - np.outer(mean, mean)  # The bias takes care of the mean.
        factors = decomposition.decompose(self._splits[name], kernel, rank, moments)
        self._decomposed[name] = kernel, factors
        return factors

    def _kernel(self, name: str, values: Sequence[np.ndarray]) -> np.ndarray:
        return values[self._position[id(self._layers[name].kernel)]]

    def _product(self, name: str, kernel: np.ndarray) -> np.ndarray:
        """Returns the kernel of low rank."""
        product = self._splits[name].product(*self._decompose(name, kernel))
        return product.astype(kernel.dtype)

    def _with_mean_errors(self, values: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Returns the weights with what the outputs lack on average added to the biases."""
        values = list(values)
        for name, layer in self._layers.items():
            mean = self._means.get(name)
            if mean is None or not layer.use_bias:
                continue
            split, kernel = self._splits[name], self._kernel(name, values)
            lost = kernel.astype(np.float64) - self._product(name, kernel)
            lost = lost.swapaxes(-1, -2) if split.transposed else lost
            lost = mean @ lost.reshape(-1, len(mean), split.outputs).sum(axis=0)
            if split.transposed:
                # Only one in so many places of the window reaches a place of the output.
                lost = lost / math.prod(layer.strides)
            at = self._position[id(layer.bias)]
            values[at] = (values[at] + lost).astype(values[at].dtype)
        return values


def factorize(
    model: Union[tf.keras.Model, Network],
    plan: Mapping[str, Factorization],
    moments: Optional[Moments] = None,
    means: Optional[Means] = None,
) -> tf.keras.Model:
    """Factorizes layers of a model.

    Args:
      model: A built functional or sequential model, or its network; not changed.
      plan: How, by name of the layer (after the names of the models around it, as in
        `FilterGroup`).
      moments: See `plan_factorization`.
      means: See `plan_factorization`.

    Returns:
      The factorized model: ordinary layers, everything else inherited.

    Raises:
      UserError: See `plan_factorization`.

    Example:
    >>> from tff_autoprune import models, surgery
    >>> model = models.build("cnn", input_shape=(28, 28, 1), num_classes=62)
    >>> new = surgery.factorize(model, {"conv_2": surgery.Factorization("spatial", 12)})
    >>> model.count_params(), new.count_params()
    (56126, 10686)
    >>> [group.name for group in surgery.find_filter_groups(new) if group.prunable]
    ['conv_1', 'conv_2_rank', 'conv_2']
    """
    return plan_factorization(model, plan, moments, means).apply()


def plan_factorization(
    model: Union[tf.keras.Model, Network],
    plan: Mapping[str, Factorization],
    moments: Optional[Moments] = None,
    means: Optional[Means] = None,
) -> FactorizationPlan:
    """Checks a factorization without building anything.

    Args:
      model: A built functional or sequential model, or its network.
      plan: How, by name of the layer.
      moments: Second moments of what the layers read, float [channels, channels] by name of the
        layer; of any scale, unless means are given. Layers without are split by the weights alone.
      means: Means of what the layers read, float [channels]; for layers with a bias, which then
        absorbs the mean of the error. The moments must be on the same scale: means over all places.

    Returns:
      The checked factorization.

    Raises:
      UserError: If a layer is unknown or cannot be factorized in this way, a rank is out of range,
        or moments do not fit.
    """
    trace = Network.of(model).trace
    layers, refused = leaves(trace)
    moments = {name: np.asarray(m, np.float64) for name, m in (moments or {}).items()}
    means = {name: np.asarray(m, np.float64) for name, m in (means or {}).items()}
    for name, wanted in plan.items():
        if not isinstance(wanted, Factorization):
            raise UserError(f"'{name}': expected a Factorization(kind, rank), found {wanted!r}.")
        if wanted.kind not in KINDS:
            raise UserError(
                f"'{name}': kind must be one of {', '.join(KINDS)}, found {wanted.kind!r}."
            )
        if name not in layers:
            known = [
                path
                for path, layer in layers.items()
                if any(not refusal(layer, kind) for kind in KINDS) and path not in refused
            ]
            raise UserError(
                f"There is no layer '{name}' to factorize. There are: {', '.join(known) or 'none'}."
            )
        layer = layers[name]
        reason = refused.get(name) or refusal(layer, wanted.kind)
        if reason:
            raise UserError(f"'{name}' cannot be factorized as {wanted.kind!r}: it {reason}.")
        largest = max_rank(layer, wanted.kind)
        if not isinstance(wanted.rank, (int, np.integer)) or not 1 <= wanted.rank <= largest:
            raise UserError(
                f"'{name}': the rank of a {wanted.kind!r} factorization must be an integer from 1 "
                f"to {largest}, found {wanted.rank!r}."
            )
        check_told(name, layer, moments.get(name), means.get(name))
    return FactorizationPlan(trace, layers, plan, moments, means)


def _all_names(model: tf.keras.Model) -> set[str]:
    return {layer.name for layer in model._flatten_layers(include_self=True, recursive=True)}

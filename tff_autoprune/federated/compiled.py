"""Processes that are traced once for all widths of a network.

    model ──trace with widths unknown──> process, evaluation ──narrower model──> checked, reused
      └── that fails, or the aggregator needs sizes ──> traced anew for each architecture

A layer may have put a width into the graph as a constant without anybody noticing. So before a
traced network serves another model, its outputs are compared with that model's own.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Optional

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff
from absl import logging

from tff_autoprune.federated import aggregators, evaluation, widths
from tff_autoprune.federated import process as process_lib
from tff_autoprune.federated.client_work import Regularizer
from tff_autoprune.federated.examination import build_examination
from tff_autoprune.federated.settings import Settings
from tff_autoprune.federated.stateless import StatelessModel
from tff_autoprune.federated.trials import build_trials

_CHECKED_EXAMPLES = 4
_TOLERANCE = 1e-3
# For networks that take images of any size.
_ANY_SIZE = 64


class Compiled:
    """What is traced of a network.

    Attributes:
      process: The learning process; its initial weights are those of the model that was traced.
    """

    def __init__(
        self,
        model: tf.keras.Model,
        settings: Settings,
        *,
        regularizer: Optional[Regularizer],
        unknown_widths: bool,
    ) -> None:
        """Traces a model; see `compile_model`."""
        self._stateless = StatelessModel(model, unknown_widths=unknown_widths)
        self._signature = widths.signature(model)
        self._built: dict[tuple, tff.Computation] = {}
        self.process = process_lib.build_learning_process(
            self._stateless, settings, regularizer=regularizer
        )

    @functools.cached_property
    def initial_state(self) -> tff.learning.templates.LearningAlgorithmState:
        """The process's initial state."""
        return self.process.initialize()

    @functools.cached_property
    def evaluation(self) -> tff.Computation:
        """Federated evaluation, traced when it is first needed."""
        return process_lib.build_evaluation(self._stateless)

    def examination(self, layers: Mapping[str, int]) -> tff.Computation:
        """Returns the federated examination of layers, traced when it is first needed."""
        return self._of_layers(build_examination, layers)

    def trials(self, layers: Mapping[str, int]) -> tff.Computation:
        """Returns the federated trial of candidates, traced when it is first needed."""
        return self._of_layers(build_trials, layers)

    def _of_layers(
        self,
        build: Callable[[StatelessModel, Mapping[str, int]], tff.Computation],
        layers: Mapping[str, int],
    ) -> tff.Computation:
        key = (build, *layers.items())
        if key not in self._built:
            self._built[key] = build(self._stateless, layers)
        return self._built[key]

    @functools.cached_property
    def _forward(self) -> Callable[..., tf.Tensor]:
        stateless = self._stateless
        shape = (None, *stateless.model.input_shape[1:])
        images = tf.TensorSpec(shape, tf.float32)

        @tf.function(
            input_signature=[stateless.trainable, stateless.non_trainable, images], autograph=False
        )
        def forward(trainable, non_trainable, images):
            return stateless(trainable, non_trainable, images, training=False)[0]

        return forward

    def serves(self, model: tf.keras.Model) -> bool:
        """Returns whether process and evaluation are right for a model too."""
        if model is self._stateless.model:
            return True
        if not self._stateless.unknown_widths or widths.signature(model) != self._signature:
            return False
        images = _images(model)
        expected = model(images, training=False).numpy()
        weights = evaluation.weights_of(model)
        try:
            found = self._forward(weights.trainable, weights.non_trainable, images).numpy()
        except tf.errors.InvalidArgumentError as error:
            logging.info("A width is a constant in the traced network: %s", error)
            return False
        # What the images make of the outputs: biases, which no width touches, do not count.
        spread = np.ptp(expected, axis=0).max()
        return bool(spread > 0 and np.abs(found - expected).max() <= _TOLERANCE * spread)


def _images(model: tf.keras.Model) -> np.ndarray:
    """Returns noise of several contrasts, for which the outputs differ."""
    shape = (_CHECKED_EXAMPLES, *(size or _ANY_SIZE for size in model.input_shape[1:]))
    contrast = np.linspace(0.2, 1.0, _CHECKED_EXAMPLES, dtype=np.float32)
    noise = np.random.default_rng(0).random(shape, np.float32)
    return noise * contrast.reshape(-1, *(1 for _ in shape[1:]))


def compile_model(
    model: tf.keras.Model,
    settings: Settings,
    *,
    regularizer: Optional[Regularizer] = None,
    unknown_widths: bool = True,
) -> Compiled:
    """Traces a model.

    Args:
      model: The model.
      settings: See `process.build_learning_process`.
      regularizer: As there.
      unknown_widths: Whether the trace shall serve narrower versions of the model; it does not if
        the aggregator or a layer needs to know its sizes.

    Returns:
      What was traced.
    """
    if unknown_widths and aggregators.takes_unknown_sizes(settings.aggregator):
        try:
            return Compiled(model, settings, regularizer=regularizer, unknown_widths=True)
        except Exception as error:  # Whatever a layer does with a size that is not there.
            logging.info("The network cannot be traced with unknown widths: %s", error)
    return Compiled(model, settings, regularizer=regularizer, unknown_widths=False)

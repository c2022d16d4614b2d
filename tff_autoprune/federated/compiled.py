"""Processes that are traced once for all widths of a network.

    model ──trace with widths unknown──> process, evaluation ──narrower model──> checked, reused
      └── that fails, or the aggregator needs sizes ──> traced anew for each architecture

A layer may have put a width into the graph as a constant without anybody noticing. So before a
traced network serves another model, its outputs are compared with that model's own.
"""

from __future__ import annotations

import functools
from typing import Optional

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff
from absl import logging

from tff_autoprune.federated import aggregators, evaluation, losses, widths
from tff_autoprune.federated import process as process_lib
from tff_autoprune.federated.client_work import Regularizer
from tff_autoprune.federated.settings import Settings
from tff_autoprune.federated.stateless import StatelessModel

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
        with_feedback: bool,
        unknown_widths: bool,
    ) -> None:
        """Traces a model; see `compile_model`."""
        self._stateless = StatelessModel(model, unknown_widths=unknown_widths)
        self._signature = widths.signature(model)
        self.process = process_lib.build_learning_process(
            self._stateless, settings, regularizer=regularizer, with_feedback=with_feedback
        )

    @functools.cached_property
    def initial_state(self) -> tff.learning.templates.LearningAlgorithmState:
        """The process's initial state."""
        return self.process.initialize()

    @functools.cached_property
    def evaluation(self) -> tff.Computation:
        """Federated evaluation, traced when it is first needed."""
        return process_lib.build_evaluation(self._stateless)

    def serves(self, model: tf.keras.Model) -> bool:
        """Returns whether process and evaluation are right for a model too."""
        traced = self._stateless.model
        if model is traced:
            return True
        if not self._stateless.unknown_widths or widths.signature(model) != self._signature:
            return False
        generator = np.random.default_rng(0)
        shape = (_CHECKED_EXAMPLES, *(n or _ANY_SIZE for n in model.input_shape[1:]))
        images = generator.random(shape, np.float32)
        outputs = model(images, training=False)
        labels = generator.integers(0, outputs.shape[-1], _CHECKED_EXAMPLES).astype(np.int32)
        expected = losses.cross_entropy(
            outputs, labels, from_logits=losses.outputs_logits(model)
        ).numpy()
        dataset = tf.data.Dataset.from_tensors((images, labels))
        try:
            found = evaluation.run(self.evaluation, evaluation.weights_of(model), [dataset])
        except tf.errors.InvalidArgumentError as error:
            logging.info("A width is a constant in the traced network: %s", error)
            return False
        return bool(np.isclose(found["loss"], expected.mean(), rtol=_TOLERANCE, atol=_TOLERANCE))


def compile_model(
    model: tf.keras.Model,
    settings: Settings,
    *,
    regularizer: Optional[Regularizer] = None,
    with_feedback: bool = False,
    unknown_widths: bool = True,
) -> Compiled:
    """Traces a model.

    Args:
      model: The model.
      settings: See `process.build_learning_process`.
      regularizer: As there.
      with_feedback: As there.
      unknown_widths: Whether the trace shall serve narrower versions of the model; it does not if
        the aggregator or a layer needs to know its sizes.

    Returns:
      What was traced.
    """
    options = {"regularizer": regularizer, "with_feedback": with_feedback}
    if unknown_widths and aggregators.takes_unknown_sizes(settings.aggregator):
        try:
            return Compiled(model, settings, unknown_widths=True, **options)
        except Exception as error:  # Whatever a layer does with a size that is not there.
            logging.info("The network cannot be traced with unknown widths: %s", error)
    return Compiled(model, settings, unknown_widths=False, **options)

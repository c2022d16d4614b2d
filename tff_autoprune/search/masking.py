"""Try a cut before making it: masks on channels while an ordinary `model.fit` runs.

    masked = search.StructuredPruning(model, tfmot.sparsity.keras.PolynomialDecay(0, 0.5, 0, 1000))
    masked.compile(...)
    masked.fit(data, callbacks=[search.UpdateMasks()])
    smaller = search.strip(masked)

A masked channel is one whose readers have their weights for it multiplied by zero. No weight is
changed and no shape, so a mask can be lifted again; `strip` removes exactly what is masked, and its
result computes the same as the masked model.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Optional

import numpy as np
import tensorflow as tf

from tff_autoprune.errors import UserError
from tff_autoprune.search import importance as importance_lib
from tff_autoprune.surgery.groups import FilterGroup, Member
from tff_autoprune.surgery.network import Network
from tff_autoprune.surgery.removal import Removal, plan_removal
from tff_autoprune.surgery.roles import Role

#: `schedule(step)` gives (whether to prune now, share of channels to be masked): any
#: `tfmot.sparsity.keras.PruningSchedule`.
Schedule = Callable[[Any], tuple[Any, Any]]


class StructuredPruning(tf.keras.Model):
    """A model whose channels can be masked, for `fit`, `evaluate` and `predict`.

    Args:
      model: A built functional or sequential model. It is used, not copied: training this trains
        `model`.
      schedule: When to prune and how much; see `Schedule`. None for masks set by hand.
      importance: Scores the channels; the lowest are masked.

    Raises:
      UserError: If a weight that reads channels is out of reach, or if there is a schedule and the
        importance needs what `fit` does not give it (`Taylor` the update of a round).

    Attributes:
      model: The model.
      schedule: As given.
      groups: The prunable filter groups.
      masks: For each group a non-trainable variable, float32 [channels], 1 or 0.
      thresholds: For each group a non-trainable scalar: the largest score that was masked at the
        last update, -inf before.

    Example:
    >>> from tff_autoprune import models, search
    >>> model = models.build("cnn", input_shape=(28, 28, 1), num_classes=62, filters=(4, 8))
    >>> trial = search.StructuredPruning(model)
    >>> trial.masks["conv_2"].assign([1, 0, 1, 1, 0, 1, 1, 1])  # doctest: +ELLIPSIS
    <tf.Variable ...
    >>> search.strip(trial).get_layer("conv_2").filters
    6
    """

    def __init__(
        self,
        model: tf.keras.Model,
        schedule: Optional[Schedule] = None,
        importance: Optional[importance_lib.Importance] = None,
    ) -> None:
        super().__init__(name=f"prune_{model.name}")
        self.model = model
        self.schedule = schedule
        self.importance = importance or importance_lib.L1()
        self._network = Network(model)
        self.groups = self._network.prunable
        self.masks: dict[str, tf.Variable] = {}
        self.thresholds: dict[str, tf.Variable] = {}
        for group in self.groups:
            self.masks[group.name] = self._state(group, "mask", [group.channels], 1.0)
            self.thresholds[group.name] = self._state(group, "threshold", [], -np.inf)
        self._readers = _readers(model, self.groups)
        if schedule is not None:
            # What the importance lacks (a gradient, a normalization) is said before `fit` begins.
            weights = model.get_weights()
            for group in self.groups:
                self.importance(group, weights)

    def _state(
        self, group: FilterGroup, name: str, shape: Sequence[int], value: float
    ) -> tf.Variable:
        return self.add_weight(
            name=f"{group.name.replace('#', '_')}/{name}",
            shape=shape,
            dtype=tf.float32,
            initializer=tf.keras.initializers.Constant(value),
            trainable=False,
        )

    def call(self, inputs: Any, training: Any = None, mask: Any = None) -> Any:
        """Runs the model with masked weights; see `tf.keras.Model.call`."""
        with self._masked_weights():
            return self.model(inputs, training=training, mask=mask)

    def fit(self, *args: Any, **kwargs: Any) -> Any:
        """Trains the model; see `tf.keras.Model.fit`.

        Raises:
          UserError: If there is a schedule that no callback follows.
        """
        callbacks = kwargs.get("callbacks", args[5] if len(args) > 5 else None) or []
        callbacks = getattr(callbacks, "callbacks", callbacks)
        given = callbacks if isinstance(callbacks, (list, tuple)) else [callbacks]
        if self.schedule is not None and not any(isinstance(c, UpdateMasks) for c in given):
            raise UserError(
                "StructuredPruning has a schedule that nothing follows: call "
                "fit(..., callbacks=[search.UpdateMasks()])."
            )
        return super().fit(*args, **kwargs)

    def save(self, *args: Any, **kwargs: Any) -> None:
        """Raises: a saved graph of the inner layers would not see the masks."""
        del args, kwargs
        raise UserError(
            "A StructuredPruning cannot be saved as a model: save search.strip(model), or keep "
            "weights and masks with save_weights()."
        )

    @contextlib.contextmanager
    def _masked_weights(self) -> Iterator[None]:
        """Puts masked values in the place of the variables that read channels."""
        variables = []
        try:
            for layer, name, members in self._readers:
                variable = vars(layer)[name]
                value = tf.convert_to_tensor(variable)
                for group_name, member in members:
                    factor = tf.cast(self._factor(self.masks[group_name], member), value.dtype)
                    shape = [1] * len(value.shape)
                    shape[member.axis] = member.size
                    value = value * tf.reshape(factor, shape)
                variables.append((layer, name, variable))
                # Past __setattr__, with which Keras would begin to track the value.
                vars(layer)[name] = tf.cast(value, layer.compute_dtype)
            yield
        finally:
            for layer, name, variable in variables:
                vars(layer)[name] = variable

    @staticmethod
    def _factor(mask: tf.Variable, member: Member) -> tf.Tensor:
        """Returns the mask along the axis of a member, 1 where other groups' channels lie."""
        factor = tf.ones([member.size], mask.dtype)
        places = member.positions[:, np.newaxis]
        return tf.tensor_scatter_nd_update(factor, places, tf.gather(mask, member.channel_of))

    @property
    def selection(self) -> dict[str, list[int]]:
        """The masked channels by group, without groups that have none."""
        chosen = {name: np.flatnonzero(mask.numpy() == 0) for name, mask in self.masks.items()}
        return {name: indices.tolist() for name, indices in chosen.items() if len(indices)}

    def mask_channels(self, selection: Mapping[str, Sequence[int]]) -> Removal:
        """Masks exactly the given channels.

        Args:
          selection: As for `plan_removal`; empty to lift all masks.

        Returns:
          The removal that `strip` would carry out.

        Raises:
          UserError: As for `plan_removal`; the masks are not changed then.
        """
        removal = plan_removal(self._network, selection)
        for group in self.groups:
            mask = np.ones(group.channels, np.float32)
            mask[removal.selection.get(group.name, [])] = 0
            self.masks[group.name].assign(mask)
        return removal

    def update_masks(
        self, sparsity: float, update: Optional[Sequence[Optional[np.ndarray]]] = None
    ) -> None:
        """Masks the least important channels of every group; at least one stays.

        Args:
          sparsity: Share of the channels to mask, 0 to 1.
          update: Passed on to the importance.
        """
        if not 0 <= sparsity <= 1:
            raise UserError(f"The sparsity must be between 0 and 1, found {sparsity}.")
        weights = self.model.get_weights()
        for group in self.groups:
            scores = self.importance(group, weights, update=update)
            order = np.argsort(scores, kind="stable")
            gone = order[: min(round(sparsity * group.channels), group.channels - 1)]
            mask = np.ones(group.channels, np.float32)
            mask[gone] = 0
            self.masks[group.name].assign(mask)
            self.thresholds[group.name].assign(scores[gone].max(initial=-np.inf))


class UpdateMasks(tf.keras.callbacks.Callback):
    """Follows the schedule of a `StructuredPruning` during `fit`.

    After every batch the schedule is asked with the optimizer's step; when it says so, the masks
    are drawn anew. The share of masked channels is logged as "masked_channels".
    """

    def set_model(self, model: tf.keras.Model) -> None:
        """Checks that there is something to update."""
        if not isinstance(model, StructuredPruning) or model.schedule is None:
            raise UserError(
                "UpdateMasks needs a StructuredPruning with a schedule, found "
                f"{type(model).__name__}."
            )
        super().set_model(model)

    def on_train_begin(self, logs: Optional[dict[str, Any]] = None) -> None:
        """Forgets earlier runs."""
        del logs
        self._asked = self._fired = 0

    def on_train_end(self, logs: Optional[dict[str, Any]] = None) -> None:
        """Warns if the schedule never said to prune."""
        del logs
        if self._asked and not self._fired:
            last = int(self.model.optimizer.iterations)
            warnings.warn(
                f"The pruning schedule never fired in {self._asked} steps, the last of which was "
                f"step {last}: no channel was masked. Look at its begin_step, end_step and "
                "frequency.",
                stacklevel=2,
            )

    def on_train_batch_end(self, batch: int, logs: Optional[dict[str, Any]] = None) -> None:
        """Updates the masks if the schedule says so."""
        del batch, logs
        prune, sparsity = self.model.schedule(tf.cast(self.model.optimizer.iterations, tf.int64))
        self._asked += 1
        if bool(prune):
            self._fired += 1
            self.model.update_masks(float(sparsity))

    def on_epoch_end(self, epoch: int, logs: Optional[dict[str, Any]] = None) -> None:
        """Logs the share of masked channels."""
        del epoch
        if logs is not None:
            masks = np.concatenate([mask.numpy() for mask in self.model.masks.values()])
            logs["masked_channels"] = float(1 - masks.mean())


def strip(masked: StructuredPruning, round_to: int = 1) -> tf.keras.Model:
    """Removes what is masked.

    Args:
      masked: The model with masks.
      round_to: See `plan_removal`.

    Returns:
      A smaller ordinary model.
    """
    return plan_removal(masked._network, masked.selection, round_to).apply()


_Reader = tuple[tf.keras.layers.Layer, str, list[tuple[str, Member]]]


def _readers(model: tf.keras.Model, groups: Sequence[FilterGroup]) -> list[_Reader]:
    """Returns every weight that reads channels: its layer, the attribute, and how it reads them."""
    members: dict[int, list[tuple[str, Member]]] = {}
    for group in groups:
        for member in group.members:
            if member.role == Role.CONSUMER:
                members.setdefault(member.position, []).append((group.name, member))
    # Several layers may hold one weight.
    holders: dict[int, list[tuple[tf.keras.layers.Layer, str]]] = {}
    for layer in model._flatten_layers():
        for name, value in vars(layer).items():
            if isinstance(value, tf.Variable):
                holders.setdefault(id(value), []).append((layer, name))
    weights = model.weights
    hidden = [
        weights[position].name for position in members if id(weights[position]) not in holders
    ]
    if hidden:
        raise UserError(
            f"StructuredPruning cannot mask '{hidden[0]}': its layer must hold it in an attribute "
            "of its own, not in a list or dictionary."
        )
    return [
        (layer, name, reading)
        for position, reading in members.items()
        for layer, name in holders[id(weights[position])]
    ]

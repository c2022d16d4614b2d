"""The state of a learning process: as arrays for a checkpoint, and carried to another model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Optional

import attrs
import numpy as np
import tensorflow_federated as tff

from tff_autoprune.errors import UserError

State = tff.learning.templates.LearningAlgorithmState
SliceTrainable = Callable[[Sequence[np.ndarray]], Sequence[np.ndarray]]


def _map(tree: Any, function: Callable[[str, Any], Any], path: str = "") -> Any:
    """Maps `function(path, leaf)` over a state, keeping its containers and their order."""

    def child(name: object, value: Any) -> Any:
        return _map(value, function, f"{path}/{name}" if path else str(name))

    if hasattr(tree, "_asdict"):
        return type(tree)(*(child(k, v) for k, v in tree._asdict().items()))
    if attrs.has(type(tree)):
        names = [field.name for field in attrs.fields(type(tree))]
        return type(tree)(*(child(name, getattr(tree, name)) for name in names))
    if isinstance(tree, Mapping):
        return type(tree)((k, child(k, v)) for k, v in tree.items())
    if isinstance(tree, (list, tuple)):
        return type(tree)(child(i, v) for i, v in enumerate(tree))
    return function(path, tree)


def _leaves_by_path(tree: Any) -> dict[str, Any]:
    leaves = {}
    _map(tree, leaves.__setitem__)
    return leaves


def to_arrays(state: State) -> dict[str, np.ndarray]:
    """Flattens a state.

    Args:
      state: Of any learning process.

    Returns:
      A dict of arrays by path, e.g. "global_model_weights/trainable/0", of the exact data types.
    """
    return {path: np.asarray(leaf) for path, leaf in _leaves_by_path(state).items()}


def from_arrays(like: State, arrays: Mapping[str, np.ndarray]) -> State:
    """Undoes `to_arrays`.

    Args:
      like: A state of the same process, for its structure.
      arrays: What `to_arrays` returned.

    Returns:
      The state, bit for bit.

    Raises:
      UserError: If the arrays are not those of such a state.
    """
    expected = to_arrays(like)
    if set(expected) != set(arrays):
        differing = sorted(set(expected) ^ set(arrays))
        raise UserError(
            "checkpoint: the state is not one of this process; only one of the two has"
            f" {', '.join(differing[:3])}. Use the settings of the run that wrote it."
        )
    for path, leaf in expected.items():
        found = np.asarray(arrays[path])
        if found.shape != leaf.shape or found.dtype != leaf.dtype:
            raise UserError(
                f"checkpoint: {path} should be {leaf.dtype}{list(leaf.shape)}, found"
                f" {found.dtype}{list(found.shape)}."
            )

    def restored(path: str, leaf: Any) -> Any:
        value = np.asarray(arrays[path])
        # TFF's events of differential privacy carry names, which it does not take as arrays.
        return value.item() if isinstance(leaf, (bytes, str)) else value

    return _map(like, restored)


def _like_trainable(value: Any, trainable: Sequence[np.ndarray]) -> bool:
    return (
        isinstance(value, (list, tuple))
        and len(value) == len(trainable) > 0
        and all(np.shape(v) == np.shape(t) for v, t in zip(value, trainable))
    )


def carry_optimizer_state(
    old: Any,
    initial: Any,
    old_trainable: Sequence[np.ndarray],
    slice_trainable: Optional[SliceTrainable],
) -> Any:
    """Carries the server optimizer's state to another architecture.

    Args:
      old: The state under the old architecture.
      initial: The initial state under the new one.
      old_trainable: The old trainable weights; parts of the state shaped like them are moments.
      slice_trainable: Keeps of a list aligned with the trainable weights what survives. None if the
        architectures have nothing in common: then everything starts anew, hyperparameters too.

    Returns:
      The new state. Otherwise hyperparameters, which may have been changed, are kept.
    """
    if slice_trainable is None:
        return initial
    if not isinstance(old, Mapping):
        return old
    carried = {}
    for key, value in old.items():
        if isinstance(value, Mapping):
            carried[key] = carry_optimizer_state(
                value, initial[key], old_trainable, slice_trainable
            )
        elif _like_trainable(value, old_trainable):
            sliced = slice_trainable([np.asarray(v) for v in value])
            carried[key] = type(initial[key])(np.asarray(s) for s in sliced)
        else:
            carried[key] = value
    return type(initial)(carried)


def carry_matching(old: Any, initial: Any) -> Any:
    """Carries every array of a state whose shape does not depend on the architecture.

    Args:
      old: State of an aggregator or distributor under the old architecture.
      initial: Its initial state under the new one.

    Returns:
      `initial`, with the old value of every array of the same path, shape and data type.
    """
    by_path = _leaves_by_path(old)

    def carried(path: str, leaf: Any) -> Any:
        value = by_path.get(path, leaf)
        same = (
            np.shape(value) == np.shape(leaf) and np.asarray(value).dtype == np.asarray(leaf).dtype
        )
        return value if same else leaf

    return _map(initial, carried)

"""Removes whole branches of additions: a residual block that adds nothing goes with its `Add`.

    x ──┬── conv_1 ── conv_2 ──┐
        └──────────────────────┴─ Add ── ...        becomes        x ── ...

What is left computes the same if the branch adds nothing but zeros, as it does with the weights of
`BranchRemoval.weights_in_place`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Optional, Union

import numpy as np
import tensorflow as tf
from keras.src.layers.core.tf_op_layer import TFOpLambda

from tff_autoprune.errors import UserError
from tff_autoprune.surgery import layer_rules as registry
from tff_autoprune.surgery.network import Network
from tff_autoprune.surgery.rebuild import Rebuilder
from tff_autoprune.surgery.rewrite import Rewrite, all_kept
from tff_autoprune.surgery.trace import Trace, check_model, ordered_nodes

_layers = tf.keras.layers
_ADDITIONS = ("__operators__.add", "math.add")
# What is zero if these weights are: the kernel and bias of a linear layer, the scale and offset of
# a normalization. (Anything else need not be.)
_SILENCERS = {
    _layers.Conv1D: ("kernel", "bias"),
    _layers.Conv2D: ("kernel", "bias"),
    _layers.Conv3D: ("kernel", "bias"),
    _layers.Conv1DTranspose: ("kernel", "bias"),
    _layers.Conv2DTranspose: ("kernel", "bias"),
    _layers.Conv3DTranspose: ("kernel", "bias"),
    _layers.DepthwiseConv2D: ("depthwise_kernel", "bias"),
    _layers.SeparableConv2D: ("pointwise_kernel", "bias"),
    _layers.Dense: ("kernel", "bias"),
    _layers.BatchNormalization: ("gamma", "beta"),
    _layers.GroupNormalization: ("gamma", "beta"),
    _layers.LayerNormalization: ("gamma", "beta"),
}
# Layers that pass zeros on.
_PASSING = (_layers.Dropout, _layers.SpatialDropout2D, _layers.ReLU)


@dataclasses.dataclass(frozen=True)
class Branch:
    """One operand of an addition, and what goes if it is dropped.

    Attributes:
      addition: Name of the layer that adds, after the names of the models around it.
      operand: Which of its operands it is.
      last: Name of the layer that makes the operand, likewise.
      layers: Names of all layers that go with it, without the addition.
      reason: Why it cannot be dropped, or "".
    """

    addition: str
    operand: int
    last: str
    layers: tuple[str, ...]
    reason: str


class BranchRemoval(Rewrite):
    """A checked removal of a branch, not yet carried out.

    Attributes:
      model: The model that it is about; not changed.
      branch: The branch.
    """

    def __init__(self, trace: Trace, branch: Branch, place: _Place) -> None:
        super().__init__(trace)
        self.branch = branch
        self._place = place

    def apply(self, weights: Optional[Sequence[np.ndarray]] = None) -> tf.keras.Model:
        """Builds the model without the branch, see `Rewrite.apply`."""
        node = self._place.node
        left = [i for i in range(len(node.keras_inputs)) if i != self.branch.operand]
        rebuilder = Rebuilder(
            self._trace,
            all_kept,
            operands={id(node): left},
            dropped={id(other) for other in self._place.dead},
        )
        new = rebuilder.build()
        self._inherit(rebuilder, new, self._values(weights), {})
        return new

    def weights_in_place(self, weights: Optional[Sequence[np.ndarray]] = None) -> list[np.ndarray]:
        """Returns weights with which the old architecture computes what the new one would.

        Args:
          weights: Values of `model.weights`; None for the present ones.

        Returns:
          The same values, but for those of the branch's last layer, which are zero.

        Raises:
          UserError: If no weights of the last layer make the branch add zeros.
        """
        values = self._values(weights)
        for weight in _silencers(self._place, self.branch):
            at = self._position[id(weight)]
            values[at] = np.zeros_like(values[at])
        return values


@dataclasses.dataclass
class _Place:
    """Where a branch is.

    Attributes:
      graph: The model or nested model that adds.
      node: The node of the addition.
      dead: Nodes that nothing reads without the branch.
    """

    graph: tf.keras.Model
    node: Any
    dead: list[Any]


def drop_branch(
    model: Union[tf.keras.Model, Network], addition: str, branch: Union[int, str]
) -> tf.keras.Model:
    """Removes a branch of an addition; with two branches the addition goes as well.

    Args:
      model: A built functional model, or its network; not changed.
      addition: See `plan_branch_removal`.
      branch: See `plan_branch_removal`.

    Returns:
      The smaller model, everything else inherited.

    Raises:
      UserError: See `plan_branch_removal`.

    Example:
    >>> from tff_autoprune import models, surgery
    >>> model = models.build("resnet", input_shape=(28, 28, 1), num_classes=62)
    >>> for branch in surgery.residual_branches(model)[:2]:
    ...     print(branch.addition, branch.last, len(branch.layers))
    block_1_add block_1_conv_2_norm 5
    block_1_add block_1_shortcut_norm 2
    >>> smaller = surgery.drop_branch(model, "block_1_add", "block_1_conv_2_norm")
    >>> [layer.name for layer in smaller.layers if layer.name.startswith("block_1")]
    ['block_1_shortcut', 'block_1_shortcut_norm', 'block_1_relu_2']
    """
    return plan_branch_removal(model, addition, branch).apply()


def plan_branch_removal(
    model: Union[tf.keras.Model, Network], addition: str, branch: Union[int, str]
) -> BranchRemoval:
    """Checks the removal of a branch without building anything.

    Args:
      model: A built functional model, or its network.
      addition: Name of the layer that adds (an `Add` layer or a `+`), after the names of the models
        around it.
      branch: Which of its operands goes: its number, or the name of the layer that makes it.

    Returns:
      The checked removal.

    Raises:
      UserError: If there is no such addition or branch, or what is left has another shape.
    """
    trace = Network.of(model).trace
    everywhere = _branches(trace.model)
    found = [(b, place) for b, place in everywhere if b.addition == addition]
    if not found:
        known = dict.fromkeys(b.addition for b, _ in everywhere)
        raise UserError(
            f"There is no addition '{addition}'. There are: {', '.join(known) or 'none'}."
        )
    chosen = [(b, place) for b, place in found if branch in (b.operand, b.last)]
    if len(chosen) != 1:
        known = ", ".join(f"{b.operand} ('{b.last}')" for b, _ in found)
        raise UserError(f"'{addition}' adds the branches {known}; found branch {branch!r}.")
    if chosen[0][0].reason:
        raise UserError(f"The branch {branch!r} of '{addition}' must stay: {chosen[0][0].reason}.")
    return BranchRemoval(trace, *chosen[0])


def residual_branches(model: Union[tf.keras.Model, Network]) -> list[Branch]:
    """Returns all branches of all additions of a model, those that must stay with the reason.

    Args:
      model: A built functional or sequential model, or its network.
    """
    network = Network.of(model)
    check_model(network.model)
    return [branch for branch, _ in _branches(network.model)]


def _branches(
    model: tf.keras.Model, prefix: str = "", seen: Optional[set[int]] = None
) -> list[tuple[Branch, _Place]]:
    found, seen = [], set() if seen is None else seen
    for node in ordered_nodes(model):
        layer = node.layer
        if node.is_input:
            continue
        if registry.computes_its_graph(layer):
            if id(layer) not in seen:
                seen.add(id(layer))
                found.extend(_branches(layer, f"{prefix}{layer.name}/", seen))
        elif _adds(node):
            for operand in range(len(node.keras_inputs)):
                found.append(_branch(model, prefix, node, operand))
    return found


def _adds(node: Any) -> bool:
    """Whether a node does nothing but add tensors of the model."""
    layer = node.layer
    if type(layer) is _layers.Add:
        return True
    if not isinstance(layer, TFOpLambda) or layer.symbol not in _ADDITIONS:
        return False
    return len(node.keras_inputs) == 2


def _branch(model: tf.keras.Model, prefix: str, node: Any, operand: int) -> tuple[Branch, _Place]:
    output = node.outputs
    left = [x for i, x in enumerate(node.keras_inputs) if i != operand]
    source = node.keras_inputs[operand].node
    reason = ""
    if not left:
        reason = "nothing else is added"
    elif all(tuple(x.shape) != tuple(output.shape) for x in left):
        reason = f"what is left has the shape {tuple(left[0].shape)}, not {tuple(output.shape)}"
    elif len(left) == 1 and left[0].dtype != output.dtype:
        reason = f"what is left is of type {left[0].dtype.name}, not {output.dtype.name}"
    elif len(left) == 1 and not prefix and any(x is output for x in model.outputs):
        reason = "the addition is an output of the model, and gives it its name"
    dead = [] if reason else _dead(model, node, left)
    names = tuple(dict.fromkeys(f"{prefix}{other.layer.name}" for other in dead))
    branch = Branch(
        f"{prefix}{node.layer.name}", operand, f"{prefix}{source.layer.name}", names, reason
    )
    return branch, _Place(model, node, dead)


def _dead(model: tf.keras.Model, addition: Any, left: Sequence[Any]) -> list[Any]:
    """Returns the nodes that nothing reads any more."""

    def needed(without: bool) -> set[int]:
        # What `add_loss` and `add_metric` read is needed too.
        ends = [n for n in nodes if type(n.layer).__name__ in ("AddLoss", "AddMetric")]
        pending = [x.node for x in model.outputs] + ends
        seen: set[int] = set()
        while pending:
            node = pending.pop()
            if id(node) not in seen:
                seen.add(id(node))
                inputs = left if without and node is addition else node.keras_inputs
                pending.extend(x.node for x in inputs)
        return seen

    nodes = ordered_nodes(model)
    live = needed(without=True)
    return [node for node in nodes if not node.is_input and id(node) not in live]


def _silencers(place: _Place, branch: Branch) -> list[tf.Variable]:
    """Returns the weights that make a branch zero."""
    node = place.node.keras_inputs[branch.operand].node
    while isinstance(node.layer, _PASSING) and not _shifts(node.layer):
        node = node.keras_inputs[0].node
    layer = node.layer
    names = _SILENCERS.get(type(layer), ())
    weights = [getattr(layer, name, None) for name in names]
    activation = getattr(layer, "activation", None)
    zero = activation is None or float(np.abs(activation(tf.zeros([1, 2]))).max()) == 0.0
    if not names or weights[0] is None or not zero or len(layer.inbound_nodes) > 1:
        raise UserError(
            f"The branch '{branch.last}' of '{branch.addition}' ends in '{layer.name}', whose "
            "weights cannot make it zero."
        )
    return [weight for weight in weights if weight is not None]


def _shifts(layer: tf.keras.layers.Layer) -> bool:
    return bool(getattr(layer, "threshold", 0.0))

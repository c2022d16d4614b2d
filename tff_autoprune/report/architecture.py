"""The network before and after pruning, as a graph of the layers that have channels of their own.

Activations, normalization, pooling and reshaping follow the channels of the layer before them, so
they are listed with it instead of being drawn.
"""

from __future__ import annotations

import dataclasses

import tensorflow as tf

from tff_autoprune import surgery
from tff_autoprune.surgery import cost

_MERGED_KINDS = {"Concatenate": "concatenate", "Add": "add"}
_SHORT_KINDS = {
    "BatchNormalization": "batch norm",
    "GroupNormalization": "group norm",
    "MaxPooling2D": "max pool",
    "AveragePooling2D": "average pool",
    "GlobalAveragePooling2D": "global average pool",
    "GlobalMaxPooling2D": "global max pool",
    "ReLU": "relu",
    "Flatten": "flatten",
    "Dropout": "dropout",
    "Softmax": "softmax",
}


@dataclasses.dataclass
class Node:
    """One layer of the drawing.

    Attributes:
      name: The Keras layer's name.
      kind: What it is, e.g. "conv 3×3 /2".
      before: Channels it puts out in the dense model.
      after: The same in the pruned model.
      inputs: Names of the nodes it reads.
      prunable: Whether some of its channels may be removed.
      rank: Channels of the linear layer that factorization put before it; 0 if it is whole.
      followers: What follows it without channels of its own, e.g. ["relu", "max pool"].
      parameters: In the dense and in the pruned model, its followers' included.
      flops: Likewise.
    """

    name: str
    kind: str
    before: int
    after: int
    inputs: list[str]
    prunable: bool = False
    rank: int = 0
    followers: list[str] = dataclasses.field(default_factory=list)
    parameters: tuple[int, int] = (0, 0)
    flops: tuple[int, int] = (0, 0)


def graph(dense: tf.keras.Model, pruned: tf.keras.Model) -> list[Node]:
    """Returns the nodes of a network, each after those that it reads.

    Args:
      dense: The model of the start.
      pruned: The model it became; its layers have the same names. A layer that was factorized has
        one more before it, "NAME_rank".
    """
    after = {layer.name: layer for layer in pruned.layers}
    prunable = {
        member.layer.split("/")[0]
        for group in surgery.find_filter_groups(dense)
        if group.prunable
        for member in group.producers
    }
    nodes: dict[str, Node] = {}
    owner: dict[str, str] = {}  # From every layer to the node that stands for it.
    for layer in dense.layers:
        sources = list(dict.fromkeys(owner[name] for name in _input_layers(layer) if name in owner))
        if _is_drawn(layer, sources):
            channels = _channels(layer)
            nodes[layer.name] = Node(
                name=layer.name,
                kind=_kind(layer),
                before=channels,
                after=_channels(after.get(layer.name, layer)),
                inputs=sources,
                # A merge has the channels of what it reads.
                prunable=layer.name in prunable
                or (not _kernel_shape(layer) and any(nodes[name].prunable for name in sources)),
            )
            owner[layer.name] = layer.name
        else:
            owner[layer.name] = sources[0]
            short = _SHORT_KINDS.get(type(layer).__name__)
            if isinstance(layer, tf.keras.layers.Activation):
                short = layer.activation.__name__
            if short and short != "linear":
                nodes[sources[0]].followers.append(short)
        activation = getattr(layer, "activation", None)
        if layer.name in nodes and getattr(activation, "__name__", "linear") != "linear":
            nodes[layer.name].followers.append(activation.__name__)
    for layer in pruned.layers:
        if layer.name not in owner:
            owner[layer.name] = _factorized(layer.name, owner)
            nodes[owner[layer.name]].rank = _channels(layer)
    _add_costs(nodes, owner, dense, pruned)
    return list(nodes.values())


def _add_costs(
    nodes: dict[str, Node], owner: dict[str, str], dense: tf.keras.Model, pruned: tf.keras.Model
) -> None:
    """Charges each layer's cost to the node that stands for it: the sums are the model's."""
    for index, model in enumerate((dense, pruned)):
        for row in cost.of(model).table.itertuples():
            # A nested model's layers are "model/layer"; the drawing shows the model as one node.
            node = nodes[owner[row.layer.split("/")[0]]]
            for name in ("parameters", "flops"):
                pair = list(getattr(node, name))
                pair[index] += int(getattr(row, name))
                setattr(node, name, tuple(pair))


def _factorized(name: str, owner: dict[str, str]) -> str:
    """Returns the node that a layer that only the pruned model has belongs to, by its name."""
    stem = max((known for known in owner if name.startswith(f"{known}_")), key=len)
    return owner[stem]


def _input_layers(layer: tf.keras.layers.Layer) -> list[str]:
    """Returns the names of the layers that a layer reads."""
    if not layer.inbound_nodes:
        return []
    found = layer.inbound_nodes[0].inbound_layers
    return [source.name for source in (found if isinstance(found, list) else [found])]


def _is_drawn(layer: tf.keras.layers.Layer, sources: list[str]) -> bool:
    return not sources or len(sources) > 1 or bool(_kernel_shape(layer))


def _kernel_shape(layer: tf.keras.layers.Layer) -> tuple[int, ...]:
    for name in ("kernel", "depthwise_kernel"):
        if hasattr(layer, name):
            return tuple(getattr(layer, name).shape)
    return ()


def _channels(layer: tf.keras.layers.Layer) -> int:
    shape = layer.output_shape
    return int((shape[0] if isinstance(shape, list) else shape)[-1] or 0)


def _kind(layer: tf.keras.layers.Layer) -> str:
    class_name = type(layer).__name__
    if isinstance(layer, tf.keras.layers.InputLayer):
        sizes = layer.output_shape[0][1:3]
        return "input " + "×".join(map(str, sizes))
    if class_name in _MERGED_KINDS:
        return _MERGED_KINDS[class_name]
    kernel = _kernel_shape(layer)
    if len(kernel) == 4:
        stride = getattr(layer, "strides", (1, 1))[0]
        step = f" /{stride}" if stride > 1 else ""
        prefix = "depthwise" if "Depthwise" in class_name else "conv"
        return f"{prefix} {kernel[0]}×{kernel[1]}{step}"
    return class_name.lower()

"""Products that sum over an axis: Dot, matmul, einsum, EinsumDense.

Between two tensors the summed axis keeps its channels (there is no weight that would go with them);
channels along the other axes pass through.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Optional

import numpy as np
import tensorflow as tf

from tff_autoprune.surgery.call import Call
from tff_autoprune.surgery.layer_rules import register_layer, register_operator
from tff_autoprune.surgery.rules.reshaping import permuted
from tff_autoprune.surgery.traced_tensor import TracedTensor, varying


def contract(
    call: Call, tensors: Sequence[TracedTensor], labels: Sequence[str], output: str
) -> TracedTensor:
    """Returns the output of an einsum with one letter for each axis.

    Args:
      call: The call.
      tensors: The operands.
      labels: Letters of the axes of each operand.
      output: Letters of the axes of the output.
    """
    aligned = []
    for tensor, own in zip(tensors, labels):
        summed = [axis for axis, letter in enumerate(own) if letter not in output]
        tensor = call.mix(tensor, summed, f"is summed over by '{call.path}'")
        keep = [letter for letter in output if letter in own]
        order = [own.index(letter) for letter in keep]
        tensor = permuted(
            tensor.with_factors(f for f in tensor.factors if varying(f)), [*order, *summed]
        )
        shape: list[Optional[int]] = [1] * len(output)
        index: list[Any] = [np.newaxis] * len(output)
        for place, letter in enumerate(keep):
            shape[output.index(letter)] = tensor.shape[place]
            index[output.index(letter)] = slice(None)
        factors = [f[(*index, *([0] * len(summed)))] for f in tensor.factors]
        aligned.append(TracedTensor(tuple(shape), tuple(factors), tensor.dtype))
    return call.elementwise(aligned, f"is multiplied with values that must stay in '{call.path}'")


@register_layer(tf.keras.layers.Dot)
def _dot(call: Call) -> TracedTensor:
    first, second = call.inputs
    axes = call.layer.axes
    axes = [axes, axes] if isinstance(axes, int) else list(axes)
    axes = [x.axis(axis) for x, axis in zip((first, second), axes)]
    # "b" is the batch, "z" the summed axis.
    left = ["b", *(chr(ord("c") + i) for i in range(first.rank - 1))]
    right = ["b", *(chr(ord("n") + i) for i in range(second.rank - 1))]
    left[axes[0]] = right[axes[1]] = "z"
    output = "".join(letter for letter in left + right[1:] if letter != "z")
    if call.outputs[0].rank != len(output):  # Two vectors give one number, of shape [batch, 1].
        return call.opaque(f"is summed over by '{call.path}'")[0]
    return contract(call, [first, second], ["".join(left), "".join(right)], output)


@register_operator("linalg.matmul")
def _matmul(call: Call) -> TracedTensor:
    first, second = call.argument("a"), call.argument("b")
    unusual = any(call.argument(name) for name in ("adjoint_a", "adjoint_b"))
    if unusual or not all(isinstance(x, TracedTensor) for x in (first, second)):
        return call.opaque(f"is multiplied with a constant in '{call.path}'")[0]
    if first.rank != second.rank:
        return call.opaque(f"reaches '{call.path}' with operands of unequal rank")[0]
    batch = "".join(chr(ord("a") + i) for i in range(first.rank - 2))
    left = batch + ("zx" if call.argument("transpose_a") else "xz")
    right = batch + ("yz" if call.argument("transpose_b") else "zy")
    return contract(call, [first, second], [left, right], batch + "xy")


@register_operator("einsum")
def _einsum(call: Call) -> TracedTensor:
    equation = str(call.args[0]).replace(" ", "")
    operands = call.args[1:]
    plain = "->" in equation and "..." not in equation
    if not plain or not all(isinstance(x, TracedTensor) for x in operands):
        return call.opaque(f"reaches '{call.path}', which cannot be followed")[0]
    left, output = equation.split("->")
    labels = left.split(",")
    if any(len(set(own)) != len(own) for own in labels):
        return call.opaque(f"reaches '{call.path}', which takes a diagonal")[0]
    return contract(call, operands, labels, output)


def _letters(equation: str, rank: int) -> tuple[str, str, str]:
    """Returns the letters of input, kernel and output, with "..." written out."""
    inputs, rest = equation.replace(" ", "").split(",")
    kernel, output = rest.split("->")
    if "..." in inputs:
        used = set(inputs + kernel + output)
        free = [chr(c) for c in range(ord("A"), ord("Z") + 1) if chr(c) not in used]
        more = "".join(free[: rank - len(inputs) + 3])
        inputs, output = inputs.replace("...", more), output.replace("...", more)
    return inputs, kernel, output


@register_layer(tf.keras.layers.EinsumDense)
def _einsum_dense(call: Call) -> TracedTensor:
    layer, x = call.layer, call.x
    inputs, kernel, output = _letters(layer.equation, x.rank)
    summed = [
        axis for axis, letter in enumerate(inputs) if letter not in output and letter not in kernel
    ]
    x = call.mix(x, summed, f"is summed over by '{call.path}'")
    made: list[tuple[int, np.ndarray]] = []
    for axis, letter in enumerate(kernel):
        if letter not in inputs:
            ids = call.produce(layer.kernel, axis)
            made.append((output.index(letter), ids))
        elif letter in output:
            call.carry(layer.kernel, axis, call.along(x, inputs.index(letter)))
        else:
            call.consume(layer.kernel, axis, call.along(x, inputs.index(letter)))
    keep = [letter for letter in output if letter in inputs]
    gone = [inputs.index(letter) for letter in inputs if letter not in output]
    order = [*(inputs.index(letter) for letter in keep), *gone]
    index = [slice(None) if letter in keep else np.newaxis for letter in output]
    passing = [
        factor.transpose(order)[(*index, *([0] * len(gone)))]
        for factor in call.factors_of(x)
        if varying(factor) and not set(varying(factor)) & set(gone)
    ]
    y = call.tensor([*(call.vector(ids, axis) for axis, ids in made), *passing])
    if layer.bias is not None:
        for axis, size in enumerate(layer.bias.shape):
            if size > 1:
                call.carry(layer.bias, axis, call.along(y, axis - len(layer.bias.shape)))
    _resize_output(call, made)
    return call.activation(layer.activation, y)


def _resize_output(call: Call, made: Sequence[tuple[int, np.ndarray]]) -> None:
    def edit(config: dict[str, Any], kept: Any) -> None:
        given = config["output_shape"]
        shape = [given] if isinstance(given, int) else list(given)
        for axis, ids in made:
            place = axis - call.outputs[0].rank + len(shape)
            if place >= 0 and shape[place] is not None:
                shape[place] = int(kept(ids).sum())
        config["output_shape"] = tuple(shape)

    call.configure(edit)

"""Splits a kernel into a reading and a writing part of low rank, by truncated SVD.

A kernel is seen as a tensor T [offsets, input channels, the rest]:

    dense       T [places, c, units]               Dense c -> r, Dense r -> units
    channel     T [k1 k2, c, filters]              conv k1 x k2 c -> r, conv 1x1 r -> filters
    spatial     T [k1, c, k2 filters]              conv k1 x 1 c -> r, conv 1 x k2 r -> filters
    depthwise   [k1 k2, filters] for each of c     depthwise k1 x k2 with r filters each, conv 1x1

Minimized is E |x^T (T - AB)|^2, with second moments G = E x x^T of the input channels at one place
(the identity, if not given); places of the window are taken to be uncorrelated. With
T' = G^(1/2) T = U S V^T, the best AB of rank r is T V_r V_r^T: A = T V_r, B = V_r^T, no inverse of
G. Jaderberg et al. 2014, arXiv 1405.3866; Zhang et al. 2016, arXiv 1505.06798 (errors of outputs).
"""

from __future__ import annotations

import dataclasses
import math
from typing import Optional

import numpy as np

KINDS = ("spatial", "channel", "depthwise", "dense")

# Added to the second moments, as a share of their mean diagonal: directions that the layer did not
# read so far come last, and at full rank nothing is lost of them either.
_DAMPING = 1e-6
# Both sides of a rank get the same norm. What would be scaled up by more than this, because its
# singular value is nearly zero, is left smaller: a pair of zeros would never learn.
_LEAST_NORM = 1e-3


@dataclasses.dataclass(frozen=True)
class Split:
    """How the kernel of one layer falls into two.

    Attributes:
      kind: One of `KINDS`.
      window: Size of the kernel along each axis of space, () for a dense layer.
      inputs: Channels (or, for a dense layer, values) that it reads.
      outputs: Filters or units.
      transposed: Whether the layer is a transposed convolution, whose kernel has its last two axes
        swapped. As `channel`, a 1x1 convolution to the rank comes first then.
    """

    kind: str
    window: tuple[int, ...]
    inputs: int
    outputs: int
    transposed: bool = False

    @property
    def max_rank(self) -> int:
        """The rank at which nothing is lost, whatever the weights are."""
        size = math.prod(self.window)
        if self.kind == "depthwise":
            return min(size, self.outputs)
        if self.kind == "spatial":
            left = self.window[0]
            return min(left * self.inputs, size // left * self.outputs)
        if self.transposed:
            return min(self.inputs, size * self.outputs)
        return min(size * self.inputs, self.outputs)

    @property
    def parameters_per_rank(self) -> int:
        """Weights of both layers for each rank, biases left out."""
        size = math.prod(self.window)
        if self.kind == "depthwise":
            return self.inputs * (size + self.outputs)
        if self.kind == "spatial":
            left = self.window[0]
            return left * self.inputs + size // left * self.outputs
        if self.transposed:
            return self.inputs + size * self.outputs
        return size * self.inputs + self.outputs

    def tensor(self, kernel: np.ndarray) -> np.ndarray:
        """Returns T [offsets, inputs, rest]; if depthwise [inputs, offsets, outputs]."""
        kernel = kernel.swapaxes(-1, -2) if self.transposed else kernel
        if self.kind == "depthwise":
            return np.moveaxis(kernel, -2, 0).reshape(self.inputs, -1, self.outputs)
        if self.kind == "spatial":
            return np.moveaxis(kernel, -2, 1).reshape(self.window[0], self.inputs, -1)
        if self.transposed:
            return np.moveaxis(kernel, -2, 0).reshape(1, self.inputs, -1)
        return kernel.reshape(-1, self.inputs, self.outputs)

    def kernel(self, tensor: np.ndarray) -> np.ndarray:
        """Returns the kernel that `tensor` was made of."""
        if self.kind == "depthwise" or (self.transposed and self.kind != "spatial"):
            tensor = tensor.reshape(self.inputs, *self.window, self.outputs)
            kernel = np.moveaxis(tensor, 0, -2)
        elif self.kind == "spatial":
            tensor = tensor.reshape(self.window[0], self.inputs, *self.window[1:], self.outputs)
            kernel = np.moveaxis(tensor, 1, -2)
        else:
            kernel = tensor.reshape(*self.window, self.inputs, self.outputs)
        return kernel.swapaxes(-1, -2) if self.transposed else kernel

    def reading_kernel(self, reading: np.ndarray) -> np.ndarray:
        """Returns A [offsets, inputs, rank] as the kernel of the layer that comes first."""
        rank = reading.shape[-1]
        if self.kind == "depthwise":
            return np.moveaxis(reading.reshape(self.inputs, *self.window, rank), 0, -2)
        if self.kind == "spatial":
            ones = (1,) * (len(self.window) - 1)
            kernel = reading.reshape(self.window[0], *ones, self.inputs, rank)
            return kernel.swapaxes(-1, -2) if self.transposed else kernel
        window = (1,) * len(self.window) if self.transposed else self.window
        return reading.reshape(*window, self.inputs, rank)

    def writing_kernel(self, writing: np.ndarray) -> np.ndarray:
        """Returns B [rank, rest] as the kernel of the layer that comes second."""
        rank = len(writing)
        if self.kind == "spatial":
            window = (1, *self.window[1:])
        else:
            window = self.window if self.transposed else (1,) * len(self.window)
        kernel = np.moveaxis(writing.reshape(rank, *window, self.outputs), 0, -2)
        return kernel.swapaxes(-1, -2) if self.transposed else kernel

    def reading(self, kernel: np.ndarray) -> np.ndarray:
        """Returns A of a kernel made by `reading_kernel`."""
        if self.kind == "depthwise":
            return np.moveaxis(kernel, -2, 0).reshape(self.inputs, -1, kernel.shape[-1])
        swapped = self.transposed and self.kind == "spatial"
        kernel = kernel.swapaxes(-1, -2) if swapped else kernel
        return kernel.reshape(-1, self.inputs, kernel.shape[-1])

    def writing(self, kernel: np.ndarray) -> np.ndarray:
        """Returns B of a kernel made by `writing_kernel`."""
        kernel = kernel.swapaxes(-1, -2) if self.transposed else kernel
        return np.moveaxis(kernel, -2, 0).reshape(kernel.shape[-2], -1)

    def product(self, reading: np.ndarray, writing: np.ndarray) -> np.ndarray:
        """Returns the kernel that A and B make together."""
        if self.kind == "depthwise":
            writing = writing.reshape(self.inputs, -1, self.outputs)
        return self.kernel(reading @ writing)


def decompose(
    split: Split, kernel: np.ndarray, rank: int, moments: Optional[np.ndarray] = None
) -> tuple[np.ndarray, np.ndarray]:
    """Splits a kernel.

    Args:
      split: How.
      kernel: The kernel, of any float type.
      rank: Between 1 and `split.max_rank`.
      moments: Second moments of the input channels, float [channels, channels], of any scale; a
        dense layer behind a Flatten may read each channel at several places, in the order (place,
        channel). None stands for uncorrelated channels of equal size: an SVD of the weights.

    Returns:
      A and B, float64, see `Split`; the ranks in the order of their singular values, both sides of
      each of the same norm. Those of a lower rank are the first of those of a higher.
    """
    tensor = split.tensor(np.asarray(kernel, np.float64))
    if split.kind == "depthwise":
        return _decompose_channels(tensor, rank, moments)
    directions = _directions(_weighted(tensor, moments))
    return _balanced(tensor @ directions[:rank].T, directions[:rank])


def singular_values(
    split: Split, kernel: np.ndarray, moments: Optional[np.ndarray] = None
) -> np.ndarray:
    """Returns what each rank adds to the size of the output, float64 [max_rank], descending.

    Args:
      split: How the kernel would be split.
      kernel: The kernel.
      moments: As for `decompose`.
    """
    tensor = split.tensor(np.asarray(kernel, np.float64))
    if split.kind == "depthwise":
        sizes = np.ones(len(tensor)) if moments is None else np.diag(moments)
        values = np.linalg.svd(tensor, compute_uv=False)
        return np.sqrt(np.maximum(sizes, 0.0) @ values**2)
    weighted = _weighted(tensor, moments)
    return np.linalg.svd(weighted.reshape(-1, weighted.shape[-1]), compute_uv=False)


def lost_energy(values: np.ndarray) -> np.ndarray:
    """Returns the predicted error of the output at each rank, as a share of its energy.

    Args:
      values: From `singular_values`, float [max_rank].

    Returns:
      float64 [max_rank + 1]: from 1 at rank 0 to 0 at full rank.
    """
    energy = np.append(np.cumsum(np.square(values)[::-1])[::-1], 0.0)
    return energy / max(energy[0], np.finfo(np.float64).tiny)


def _weighted(tensor: np.ndarray, moments: Optional[np.ndarray]) -> np.ndarray:
    """Returns G^(1/2) T."""
    if moments is None:
        return tensor
    moments = np.asarray(moments, np.float64)
    damping = _DAMPING * np.trace(moments) / len(moments) + np.finfo(np.float64).tiny
    values, vectors = np.linalg.eigh((moments + moments.T) / 2)
    root = (vectors * np.sqrt(np.maximum(values, 0.0) + damping)) @ vectors.T
    return root @ tensor.reshape(-1, len(root), tensor.shape[-1])


def _directions(weighted: np.ndarray) -> np.ndarray:
    """Returns the right singular vectors [ranks, rest], those of large singular values first."""
    matrix = weighted.reshape(-1, weighted.shape[-1])
    if len(matrix) < matrix.shape[1]:
        return np.linalg.svd(matrix, full_matrices=False)[2]
    # Several times faster. The square root of float64's precision is that of float32 weights.
    return np.linalg.eigh(matrix.T @ matrix)[1].T[::-1]


def _balanced(reading: np.ndarray, writing: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Gives both sides of each rank the same norm; those of `writing` are 1."""
    norms = np.linalg.norm(reading.reshape(-1, reading.shape[-1]), axis=0)
    scale = np.sqrt(_not_too_small(norms, norms[0]))
    return reading / scale, writing * scale[:, None]


def _not_too_small(norms: np.ndarray, largest: float) -> np.ndarray:
    return np.maximum(norms, _LEAST_NORM * largest if largest > 0 else 1.0)


def _decompose_channels(
    tensor: np.ndarray, rank: int, moments: Optional[np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Splits [inputs, offsets, outputs] for each input by itself; with moments, B is refitted.

    The filters D of a channel are the best for that channel alone. What the 1x1 convolution makes
    of all of them is then a problem of least squares,

        sum_j (D_i^T D_j) G_ij B_j = sum_j D_i^T G_ij T_j    for every channel i.
    """
    _, values, directions = np.linalg.svd(tensor, full_matrices=False)
    writing = directions[:, :rank]
    reading = tensor @ writing.swapaxes(1, 2)
    scale = np.sqrt(_not_too_small(values[:, :rank], values.max()))
    reading, writing = reading / scale[:, None], writing * scale[:, :, None]
    inputs, _, outputs = tensor.shape
    flat = writing.reshape(inputs * rank, outputs)
    if moments is None or rank == min(tensor.shape[1:]):
        return reading, flat
    moments = np.asarray(moments, np.float64)
    overlap = np.einsum("ipa,jpb,ij->iajb", reading, reading, moments, optimize=True)
    overlap = overlap.reshape(inputs * rank, inputs * rank)
    mixed = np.tensordot(moments, tensor, axes=1)
    wanted = np.einsum("ipa,ipo->iao", reading, mixed, optimize=True).reshape(flat.shape)
    # What differs from the channel by channel solution is found, damped: it is right without data.
    damping = _DAMPING * np.trace(overlap) / len(overlap) + np.finfo(np.float64).tiny
    change = np.linalg.solve(overlap + damping * np.eye(len(overlap)), wanted - overlap @ flat)
    return reading, flat + change

"""Lengths and likeness of vectors: normalize, cosine_similarity, pairwise_distance; LRN."""

from __future__ import annotations

from typing import Any

import numpy as np

from mlgpu import dtypes
from mlgpu.cpu.gemm import cast, widen
from mlgpu.cpu.runtime import copy
from mlgpu.cuda import resample as cuda_resample
from mlgpu.errors import DTypeError, ShapeError
from mlgpu.op import Op, run
from mlgpu.ops.axis_map import window_map
from mlgpu.ops.linalg_norm import vector_norm
from mlgpu.ops.view import common_shape
from mlgpu.tensor import Tensor

__all__ = ["cosine_similarity", "local_response_norm", "normalize", "pairwise_distance"]


def normalize(input: Tensor, p: float = 2.0, dim: int | tuple[int, ...] = 1, eps: float = 1e-12,
              out: Tensor | None = None) -> Tensor:
    """input / max(p-norm of input along dim, eps)."""
    result = input / vector_norm(input, p, dim, keepdim=True).clamp_min(eps)
    return result if out is None else out.copy_(result)


def cosine_similarity(x1: Tensor, x2: Tensor, dim: int = 1, eps: float = 1e-8) -> Tensor:
    """The cosine of the angle between vectors along `dim`, after broadcasting.

    Norms below eps count as eps; their gradient is still the norm's, as in PyTorch.  Raises
    DTypeError unless one of both is floating.
    """
    dtype = dtypes.result_type(x1, x2)
    if not dtype.is_floating_point:
        raise DTypeError(f"cosine_similarity: expected floating tensors, got {x1.dtype.name} and "
                         f"{x2.dtype.name}; convert with .to()")
    shape = common_shape("cosine_similarity", x1, x2)
    x1, x2 = x1.to(dtype).expand(shape), x2.to(dtype).expand(shape)
    return (_directions(x1, dim, eps) * _directions(x2, dim, eps)).sum(dim)


def _directions(x: Tensor, dim: int, eps: float) -> Tensor:
    norm = vector_norm(x, 2, dim, keepdim=True)
    fixed = norm.detach()
    return x / (norm + (fixed.clamp_min(eps) - fixed))


def pairwise_distance(x1: Tensor, x2: Tensor, p: float = 2.0, eps: float = 1e-6,
                      keepdim: bool = False) -> Tensor:
    """The p-norm of x1 - x2 + eps over the last dimension, after broadcasting."""
    return vector_norm(x1 - x2 + eps, p, -1, keepdim=keepdim)


class WindowSum(Op):
    """out[:, c] = the sum of x[:, c - before] to x[:, c + after], what is outside being 0."""

    def __init__(self, before: int, after: int) -> None:
        self.before = before
        self.after = after

    def forward(self, x: Any) -> Any:
        source = widen(x)
        out = copy(source)
        channels = x.shape[1]
        for step in range(1, min(self.before, channels - 1) + 1):
            np.add(out[:, step:], source[:, :-step], out=out[:, step:])
        for step in range(1, min(self.after, channels - 1) + 1):
            np.add(out[:, :-step], source[:, step:], out=out[:, :-step])
        return cast(out, x.dtype)

    def forward_cuda(self, x: Any) -> Any:
        channels, size = x.shape[1], self.before + self.after + 1
        each = window_map(1 - x.ndim, channels, channels, size, 1, 1, self.before)
        return cuda_resample.apply(x, [each], None, None)

    def backward(self, dy: Tensor) -> Tensor:
        return run(WindowSum(self.after, self.before), dy)  # type: ignore[no-any-return]


def local_response_norm(input: Tensor, size: int, alpha: float = 1e-4, beta: float = 0.75,
                        k: float = 1.0) -> Tensor:
    """x / (k + alpha * mean of x² over `size` neighbouring channels) ** beta: input (N, C, L, ...).

    Krizhevsky et al. 2012.
    """
    if input.ndim < 3:
        raise ShapeError("local_response_norm: input must have at least 3 dimensions "
                         f"(N, C, ...), got {tuple(input.shape)}")
    if size < 1:
        raise ShapeError(f"local_response_norm: size must be at least 1, got {size}")
    total: Tensor = run(WindowSum(size // 2, (size - 1) // 2), input * input)
    return input / (total * (alpha / size) + k) ** beta

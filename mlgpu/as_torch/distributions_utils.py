"""torch.distributions.utils: what distributions of packages are written with."""

from __future__ import annotations

import functools
import math
from typing import Any

import mlgpu
from mlgpu import Tensor
from mlgpu.distributions.distribution import parameters
from mlgpu.distributions.independent import summed
from mlgpu.errors import ShapeError

euler_constant = 0.57721566490153286060
lazy_property = functools.cached_property
_sum_rightmost = summed


def broadcast_all(*values: Any) -> tuple[Tensor, ...]:
    """Tensors of one shape, of tensors and numbers; numbers take the dtype of the first tensor."""
    return parameters(*values)


def _standard_normal(shape: Any, dtype: Any, device: Any) -> Tensor:
    """Standard normal numbers."""
    return mlgpu.randn(*shape, dtype=dtype, device=device)


def clamp_probs(probs: Tensor) -> Tensor:
    """Probabilities kept from 0 and 1 by an epsilon."""
    eps = mlgpu.finfo(probs.dtype).eps
    return probs.clamp(eps, 1 - eps)


def logits_to_probs(logits: Tensor, is_binary: bool = False) -> Tensor:
    """Probabilities of logits, along the last dimension unless they are those of one event."""
    return logits.sigmoid() if is_binary else logits.softmax(-1)


def probs_to_logits(probs: Tensor, is_binary: bool = False) -> Tensor:
    """Logits of probabilities."""
    kept = clamp_probs(probs)
    return kept.log() - (-kept).log1p() if is_binary else kept.log()


def vec_to_tril_matrix(vec: Tensor, diag: int = 0) -> Tensor:
    """Numbers (..., count) as the lower triangle, up to a diagonal, of a matrix (..., n, n)."""
    count = vec.shape[-1]
    n = round((-(1 + 2 * diag) + math.sqrt((1 + 2 * diag) ** 2 + 8 * count
                                           + 4 * abs(diag) * (diag + 1))) / 2)
    rows, columns = mlgpu.tril_indices(n, n, diag, device=vec.device)
    if rows.numel() != count:
        raise ShapeError(f"vec_to_tril_matrix: {count} numbers are no lower triangle")
    matrix = vec.new_zeros((*vec.shape[:-1], n, n))
    matrix[..., rows, columns] = vec
    return matrix


def tril_matrix_to_vec(mat: Tensor, diag: int = 0) -> Tensor:
    """The lower triangle, up to a diagonal, of a matrix (..., n, n) as numbers (..., count)."""
    n = mat.shape[-1]
    rows, columns = mlgpu.tril_indices(n, n, diag, device=mat.device)
    return mat[..., rows, columns]

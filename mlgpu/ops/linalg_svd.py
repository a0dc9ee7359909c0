"""The older form of the singular value decomposition, which gives V and not its adjoint."""

from __future__ import annotations

from typing import NamedTuple

from mlgpu.ops import linalg_decompose
from mlgpu.ops.matmul import conj_transpose
from mlgpu.tensor import Tensor

__all__ = ["svd"]


class SVDResult(NamedTuple):
    """U diag(S) V^H is the matrix."""

    U: Tensor
    S: Tensor
    V: Tensor


def svd(input: Tensor, some: bool = True, compute_uv: bool = True) -> SVDResult:
    """U diag(S) V^H = input, S descending, as torch.svd; `mlgpu.linalg.svd` gives V^H.

    (..., m, n) to U (..., m, k), S (..., k) and V (..., n, k), k = min(m, n), with `some`; all of
    U (..., m, m) and V (..., n, n) without; zeros for them without `compute_uv`, which then have no
    gradient.  Raises LinAlgError for inf or NaN, ShapeError, DTypeError.
    """
    if not compute_uv:
        m, n = input.shape[-2:] if input.ndim > 1 else (0, 0)
        values = linalg_decompose.svdvals(input)
        lead = input.shape[:-2]
        return SVDResult(input.new_zeros(*lead, m, m), values, input.new_zeros(*lead, n, n))
    u, values, vh = linalg_decompose.svd(input, full_matrices=not some)
    return SVDResult(u, values, conj_transpose(vh))

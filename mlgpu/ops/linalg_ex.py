"""Linear algebra that says by a number, not by an error, where a matrix has no result."""

from __future__ import annotations

from mlgpu import dtypes
from mlgpu.errors import LinAlgError
from mlgpu.ops.creation import eye, zeros
from mlgpu.ops.linalg_det import slogdet
from mlgpu.ops.linalg_solve import inv
from mlgpu.ops.mask import masked_fill
from mlgpu.tensor import Tensor

__all__ = ["inv_ex"]


def inv_ex(A: Tensor, *, check_errors: bool = False) -> tuple[Tensor, Tensor]:
    """The inverses of square matrices (..., n, n), and an int32 for each: 0, or 1 if singular.

    The inverse of a singular matrix is NaN, and has no gradient.  Whether one is, is read on the
    host.  With `check_errors` LinAlgError is raised, as by `inv`.
    """
    info = zeros(*A.shape[:-2], dtype=dtypes.int32, device=A.device)
    try:
        return inv(A), info
    except LinAlgError:
        if check_errors:
            raise
    singular = slogdet(A.detach())[0].abs() == 0
    bad = singular[..., None, None].expand(A.shape)
    identity = eye(A.shape[-1], dtype=A.dtype, device=A.device)
    regular = masked_fill(A, bad, 0) + masked_fill(identity.expand(A.shape), ~bad, 0)
    return masked_fill(inv(regular), bad, float("nan")), singular.int()

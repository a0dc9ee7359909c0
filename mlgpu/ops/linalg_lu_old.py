"""The older forms of LU factorisations, under the names of the package and not of linalg."""

from __future__ import annotations

from mlgpu.ops import linalg_lu
from mlgpu.tensor import Tensor

__all__ = ["lu", "lu_solve"]


def lu(A: Tensor, pivot: bool = True, get_infos: bool = False
       ) -> linalg_lu.LUFactorResult | linalg_lu.LUFactorExResult:
    """`linalg.lu_factor`, or with `get_infos` `linalg.lu_factor_ex`, as torch.lu.

    `linalg.lu` is another function: it gives P, L and U.
    """
    if get_infos:
        return linalg_lu.lu_factor_ex(A, pivot=pivot)
    return linalg_lu.lu_factor(A, pivot=pivot)


def lu_solve(b: Tensor, LU_data: Tensor, LU_pivots: Tensor) -> Tensor:
    """X with A X = b, given `lu_factor(A)`: `linalg.lu_solve` with b first."""
    return linalg_lu.lu_solve(LU_data, LU_pivots, b)

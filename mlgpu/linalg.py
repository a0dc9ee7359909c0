"""Linear algebra, under the names of torch.linalg."""

from __future__ import annotations

from mlgpu.errors import LinAlgError
from mlgpu.guard import guard_module as _guard_module
from mlgpu.ops.linalg_decompose import cholesky, qr, svd, svdvals
from mlgpu.ops.linalg_det import det, slogdet
from mlgpu.ops.linalg_eigen import eig, eigh, eigvals, eigvalsh
from mlgpu.ops.linalg_ex import cholesky_ex, inv_ex, solve_ex
from mlgpu.ops.linalg_householder import householder_product
from mlgpu.ops.linalg_ldl import ldl_factor, ldl_factor_ex, ldl_solve
from mlgpu.ops.linalg_least import lstsq, matrix_rank, pinv
from mlgpu.ops.linalg_lu import lu, lu_factor, lu_factor_ex, lu_solve
from mlgpu.ops.linalg_matrix import linalg_cross as cross
from mlgpu.ops.linalg_matrix import linalg_diagonal as diagonal
from mlgpu.ops.linalg_matrix import linalg_vander as vander
from mlgpu.ops.linalg_matrix import matrix_exp, matrix_power
from mlgpu.ops.linalg_norm import cond, matrix_norm, vector_norm
from mlgpu.ops.linalg_norm import linalg_norm as norm
from mlgpu.ops.linalg_solve import inv, solve, solve_triangular
from mlgpu.ops.linalg_tensor import tensorinv, tensorsolve
from mlgpu.ops.matmul import matmul, multi_dot, vecdot

__all__ = [
    "LinAlgError", "cholesky", "cholesky_ex", "cond", "cross", "det", "diagonal", "eig", "eigh",
    "eigvals", "eigvalsh", "householder_product", "inv", "inv_ex", "ldl_factor", "ldl_factor_ex",
    "ldl_solve", "lstsq", "lu", "lu_factor", "lu_factor_ex", "lu_solve", "matmul", "matrix_exp",
    "matrix_norm", "matrix_power", "matrix_rank", "multi_dot", "norm", "pinv", "qr", "slogdet",
    "solve", "solve_ex", "solve_triangular", "svd", "svdvals", "tensorinv", "tensorsolve", "vander",
    "vecdot", "vector_norm",
]

_guard_module(globals())

"""Linear algebra, under the names of torch.linalg."""

from __future__ import annotations

from mlgpu.errors import LinAlgError
from mlgpu.guard import guard_module as _guard_module
from mlgpu.ops.linalg_decompose import cholesky, qr, svd, svdvals
from mlgpu.ops.linalg_det import det, slogdet
from mlgpu.ops.linalg_eigen import eig, eigh, eigvals, eigvalsh
from mlgpu.ops.linalg_ex import inv_ex
from mlgpu.ops.linalg_least import lstsq, matrix_rank, pinv
from mlgpu.ops.linalg_matrix import linalg_cross as cross
from mlgpu.ops.linalg_matrix import linalg_diagonal as diagonal
from mlgpu.ops.linalg_matrix import linalg_vander as vander
from mlgpu.ops.linalg_matrix import matrix_exp, matrix_power
from mlgpu.ops.linalg_norm import cond, matrix_norm, vector_norm
from mlgpu.ops.linalg_norm import linalg_norm as norm
from mlgpu.ops.linalg_solve import inv, solve, solve_triangular
from mlgpu.ops.matmul import matmul, multi_dot, vecdot

__all__ = [
    "LinAlgError", "cholesky", "cond", "cross", "det", "diagonal", "eig", "eigh", "eigvals",
    "eigvalsh", "inv", "inv_ex", "lstsq", "matmul", "matrix_exp", "matrix_norm", "matrix_power",
    "matrix_rank", "multi_dot", "norm", "pinv", "qr", "slogdet", "solve", "solve_triangular", "svd",
    "svdvals", "vander", "vecdot", "vector_norm",
]

_guard_module(globals())

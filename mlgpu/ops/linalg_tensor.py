"""Inverses and linear systems of tensors of many dimensions, taken for matrices."""

from __future__ import annotations

import math
from collections.abc import Sequence

from mlgpu.errors import ShapeError
from mlgpu.ops.linalg_solve import inv, solve
from mlgpu.tensor import Tensor

__all__ = ["tensorinv", "tensorsolve"]


def tensorinv(A: Tensor, ind: int = 2) -> Tensor:
    """The inverse for `tensordot` over `ind` dimensions: of shape A.shape[ind:] + A.shape[:ind].

    The first `ind` sizes and the others must have one product.  Raises LinAlgError for what has no
    inverse, ShapeError, DTypeError.
    """
    op = "linalg.tensorinv"
    if ind <= 0:
        raise ShapeError(f"{op}: ind must be positive, got {ind}")
    first, second = tuple(A.shape[:ind]), tuple(A.shape[ind:])
    if math.prod(first) != math.prod(second):
        raise ShapeError(f"{op}: the first {ind} sizes {first} and the others {second} must have "
                         "one product")
    n = math.prod(first)
    return inv(A.reshape(n, n)).reshape(second + first)


def tensorsolve(A: Tensor, B: Tensor, dims: Sequence[int] | None = None) -> Tensor:
    """X with tensordot(A, X, X.ndim) = B, after `dims` of A were moved to its end.

    A has B's shape and then X's, and both as many elements.  Raises LinAlgError for what has no
    solution, ShapeError, DTypeError.
    """
    op = "linalg.tensorsolve"
    if dims is not None:
        A = A.movedim(tuple(dims), tuple(range(A.ndim - len(dims), A.ndim)))
    shape = tuple(A.shape[B.ndim:])
    n = math.prod(shape)
    if A.numel() != n * n or B.numel() != n:
        raise ShapeError(f"{op}: A must have the sizes of B and then as many elements again, got A "
                         f"{tuple(A.shape)} and B {tuple(B.shape)}")
    return solve(A.reshape(n, n), B.reshape(n)).reshape(shape)

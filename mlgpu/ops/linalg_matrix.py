"""Functions of matrices: powers, exponential, trace, products of Kronecker and cross type."""

from __future__ import annotations

from typing import Any

import numpy as np

from mlgpu import dtypes
from mlgpu.cpu import lapack
from mlgpu.cpu.gemm import cast, widen
from mlgpu.cpu.runtime import empty
from mlgpu.errors import DTypeError, ShapeError
from mlgpu.op import Op, on_tensors, run
from mlgpu.ops.complex import conj
from mlgpu.ops.join import cat, stack
from mlgpu.ops.linalg_check import check_floating, check_square
from mlgpu.ops.linalg_solve import inv, solve
from mlgpu.ops.matmul import check_same_dtype, conj_transpose, matmul
from mlgpu.tensor import Tensor

__all__ = ["cross", "kron", "linalg_cross", "linalg_diagonal", "linalg_vander", "matrix_exp",
           "matrix_power", "trace", "vander"]


class MatrixExp(Op):
    """The matrix exponential.

    Its gradient is the upper right block of exp([[A^H, dY], [0, A^H]]) (Najfeld and Havel, 1995).
    """

    saved_inputs = (0,)

    def forward(self, a: Any) -> Any:
        return cast(lapack.expm(widen(a)), a.dtype)

    def forward_cuda(self, a: Any) -> Any:
        return on_tensors(lambda a: _exp(wide(a)).to(a.dtype), a)

    def backward(self, dy: Tensor) -> Tensor:
        a = conj_transpose(self.input(0))
        n = a.shape[-1]
        block = cat([cat([a, dy], dim=-1), cat([a.new_zeros(a.shape), a], dim=-1)], dim=-2)
        return run(MatrixExp(), block)[..., :n, n:]  # type: ignore[no-any-return]


def _exp(a: Tensor) -> Tensor:
    """As lapack.expm; how often to square is read on the host."""
    if not a.numel():
        return a.clone()
    norm = a.abs().sum(-2).amax(-1)
    finite = norm.isfinite()
    a = a.masked_fill(~finite[..., None, None], 0)
    squarings = (norm.masked_fill(~finite, 1).clamp_min(1e-30) / lapack.PADE_NORM).log2().ceil()
    squarings = squarings.clamp_min(0)
    a = a * (-squarings).exp2()[..., None, None]
    eye = a.new_zeros(a.shape[-1], a.shape[-1]).fill_diagonal_(1)
    powers = [eye, matmul(a, a)]
    powers.append(matmul(powers[1], powers[1]))
    powers.append(matmul(powers[2], powers[1]))

    def polynomial(odd: int) -> Tensor:
        low = [lapack.PADE[2 * k + odd] * powers[k] for k in range(4)]
        high = [lapack.PADE[2 * k + 6 + odd] * powers[k] for k in range(1, 4)]
        return low[0] + low[1] + low[2] + low[3] + matmul(powers[3], high[0] + high[1] + high[2])

    u, v = matmul(a, polynomial(1)), polynomial(0)
    result = solve(v - u, v + u)
    for step in range(int(squarings.max().item())):
        more = (squarings > step)[..., None, None]
        result = matmul(result, result).where(more, result)
    return result.masked_fill(~finite[..., None, None], float("nan"))


class Cross(Op):
    """The cross product of vectors along the last dimension; the others broadcast."""

    name = "linalg.cross"

    def keeps(self, needs: tuple[bool, ...]) -> tuple[int, ...]:
        return (0,) * needs[1] + (1,) * needs[0]

    def forward(self, a: Any, b: Any) -> Any:
        wide_a, wide_b = widen(a), widen(b)
        out = empty(np.broadcast_shapes(a.shape, b.shape), wide_a.dtype)
        for i in range(3):
            j, k = (i + 1) % 3, (i + 2) % 3
            np.multiply(wide_a[..., j], wide_b[..., k], out=out[..., i])
            np.subtract(out[..., i], wide_a[..., k] * wide_b[..., j], out=out[..., i])
        return cast(out, a.dtype)

    def forward_cuda(self, a: Any, b: Any) -> Any:
        return on_tensors(_cross, a, b)

    def backward(self, dy: Tensor) -> tuple[Tensor | None, Tensor | None]:
        da = run(Cross(), conj(self.input(1)), dy) if self.needs[0] else None
        return da, run(Cross(), dy, conj(self.input(0))) if self.needs[1] else None


def _cross(a: Tensor, b: Tensor) -> Tensor:
    first, second = ([wide(x)[..., i] for i in range(3)] for x in (a, b))
    parts = [first[i - 2] * second[i - 1] - first[i - 1] * second[i - 2] for i in range(3)]
    return stack(parts, -1).to(a.dtype)


def wide(x: Tensor) -> Tensor:
    """`x` in the dtype that it is computed in: float32 for half types."""
    return x.to(dtypes.float32) if x.dtype in (dtypes.float16, dtypes.bfloat16) else x


def matrix_power(input: Tensor, n: int) -> Tensor:
    """input multiplied with itself n times, by repeated squaring; of the inverse if n < 0.

    Raises LinAlgError for a singular matrix with n < 0, ShapeError, DTypeError.
    """
    check_square("linalg.matrix_power", input)
    if n < 0:
        return matrix_power(inv(input), -n)
    if n == 0:
        shape = input.shape
        eye = input.new_zeros(shape[-1], shape[-1]).fill_diagonal_(1)
        return eye.expand(shape).clone()
    result: Tensor | None = None
    while True:
        if n % 2:
            result = input if result is None else matmul(result, input)
        n //= 2
        if not n:
            assert result is not None
            return result.clone() if result is input else result
        input = matmul(input, input)


def matrix_exp(input: Tensor) -> Tensor:
    """The exponential of square matrices (..., n, n): the sum of input^k / k!."""
    check_floating("linalg.matrix_exp", input, half=True)
    check_square("linalg.matrix_exp", input)
    return run(MatrixExp(), input)  # type: ignore[no-any-return]


def trace(input: Tensor) -> Tensor:
    """The sum of a matrix's diagonal; int64 for integers."""
    if input.ndim != 2:
        raise ShapeError(f"trace: expected a matrix, got shape {tuple(input.shape)}")
    if input.dtype.kind == "bool":
        raise DTypeError("trace: not defined for bool; convert with .to(), e.g. to int64")
    return input.diagonal().sum()


def linalg_diagonal(A: Tensor, *, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Tensor:
    """The diagonals of the matrices in the last two dimensions, as a view."""
    return A.diagonal(offset, dim1, dim2)


def linalg_cross(input: Tensor, other: Tensor, *, dim: int = -1) -> Tensor:
    """The cross product of vectors of length 3 along `dim`; other dimensions broadcast.

    Raises ShapeError for other lengths and different numbers of dimensions, DTypeError for bool
    and different dtypes.
    """
    check_same_dtype("linalg.cross", input, other)
    if input.ndim != other.ndim:
        raise ShapeError("linalg.cross: both must have the same number of dimensions, got shapes "
                         f"{tuple(input.shape)} and {tuple(other.shape)}")
    if input.size(dim) != 3 or other.size(dim) != 3:
        raise ShapeError(f"linalg.cross: dimension {dim} must have length 3, got shapes "
                         f"{tuple(input.shape)} and {tuple(other.shape)}")
    try:
        np.broadcast_shapes(input.shape, other.shape)
    except ValueError:
        raise ShapeError(f"linalg.cross: shapes must broadcast, got {tuple(input.shape)} and "
                         f"{tuple(other.shape)}") from None
    product: Tensor = run(Cross(), input.movedim(dim, -1), other.movedim(dim, -1))
    return product.movedim(-1, dim)


def cross(input: Tensor, other: Tensor, dim: int | None = None) -> Tensor:
    """`linalg.cross` along `dim`, by default the first dimension of length 3."""
    if dim is None:
        if 3 not in input.shape:
            raise ShapeError(f"cross: no dimension of length 3, got shape {tuple(input.shape)}")
        dim = input.shape.index(3)
    return linalg_cross(input, other, dim=dim)


def kron(input: Tensor, other: Tensor) -> Tensor:
    """The Kronecker product: each element of `input` times the whole of `other`.

    (a0, ..., ak) and (b0, ..., bk) to (a0 b0, ..., ak bk), after padding the shorter shape with
    ones in front.
    """
    ndim = max(input.ndim, other.ndim)
    a = input.reshape(*[1] * (ndim - input.ndim), *input.shape)
    b = other.reshape(*[1] * (ndim - other.ndim), *other.shape)
    shape = [n * m for n, m in zip(a.shape, b.shape, strict=True)]
    a = a.reshape(*(size for n in a.shape for size in (n, 1)))
    b = b.reshape(*(size for m in b.shape for size in (1, m)))
    return (a * b).reshape(*shape)


def linalg_vander(x: Tensor, *, N: int | None = None) -> Tensor:
    """The powers 0 to N - 1 of each element, along a new last dimension; N is by default n."""
    if x.ndim == 0:
        x = x.unsqueeze(0)
    count = x.shape[-1] if N is None else N
    if count < 1:
        raise ShapeError(f"linalg.vander: N must be at least 1, got {count}")
    if x.dtype.kind in ("bool", "int"):
        x = x.to(dtypes.int64)
    ones = x.new_ones(*x.shape, 1)
    if count == 1:
        return ones
    return cat([ones, x.unsqueeze(-1).expand(*x.shape, count - 1).cumprod(-1)], dim=-1)


def vander(x: Tensor, N: int | None = None, increasing: bool = False) -> Tensor:
    """The matrix of powers N - 1 to 0 (0 to N - 1 if `increasing`) of a vector's elements, (n, N).

    N is n unless given.  Raises ShapeError unless x is a vector.
    """
    if x.ndim != 1:
        raise ShapeError(f"vander: expected a vector, got shape {tuple(x.shape)}")
    powers = linalg_vander(x, N=N)
    return powers if increasing else powers.flip(-1)

"""Dense linear algebra on the CPU: NumPy's LAPACK, with batches and typed errors.

Every function takes arrays of matrices in their last two dimensions, float32, float64, complex64
or complex128, and the name of the operation for its error messages.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from mlgpu.cpu.gemm import cast, gemm
from mlgpu.cpu.runtime import copy, empty
from mlgpu.errors import LinAlgError

Array = np.ndarray[Any, Any]

# Triangular systems are solved in blocks of this many rows: the rest is GEMM.
BLOCK = 64


def located(op: str, index: tuple[int, ...], reason: str) -> LinAlgError:
    """The error for the matrix at `index` of a batch."""
    place = f"(batch element {index[0] if len(index) == 1 else index}): " if index else ""
    return LinAlgError(f"{op}: {place}{reason}")


def _guarded(op: str, reason: str, function: Callable[..., Any], a: Array, *others: Array) -> Any:
    """function(a, *others), with NumPy's error turned into ours that names the batch element."""
    try:
        return function(a, *others)
    except np.linalg.LinAlgError:
        pass
    batch = np.broadcast_shapes(a.shape[:-2], *(b.shape[:-2] for b in others))
    whole = [np.broadcast_to(x, batch + x.shape[-2:]) for x in (a, *others)]
    for index in np.ndindex(batch):
        try:
            function(*(x[index] for x in whole))
        except np.linalg.LinAlgError:
            raise located(op, index, reason) from None
    raise LinAlgError(f"{op}: {reason}")


def _check_finite(op: str, a: Array) -> None:
    if np.isfinite(a).all():
        return
    for index in np.ndindex(a.shape[:-2]):
        if not np.isfinite(a[index]).all():
            raise located(op, index, "the matrix contains inf or NaN, so the algorithm would not "
                                     "converge")


def inv(op: str, a: Array) -> Array:
    """The inverses.  LinAlgError for a singular matrix."""
    return _guarded(op, "the matrix is singular and has no inverse",  # type: ignore[no-any-return]
                    np.linalg.inv, a)


def solve(op: str, a: Array, b: Array) -> Array:
    """x with a @ x = b; batches broadcast.  LinAlgError for a singular matrix."""
    if a.ndim == 2 and b.ndim > 2:
        # One factorisation for all right-hand sides.
        rows, lead = b.shape[-2], b.shape[:-2]
        columns = np.moveaxis(b, -2, 0).reshape(rows, math.prod(lead) * b.shape[-1])
        return np.moveaxis(solve(op, a, columns).reshape(rows, *lead, b.shape[-1]), 0, -2)
    return _guarded(op,  # type: ignore[no-any-return]
                    "the matrix is singular, the system has no unique solution",
                    np.linalg.solve, a, b)


def solve_triangular(op: str, a: Array, b: Array, upper: bool, unit: bool) -> Array:
    """x with a @ x = b for triangular a; the other triangle is not read."""
    if not upper:
        # Reversing rows and columns makes it upper triangular, for which LU needs no pivoting.
        flipped = solve_triangular(op, a[..., ::-1, ::-1], b[..., ::-1, :], True, unit)
        return copy(flipped[..., ::-1, :])
    rows = a.shape[-1]
    batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    x = empty((*batch, rows, b.shape[-1]), b.dtype)
    for start in reversed(range(0, rows, BLOCK)):
        stop = min(start + BLOCK, rows)
        rhs = b[..., start:stop, :]
        if stop < rows:
            rhs = rhs - gemm(a[..., start:stop, stop:], x[..., stop:, :])
        block = np.triu(a[..., start:stop, start:stop])
        if unit:
            np.einsum("...ii->...i", block)[...] = 1
        x[..., start:stop, :] = _guarded(op, "the triangular matrix has a zero on its diagonal",
                                         np.linalg.solve, block, rhs)
    return x


def cholesky(op: str, a: Array) -> Array:
    """Lower triangular l with l @ l^H = a, from a's lower triangle."""
    return _guarded(op, "the matrix is not positive definite",  # type: ignore[no-any-return]
                    np.linalg.cholesky, a)


def det(a: Array) -> Array:
    """The determinants."""
    return np.asarray(np.linalg.det(a))


def slogdet(a: Array) -> tuple[Array, Array]:
    """Sign (or phase) and logarithm of the absolute value of the determinants."""
    sign, logabsdet = np.linalg.slogdet(a)
    return np.asarray(sign), np.asarray(logabsdet)


def qr(a: Array, mode: Any) -> tuple[Array, Array]:
    """q and r; mode "reduced" or "complete"."""
    q, r = np.linalg.qr(a, mode)
    return q, r


def geqrf(a: Array) -> tuple[Array, Array]:
    """R with the Householder vectors under it, and their factors."""
    h, tau = np.linalg.qr(a, "raw")
    return copy(h.swapaxes(-1, -2)), tau


def svd(op: str, a: Array, full_matrices: bool) -> tuple[Array, Array, Array]:
    """u, s and v^H.  LinAlgError for a matrix with inf or NaN."""
    _check_finite(op, a)
    return tuple(_guarded(op, "the algorithm did not converge",
                          lambda x: np.linalg.svd(x, full_matrices), a))


def svdvals(op: str, a: Array) -> Array:
    """The singular values, descending."""
    _check_finite(op, a)
    return _guarded(op, "the algorithm did not converge",  # type: ignore[no-any-return]
                    lambda x: np.linalg.svd(x, compute_uv=False), a)


def eigh(op: str, a: Array, uplo: Any) -> tuple[Array, Array]:
    """Ascending eigenvalues and eigenvectors of Hermitian matrices, from one triangle."""
    _check_finite(op, a)
    return tuple(_guarded(op, "the algorithm did not converge",
                          lambda x: np.linalg.eigh(x, uplo), a))


def eigvalsh(op: str, a: Array, uplo: Any) -> Array:
    """Ascending eigenvalues of Hermitian matrices, from one triangle."""
    _check_finite(op, a)
    return _guarded(op, "the algorithm did not converge",  # type: ignore[no-any-return]
                    lambda x: np.linalg.eigvalsh(x, uplo), a)


def eig(op: str, a: Array) -> tuple[Array, Array]:
    """Complex eigenvalues and eigenvectors of norm 1, in no particular order."""
    _check_finite(op, a)
    values, vectors = _guarded(op, "the algorithm did not converge", np.linalg.eig, a)
    dtype = np.result_type(a.dtype, np.complex64)
    return cast(values, dtype), cast(vectors, dtype)


def lstsq(op: str, a: Array, b: Array, rcond: float) -> tuple[Array, Array, Array]:
    """The solution of least norm of least squares, ranks and singular values, per batch element."""
    _check_finite(op, a)
    _check_finite(op, b)
    batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    rows, columns = a.shape[-2:]
    a = np.broadcast_to(a, (*batch, rows, columns))
    b = np.broadcast_to(b, batch + b.shape[-2:])
    solution = empty((*batch, columns, b.shape[-1]), a.dtype)
    rank = empty(batch, np.int64)
    values = empty((*batch, min(rows, columns)), a.real.dtype)
    for index in np.ndindex(batch):
        try:
            solution[index], _, rank[index], values[index] = np.linalg.lstsq(a[index], b[index],
                                                                             rcond)
        except np.linalg.LinAlgError:
            raise located(op, index, "the algorithm did not converge") from None
    return solution, rank, values


# The coefficients of the [13/13] Pade approximant of exp and the largest 1-norm for which it is
# exact to double precision (Higham, "The scaling and squaring method for the matrix exponential
# revisited", 2005).
PADE = [math.factorial(26 - k) * math.comb(13, k) / math.factorial(26) * 1.0 for k in range(14)]
PADE_NORM = 5.371920351148152


def expm(a: Array) -> Array:
    """The matrix exponentials, by scaling, a Pade approximant, and squaring."""
    if not a.size:
        return copy(a)
    norm = np.abs(a).sum(-2).max(-1)
    finite = np.isfinite(norm)
    squarings = np.zeros(norm.shape, np.int64)
    np.copyto(squarings, np.ceil(np.log2(np.maximum(norm, 1e-30) / PADE_NORM)), where=finite,
              casting="unsafe")
    squarings = np.maximum(squarings, 0)
    a = a * np.exp2(-squarings[..., None, None].astype(a.real.dtype))
    powers = [np.broadcast_to(np.eye(a.shape[-1], dtype=a.dtype), a.shape), gemm(a, a)]
    powers.append(gemm(powers[1], powers[1]))
    powers.append(gemm(powers[2], powers[1]))

    def polynomial(odd: int) -> Array:
        low = sum(PADE[2 * k + odd] * powers[k] for k in range(4))
        high = sum(PADE[2 * k + 6 + odd] * powers[k] for k in range(1, 4))
        return low + gemm(powers[3], high)  # type: ignore[arg-type]

    u, v = gemm(a, polynomial(1)), polynomial(0)
    result = np.full_like(a, np.nan)
    # A matrix with inf or NaN has no exponential: all NaN, as arithmetic would have it.
    result[finite] = np.linalg.solve((v - u)[finite], (v + u)[finite])
    for step in range(int(squarings.max(initial=0))):
        more = squarings > step
        result[more] = gemm(result[more], result[more])
    return result

"""Dense linear algebra on CUDA: CuPy's cuSOLVER and cuBLAS, with batches and typed errors.

Functions and errors are those of mlgpu/cpu/lapack.py.  Whether a matrix was singular or a method
converged is read on the host, so these wait for the device, and cannot be part of a captured graph.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import numpy as np

from mlgpu.cpu.lapack import located
from mlgpu.cuda.context import context
from mlgpu.cuda.loading import load
from mlgpu.cuda.lu import LDL, LU
from mlgpu.cuda.runtime import contiguous, copy, empty, zeros
from mlgpu.errors import CaptureError, DeviceError, LinAlgError, MissingExtraError
from mlgpu.op import on_tensors
from mlgpu.storage import as_strided

SINGULAR = "the matrix is singular and has no inverse"
NO_SOLUTION = "the matrix is singular, the system has no unique solution"
NOT_POSITIVE = "the matrix is not positive definite"
NOT_CONVERGED = "the algorithm did not converge"
ZERO_DIAGONAL = "the triangular matrix has a zero on its diagonal"
NOT_FINITE = "the matrix contains inf or NaN, so the algorithm would not converge"


@contextmanager
def library(op: str) -> Iterator[Any]:
    """Within the block NVIDIA's libraries may be called for an operation, which errors name."""
    if context.capture is not None:
        raise _captured(op)
    cupy = load()
    try:
        with import_module("cupyx").errstate(linalg="raise"):
            yield cupy
    except NotImplementedError as error:  # CuPy's own refusal, in a capture that is not ours
        raise _captured(op) from error
    except ImportError as error:
        raise MissingExtraError(f"{op}: a library of NVIDIA's is not installed ({error}); "
                                "pip install 'mlgpu[cuda12-full]'") from error


def _captured(op: str) -> CaptureError:
    return CaptureError(f"{op}: cuSOLVER's result is checked on the host, which cannot be part of "
                        "a captured graph; compute it before the capture")


def _ours(array: Any) -> Any:
    """An array that CuPy made, on the books and in order."""
    from mlgpu.cuda.arrays import adopt

    return contiguous(adopt(array))


def _guarded(op: str, reason: str, function: Callable[..., Any], a: Any) -> Any:
    """function(a), with CuPy's error turned into ours that names the batch element."""
    with library(op):
        try:
            return function(a)
        except np.linalg.LinAlgError:
            pass
        for index in np.ndindex(a.shape[:-2]):
            try:
                function(a[index])
            except np.linalg.LinAlgError:
                raise located(op, index, reason) from None
    raise LinAlgError(f"{op}: {reason}")


def _check(op: str, good: Any, reason: str) -> None:
    """Raise for the first batch element of which this (an array on the host) is not true."""
    bad = np.argwhere(~good)
    if len(bad):
        raise located(op, tuple(map(int, bad[0])), reason)


def check_finite(op: str, a: Any) -> None:
    """LinAlgError for a matrix with inf or NaN."""
    if a.size:
        with library(op):
            _check(op, on_tensors(lambda x: x.isfinite().all(-1).all(-1), a).get(),
                   NOT_FINITE)


def _factored(op: str, a: Any, reason: str) -> LU:
    with library(op):
        made = LU(a)
        _check(op, made.info.get().reshape(made.batch) == 0, reason)
    return made


def _identity(a: Any) -> Any:
    from mlgpu.cuda.copy import fill

    eye = zeros(a.shape, a.dtype)
    n = a.shape[-1]
    fill(as_strided(eye, (*a.shape[:-2], n), (*eye.strides[:-2], (n + 1) * eye.itemsize)), 1)
    return eye


def inv(op: str, a: Any) -> Any:
    """The inverses.  LinAlgError for a singular matrix."""
    if not a.size:
        return empty(a.shape, a.dtype)
    return _factored(op, a, SINGULAR).solve(_identity(a))


def solve(op: str, a: Any, b: Any) -> Any:
    """x with a @ x = b; batches broadcast.  LinAlgError for a singular matrix."""
    rows, columns = b.shape[-2:]
    batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    if a.size and a.ndim == 2 and b.ndim > 2 and b.size:
        # One factorisation for all right-hand sides.
        folded = copy(b.transpose(b.ndim - 2, *range(b.ndim - 2), b.ndim - 1))
        x = solve(op, a, folded.reshape(rows, -1)).reshape(folded.shape)
        return copy(x.transpose(*range(1, b.ndim - 1), 0, b.ndim - 1))
    cupy = load()
    if not a.size:
        return empty((*batch, rows, columns), b.dtype)
    if 0 in batch:
        return empty((*batch, rows, columns), b.dtype)
    made = _factored(op, cupy.broadcast_to(a, (*batch, rows, rows)), NO_SOLUTION)
    if not columns:
        return empty((*batch, rows, columns), b.dtype)
    return made.solve(cupy.broadcast_to(b, (*batch, rows, columns)))


def solve_triangular(op: str, a: Any, b: Any, upper: bool, unit: bool) -> Any:
    """x with a @ x = b for triangular a; the other triangle is not read."""
    rows, columns = b.shape[-2:]
    batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    shape = (*batch, rows, columns)
    if 0 in shape:
        return empty(shape, b.dtype)
    with library(op) as cupy:
        if not unit:
            diagonal = on_tensors(lambda a: a.diagonal(0, -2, -1), a)
            _check(op, (diagonal.get() != 0).all(-1), ZERO_DIAGONAL)
        solved = import_module("cupyx.scipy.linalg").solve_triangular
        whole = [cupy.broadcast_to(x, (*batch, *x.shape[-2:])) for x in (a, b)]
        return _ours(solved(*whole, lower=not upper, unit_diagonal=unit))


def cholesky(op: str, a: Any) -> Any:
    """Lower triangular l with l @ l^H = a, from a's lower triangle."""
    return _ours(_guarded(op, NOT_POSITIVE, load().linalg.cholesky, a))


def lu(op: str, a: Any) -> tuple[Any, Any]:
    """The factors of matrices that are not empty, and their pivots, counted from 1."""
    with library(op):
        made = LU(a)
    return made.factors.reshape(a.shape), made.pivots.reshape(a.shape[:-1])


def lu_factor(op: str, a: Any, pivot: bool) -> tuple[Any, Any, Any]:
    """L and U of (..., m, n) in one matrix; pivots and info, both counted from 1."""
    batch, pivots = a.shape[:-2], (*a.shape[:-2], min(a.shape[-2:]))
    if not a.size:
        return empty(a.shape, a.dtype), empty(pivots, np.dtype(np.int32)), _no_info(batch)
    with library(op):
        made = LU(a.swapaxes(-1, -2), pivot)
    return (copy(made.factors.swapaxes(-1, -2)).reshape(a.shape), made.pivots.reshape(pivots),
            made.info.reshape(batch))


def ldl_factor(op: str, a: Any, hermitian: bool) -> tuple[Any, Any, Any]:
    """L and D in one lower triangle; pivots and info, both counted from 1."""
    if hermitian and a.dtype.kind == "c":
        raise DeviceError(f"{op}: cuSOLVER has no LDL factors of complex Hermitian matrices; move "
                          "the input with .cpu()")
    if not a.size:
        return (empty(a.shape, a.dtype), empty(a.shape[:-1], np.dtype(np.int32)),
                _no_info(a.shape[:-2]))
    with library(op):
        made = LDL(a)
    lower = on_tensors(lambda x: x.tril(), made.factors)
    info = on_tensors(_first_zero, lower, made.pivots)
    return (lower.reshape(a.shape), made.pivots.reshape(a.shape[:-1]),
            info.reshape(a.shape[:-2]))


def _first_zero(lower: Any, pivots: Any) -> Any:
    """LAPACK's info.  cuSOLVER's own names any of the zeros on the diagonal, not the first."""
    zero = (lower.diagonal(dim1=-2, dim2=-1) == 0) & (pivots > 0)  # blocks of two are negative
    return ((zero.int().argmax(-1) + 1) * zero.any(-1)).int()


def on_host(op: str, function: Callable[..., Any], array: Any) -> Any:
    """The arrays of function(array), which is small and computed on the host."""
    from mlgpu.cuda.transfer import from_host

    with library(op):
        found = function(array.get())
    if isinstance(found, tuple):
        return tuple(from_host(x, False)[0] for x in found)
    return from_host(found, False)[0]


def _no_info(batch: tuple[int, ...]) -> Any:
    return zeros(batch, np.dtype(np.int32))


def qr(op: str, a: Any, mode: str) -> tuple[Any, Any]:
    """q and r; mode "reduced" or "complete"."""
    with library(op) as cupy:
        q, r = cupy.linalg.qr(a, mode)
    return _ours(q), _ours(r)


def geqrf(op: str, a: Any) -> tuple[Any, Any]:
    """R with the Householder vectors under it, and their factors."""
    with library(op) as cupy:
        h, tau = cupy.linalg.qr(a, "raw")
    return _ours(h.swapaxes(-1, -2)), _ours(tau)


def svd(op: str, a: Any, full_matrices: bool) -> tuple[Any, Any, Any]:
    """u, s and v^H.  LinAlgError for a matrix with inf or NaN."""
    check_finite(op, a)
    u, s, vh = _guarded(op, NOT_CONVERGED, lambda x: load().linalg.svd(x, full_matrices), a)
    return _ours(u), _ours(s), _ours(vh)


def svdvals(op: str, a: Any) -> Any:
    """The singular values, descending."""
    check_finite(op, a)
    return _ours(_guarded(op, NOT_CONVERGED, lambda x: load().linalg.svd(x, compute_uv=False), a))


def eigh(op: str, a: Any, uplo: str) -> tuple[Any, Any]:
    """Ascending eigenvalues and eigenvectors of Hermitian matrices, from one triangle."""
    check_finite(op, a)
    values, vectors = _guarded(op, NOT_CONVERGED, lambda x: load().linalg.eigh(x, uplo), a)
    return _ours(values), _ours(vectors)


def eigvalsh(op: str, a: Any, uplo: str) -> Any:
    """Ascending eigenvalues of Hermitian matrices, from one triangle."""
    check_finite(op, a)
    return _ours(_guarded(op, NOT_CONVERGED, lambda x: load().linalg.eigvalsh(x, uplo), a))


def eig(op: str, a: Any) -> tuple[Any, Any]:
    """Complex eigenvalues and eigenvectors of norm 1, in no particular order."""
    check_finite(op, a)
    if not a.size:
        dtype = np.result_type(a.dtype, np.complex64)
        return empty(a.shape[:-1], dtype), empty(a.shape, dtype)
    with library(op):
        if not import_module("cupyx.cusolver").check_availability("geev"):
            raise DeviceError(f"{op}: this cuSOLVER has no eigenvalues of general matrices, which "
                              "came with CUDA 12.6; upgrade it, or move the input with .cpu()")
    values, vectors = _guarded(op, NOT_CONVERGED, load().linalg.eig, a)
    return _ours(values), _ours(vectors)

"""LU and LDL factorisations by cuSOLVER, LU also by cuBLAS for many small matrices at once.

Matrices lie row after row, and the libraries take columns for rows: what is factored is the
transposed matrix, which has the same determinant.
"""

from __future__ import annotations

import math
from importlib import import_module
from typing import Any

import numpy as np

from mlgpu.cuda.loading import load
from mlgpu.cuda.runtime import copy, empty

_LETTERS = {"f": "s", "d": "d", "F": "c", "D": "z"}


class LU:
    """The factors of the matrices in the last two dimensions of `a`, none of them empty.

    `factors` holds both triangles, `pivots` the column (counted from 1) that each was swapped
    with; of a singular matrix `info` is the place (counted from 1) of a zero on the diagonal.
    """

    def __init__(self, a: Any, pivot: bool = True) -> None:
        self.batch, (n, m) = a.shape[:-2], a.shape[-2:]
        self.n = n
        count, k = math.prod(self.batch), min(m, n)
        self.factors = copy(a).reshape(count, n, m)
        self.pivots = empty((count, k), np.dtype(np.int32))
        if not pivot:
            self.pivots[...] = load().arange(1, k + 1, dtype=np.int32)
        self.info = empty((count,), np.dtype(np.int32))
        self._letter = _LETTERS[a.dtype.char]
        # cuBLAS takes all matrices at once but each slowly; cuSOLVER one after the other.
        self._together = m == n and n * n <= 65536 * count
        blas, solver, device = _libraries()
        if self._together:
            addresses = _addresses(self.factors)
            getattr(blas, self._letter + "getrfBatched")(
                device.get_cublas_handle(), n, addresses.data.ptr, n,
                self.pivots.data.ptr if pivot else 0, self.info.data.ptr, count)
            return
        handle = device.get_cusolver_handle()
        size = getattr(solver, self._letter + "getrf_bufferSize")(
            handle, m, n, self.factors.data.ptr, m)
        workspace = empty((size,), a.dtype)
        for i in range(count):
            getattr(solver, self._letter + "getrf")(
                handle, m, n, self.factors[i].data.ptr, m, workspace.data.ptr,
                self.pivots[i].data.ptr if pivot else 0, self.info[i].data.ptr)

    def solve(self, b: Any) -> Any:
        """x with a @ x = b, for b with the batch of `a`, square matrices."""
        n, columns = self.n, b.shape[-1]
        # Columns for rows, again; and of the transposed matrix, the transposed is solved with.
        right = copy(b.swapaxes(-1, -2)).reshape(len(self.factors), columns, n)
        blas, solver, device = _libraries()
        transposed = blas.CUBLAS_OP_T
        if self._together:
            info = np.zeros(1, np.int32)  # of the arguments, on the host
            factors, rights = _addresses(self.factors), _addresses(right)
            getattr(blas, self._letter + "getrsBatched")(
                device.get_cublas_handle(), transposed, n, columns, factors.data.ptr, n,
                self.pivots.data.ptr, rights.data.ptr, n, info.ctypes.data, len(right))
        else:
            handle, ignored = device.get_cusolver_handle(), empty((1,), np.dtype(np.int32))
            for i in range(len(right)):
                getattr(solver, self._letter + "getrs")(
                    handle, transposed, n, columns, self.factors[i].data.ptr, n,
                    self.pivots[i].data.ptr, right[i].data.ptr, n, ignored.data.ptr)
        return copy(right.swapaxes(-1, -2)).reshape(*self.batch, n, columns)


class LDL:
    """The factors of the symmetric matrices in the last two dimensions of `a`, none of them empty.

    `factors` holds L and D in the lower triangle as LAPACK's sytrf leaves them, with its `pivots`
    and `info`; the other triangle is not touched.
    """

    def __init__(self, a: Any) -> None:
        n, batch = a.shape[-1], a.shape[:-2]
        # Rows are the library's columns, and a symmetric matrix has the same of both: its lower
        # triangle must lie where the library looks for one.
        columns = copy(a.swapaxes(-1, -2)).reshape(math.prod(batch), n, n)
        self.pivots = empty((len(columns), n), np.dtype(np.int32))
        self.info = empty((len(columns),), np.dtype(np.int32))
        letter = _LETTERS[a.dtype.char]
        blas, solver, device = _libraries()
        handle = device.get_cusolver_handle()
        elements = getattr(solver, letter + "sytrf_bufferSize")(handle, n, columns.data.ptr, n)
        workspace = empty((elements,), a.dtype)
        for i in range(len(columns)):
            getattr(solver, letter + "sytrf")(
                handle, blas.CUBLAS_FILL_MODE_LOWER, n, columns[i].data.ptr, n,
                self.pivots[i].data.ptr, workspace.data.ptr, elements, self.info[i].data.ptr)
        self.factors = columns.swapaxes(-1, -2)


def _libraries() -> tuple[Any, Any, Any]:
    load()
    return (import_module("cupy_backends.cuda.libs.cublas"),
            import_module("cupy_backends.cuda.libs.cusolver"), import_module("cupy.cuda.device"))


def _addresses(matrices: Any) -> Any:
    """Where each of these matrices begins, as an array on the device."""
    start = matrices.data.ptr
    return load().arange(start, start + matrices.nbytes, matrices[0].nbytes, dtype=np.uintp)

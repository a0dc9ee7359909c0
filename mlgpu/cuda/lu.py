"""LU factorisations by cuSOLVER, and by cuBLAS for many small matrices at once.

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

    `factors` holds both triangles, `pivots` the row (counted from 1) that each row was swapped
    with; of a singular matrix `info` is the place (counted from 1) of a zero on the diagonal.
    """

    def __init__(self, a: Any) -> None:
        self.n = n = a.shape[-1]
        self.batch = a.shape[:-2]
        count = math.prod(self.batch)
        self.factors = copy(a).reshape(count, n, n)
        self.pivots = empty((count, n), np.dtype(np.int32))
        self.info = empty((count,), np.dtype(np.int32))
        self._letter = _LETTERS[a.dtype.char]
        # cuBLAS takes all matrices at once but each slowly; cuSOLVER one after the other.
        self._together = n * n <= 65536 * count
        blas, solver, device = _libraries()
        if self._together:
            addresses = _addresses(self.factors)
            getattr(blas, self._letter + "getrfBatched")(
                device.get_cublas_handle(), n, addresses.data.ptr, n, self.pivots.data.ptr,
                self.info.data.ptr, count)
            return
        handle = device.get_cusolver_handle()
        size = getattr(solver, self._letter + "getrf_bufferSize")(
            handle, n, n, self.factors.data.ptr, n)
        workspace = empty((size,), a.dtype)
        for i in range(count):
            getattr(solver, self._letter + "getrf")(
                handle, n, n, self.factors[i].data.ptr, n, workspace.data.ptr,
                self.pivots[i].data.ptr, self.info[i].data.ptr)

    def solve(self, b: Any) -> Any:
        """x with a @ x = b, for b with the batch of `a`."""
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


def _libraries() -> tuple[Any, Any, Any]:
    load()
    return (import_module("cupy_backends.cuda.libs.cublas"),
            import_module("cupy_backends.cuda.libs.cusolver"), import_module("cupy.cuda.device"))


def _addresses(matrices: Any) -> Any:
    """Where each of these matrices begins, as an array on the device."""
    start = matrices.data.ptr
    return load().arange(start, start + matrices.nbytes, matrices[0].nbytes, dtype=np.uintp)

"""CuPy's module of functions made of cuSOLVER's, `cupyx._cusolver`, which is compiled against
cuSOLVER and so cannot be imported on simulated devices.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Literal, cast

import numpy as np

from mlgpu.sim.cuda.libraries import lapack
from mlgpu.sim.cuda.libraries.operands import compute
from mlgpu.sim.cuda.system import System

Array = np.ndarray[Any, Any]

# What is there, under the names that CuPy asks for.
AVAILABLE = ("gesvdj", "gesvdjBatched", "gesvda", "potrfBatched", "potrsBatched", "syevj", "gesv",
             "gels", "geev")


class CusolverArrays:
    """The functions of that module."""

    def __init__(self, system: System) -> None:
        self.system = system

    def contents(self) -> dict[str, Any]:
        """The module's names."""
        found: dict[str, Any] = {name: getattr(self, name) for name in (
            "check_availability", "gesvdj", "gesvda", "syevj", "gesv", "gels", "csrlsvqr",
            "_gesvdj_batched", "_gesvd_batched", "_syevj_batched", "_geqrf_orgqr_batched")}
        versions = dict.fromkeys(AVAILABLE, (0, None))
        return found | {"_available_cuda_version": versions, "_available_hip_version": {},
                        "_available_compute_capability": {}}

    def check_availability(self, name: str) -> bool:
        """Whether CuPy may use a function of cuSOLVER."""
        if name == "csrlsvqr":
            return False
        if name not in AVAILABLE:
            raise ValueError(f"No available version information specified for {name}")
        return True

    # -- singular values --------------------------------------------------------------------------

    def gesvdj(self, a: Any, full_matrices: bool = True, compute_uv: bool = True,
               overwrite_a: bool = False) -> Any:
        """u, s and v (not its transposed) of a matrix or a stack of them."""
        return self._svd("cusolverDn<t>gesvdj", a, a.dtype, full_matrices, compute_uv)

    def _gesvdj_batched(self, a: Any, full_matrices: bool, compute_uv: bool,
                        overwrite_a: bool) -> Any:
        return self._svd("cusolverDn<t>gesvdjBatched", a, a.dtype, full_matrices, compute_uv)

    def _gesvd_batched(self, a: Any, a_dtype: str, full_matrices: bool, compute_uv: bool,
                       overwrite_a: bool) -> Any:
        return self._svd("cusolverDn<t>gesvd", a, np.dtype(a_dtype), full_matrices, compute_uv)

    def gesvda(self, a: Any, compute_uv: bool = True) -> Any:
        """u, s and v (not its transposed) of tall matrices."""
        return self._svd("cusolverDn<t>gesvdaStridedBatched", a, a.dtype, False, compute_uv)

    def _svd(self, call: str, a: Any, dtype: np.dtype[Any], full: bool, vectors: bool) -> Any:
        import cupy

        a = a.astype(dtype, copy=False)
        *batch, m, n = a.shape
        k = min(m, n)
        s = cupy.empty((*batch, k), dtype.char.lower())
        if not vectors:
            self._compute(call, lambda x: (np.linalg.svd(x, compute_uv=False),), [a], [s])
            return s
        u = cupy.empty((*batch, m, m if full else k), dtype)
        v = cupy.empty((*batch, n, n if full else k), dtype)

        def function(x: Array) -> tuple[Array, Array, Array]:
            left, values, right = np.linalg.svd(x, full_matrices=full)
            return left, values, right.swapaxes(-2, -1).conj()

        self._compute(call, function, [a], [u, s, v])
        return u, s, v

    # -- eigenvalues ------------------------------------------------------------------------------

    def syevj(self, a: Any, UPLO: str = "L", with_eigen_vector: bool = True) -> Any:
        """The eigenvalues, and vectors, of a symmetric matrix or a stack of them."""
        import cupy

        if UPLO not in ("L", "U"):
            raise ValueError("UPLO argument must be 'L' or 'U'")
        dtype, v_dtype = cupy.linalg._util.linalg_common_type(a, reject_float16=False)
        a = a.astype(dtype, copy=False)
        w = cupy.empty(a.shape[:-1], dtype.char.lower())
        part, uplo = lapack.triangle(a.shape[-1], UPLO == "U"), cast("Literal['L', 'U']", UPLO)
        if with_eigen_vector:
            v = cupy.empty(a.shape, dtype)
            self._compute("cusolverDn<t>syevj",
                          lambda x: np.linalg.eigh(np.where(part, x, 0), uplo), [a], [w, v])
            return w.astype(v_dtype.char.lower(), copy=False), v.astype(v_dtype, copy=False)
        self._compute("cusolverDn<t>syevj",
                      lambda x: (np.linalg.eigvalsh(np.where(part, x, 0), uplo),), [a], [w])
        return w.astype(v_dtype.char.lower(), copy=False)

    def _syevj_batched(self, a: Any, UPLO: str, with_eigen_vector: bool) -> Any:
        return self.syevj(a, UPLO, with_eigen_vector)

    # -- QR ---------------------------------------------------------------------------------------

    def _geqrf_orgqr_batched(self, a: Any, mode: str) -> Any:
        """QR of a stack of matrices, in numpy.linalg.qr's modes."""
        import cupy

        dtype, out_dtype = cupy.linalg._util.linalg_common_type(a)
        a = a.astype(dtype, copy=False)
        batch, m, n = a.shape
        k = min(m, n)
        rows = m if mode == "complete" else k
        shapes = {"r": [(batch, k, n)], "raw": [(batch, n, m), (batch, k)]}.get(
            mode, [(batch, m, rows), (batch, rows, n)])
        results = [cupy.empty(shape, dtype) for shape in shapes]

        def function(x: Array) -> Any:
            found = np.linalg.qr(x, mode=mode)  # type: ignore[call-overload]
            return (found,) if mode == "r" else found

        self._compute("cusolverDn<t>geqrf", function, [a], results)
        typed = [r.astype(out_dtype, copy=False) for r in results]
        return typed[0] if mode == "r" else tuple(typed)

    # -- linear equations -------------------------------------------------------------------------

    def gesv(self, a: Any, b: Any) -> Any:
        """The x of `a @ x == b`."""
        import cupy

        _check_system(a, b)
        if a.shape[0] != a.shape[1]:
            raise ValueError("a must be a square matrix.")
        x = cupy.empty_like(b)
        columns = b.reshape(len(b), -1)

        def function(matrix: Array, right: Array) -> tuple[Array]:
            factors, pivots, _ = lapack.lu(matrix)
            return (lapack.lu_solve(factors, pivots, right).reshape(x.shape),)

        self._compute("cusolverDn<t1><t2>gesv", function, [a, columns], [x])
        return x

    def gels(self, a: Any, b: Any) -> Any:
        """The x that comes nearest to `a @ x == b`."""
        import cupy

        _check_system(a, b)
        m, n = a.shape
        if m < n:
            raise ValueError("m must be equal to or greater than n.")
        x = cupy.empty((n, *b.shape[1:]), a.dtype)

        def function(matrix: Array, right: Array) -> tuple[Array]:
            return (np.linalg.lstsq(matrix, right, rcond=None)[0],)

        self._compute("cusolverDn<t1><t2>gels", function, [a, b], [x])
        return x

    def csrlsvqr(self, *args: Any, **kwargs: Any) -> Any:
        """Not simulated."""
        raise NotImplementedError("csrlsvqr: solving sparse systems is not simulated; solve the "
                                  "dense one, cupy.linalg.solve(A.toarray(), b), or use SciPy")

    def _compute(self, call: str, function: Callable[..., Any], inputs: list[Any],
                 outputs: list[Any]) -> None:
        """As `compute`; where the function does not converge, the results are NaN."""
        @functools.wraps(function)
        def guarded(*arrays: Array) -> Any:
            try:
                return function(*arrays)
            except np.linalg.LinAlgError:
                return [np.full(o.shape, np.nan) for o in outputs]

        with self.system.lock:
            compute(self.system, call, guarded, inputs, outputs)


def _check_system(a: Any, b: Any) -> None:
    if a.ndim != 2:
        raise ValueError(f"a.ndim must be 2 (actual:{a.ndim})")
    if b.ndim not in (1, 2):
        raise ValueError(f"b.ndim must be 1 or 2 (actual:{b.ndim})")
    if a.shape[0] != b.shape[0]:
        raise ValueError(f"shape mismatch (a:{a.shape}, b:{b.shape}).")
    if a.dtype != b.dtype:
        raise ValueError(f"dtype mismatch (a:{a.dtype}, b:{b.dtype}).")
    if a.dtype.char not in "fdFD":
        raise ValueError(f"unsupported dtype (actual:{a.dtype})")

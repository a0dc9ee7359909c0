"""cuSOLVER's dense functions in NumPy, under the names of CuPy's binding to it (the cuSOLVER API
reference says what each does).

The signs of singular and eigenvectors, which the mathematics leaves open, are LAPACK's.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

from mlgpu.cpu.lu import ldl
from mlgpu.sim.cuda.libraries import lapack
from mlgpu.sim.cuda.libraries.modules import Library, StatusError, family
from mlgpu.sim.cuda.libraries.numeric import LETTERS, dtype_of, real
from mlgpu.sim.cuda.libraries.operands import Operands, current_stream, submit
from mlgpu.sim.cuda.system import System

ALL, REALS, COMPLEX = "sdcz", "sd", "cz"
VECTORS = 1  # CUSOLVER_EIG_MODE_VECTOR

CONSTANTS = {"CUSOLVER_EIG_TYPE_1": 1, "CUSOLVER_EIG_TYPE_2": 2, "CUSOLVER_EIG_TYPE_3": 3,
             "CUSOLVER_EIG_MODE_NOVECTOR": 0, "CUSOLVER_EIG_MODE_VECTOR": VECTORS}


class CUSOLVERError(StatusError):
    """An error of cuSOLVER."""

    names: ClassVar = {1: "CUSOLVER_STATUS_NOT_INITIALIZED", 2: "CUSOLVER_STATUS_ALLOC_FAILED",
             3: "CUSOLVER_STATUS_INVALID_VALUE", 4: "CUSOLVER_STATUS_ARCH_MISMATCH",
             5: "CUSOLVER_STATUS_MAPPING_ERROR", 6: "CUSOLVER_STATUS_EXECUTION_FAILED",
             7: "CUSOLVER_STATUS_INTERNAL_ERROR",
             8: "CUSOLVER_STATUS_MATRIX_TYPE_NOT_SUPPORTED", 9: "CUSOLVER_STATUS_NOT_SUPPORTED"}
    failed = 6


class Cusolver(Library):
    """The dense functions of cuSOLVER."""

    error = CUSOLVERError
    private = ("_getVersion", "_getVersionNumber")

    def __init__(self, system: System, version: int) -> None:
        super().__init__(system)
        self._version = (12, 0, 4) if version >= 13000 else (11, 7, 5)  # what CUDA brings
        self._streams: dict[int, int] = {}  # of each handle
        self._numbers = itertools.count(0x501E_0000, 0x10)

    # -- handles ----------------------------------------------------------------------------------

    def create(self) -> int:
        number = next(self._numbers)
        self._streams[number] = 0
        return number

    def destroy(self, handle: int) -> None:
        self._check(handle)
        del self._streams[handle]

    def setStream(self, handle: int, stream: int) -> None:
        self._check(handle)
        self._streams[handle] = self.system.stream(stream).handle

    def getStream(self, handle: int) -> int:
        self._check(handle)
        return self._streams[handle]

    def createParams(self) -> int:
        return next(self._numbers)

    def destroyParams(self, params: int) -> None:
        """Parameters have no contents."""

    def getProperty(self, kind: int) -> int:
        return self._getVersion()[kind]

    def _getVersion(self) -> tuple[int, int, int]:
        return self._version

    def _getVersionNumber(self) -> int:
        major, minor, patch = self._version
        return 1000 * major + 100 * minor + patch

    def check_status(self, status: int) -> None:
        if status:
            raise CUSOLVERError(status)

    def _check(self, handle: int) -> None:
        if handle not in self._streams:
            raise CUSOLVERError(1, f"{handle:#x} is no handle of cuSOLVER, or is destroyed")

    def _submit(self, handle: int, call: str, body: Callable[[Operands], int],
                info: int) -> None:
        """Put work on CuPy's current stream; it gives the info."""
        self._check(handle)
        stream = current_stream(self.system)
        if stream.capture is not None:  # as CuPy's binding refuses it
            raise NotImplementedError("calling cuSOLVER API during stream capture is currently "
                                      "unsupported")
        self._streams[handle] = stream.handle
        submit(self.system, stream, call,
               lambda o: o.array("devInfo", info, np.int32, (1,)).write(body(o)))

    # -- workspaces: none is needed, and one element keeps programs that allocate it working ------

    @family("{}_bufferSize",
            [t + f for t in ALL for f in ("potrf", "getrf", "sytrf", "geqrf", "gesvd")]
            + [t + f for t in REALS for f in ("orgqr", "ormqr", "syevd")]
            + [t + f for t in COMPLEX for f in ("ungqr", "unmqr", "heevd")])
    def _buffer_size(self, name: str, handle: int, *args: int) -> int:
        self._check(handle)
        return 1

    def xsyevd_bufferSize(self, handle: int, *args: int) -> tuple[int, int]:
        self._check(handle)
        return 1, 1

    def xgeev_bufferSize(self, handle: int, *args: int) -> tuple[int, int]:
        self._check(handle)
        return 1, 1

    # -- linear equations -------------------------------------------------------------------------

    @family("{}potrf", ALL)
    def _potrf(self, t: str, handle: int, uplo: int, n: int, A: int, lda: int, work: int,
               lwork: int, devInfo: int) -> None:
        def body(o: Operands) -> int:
            matrix, part = o.matrix("A", A, LETTERS[t], n, n, lda), lapack.triangle(n, uplo)
            factor, info = lapack.cholesky(matrix.read(part), uplo)
            matrix.write(factor, part)
            return info
        self._submit(handle, f"cusolverDn{t.upper()}potrf", body, devInfo)

    @family("{}potrs", ALL)
    def _potrs(self, t: str, handle: int, uplo: int, n: int, nrhs: int, A: int, lda: int, B: int,
               ldb: int, devInfo: int) -> None:
        def body(o: Operands) -> int:
            factor = o.matrix("A", A, LETTERS[t], n, n, lda).read(lapack.triangle(n, uplo))
            right = o.matrix("B", B, LETTERS[t], n, nrhs, ldb)
            right.write(lapack.cholesky_solve(factor, right.read(), uplo))
            return 0
        self._submit(handle, f"cusolverDn{t.upper()}potrs", body, devInfo)

    @family("{}potrfBatched", ALL)
    def _potrf_batched(self, t: str, handle: int, uplo: int, n: int, Aarray: int, lda: int,
                       infoArray: int, batchSize: int) -> None:
        def body(o: Operands) -> int:
            infos = np.zeros(batchSize, np.int32)
            part = lapack.triangle(n, uplo)
            for i, address in enumerate(o.pointers("Aarray", Aarray, batchSize)):
                matrix = o.matrix("A", address, LETTERS[t], n, n, lda)
                factor, infos[i] = lapack.cholesky(matrix.read(part), uplo)
                matrix.write(factor, part)
            o.array("infoArray", infoArray, np.int32, (batchSize,)).write(infos)
            return int(infos[0])
        self._submit(handle, f"cusolverDn{t.upper()}potrfBatched", body, infoArray)

    @family("{}potrsBatched", ALL)
    def _potrs_batched(self, t: str, handle: int, uplo: int, n: int, nrhs: int, Aarray: int,
                       lda: int, Barray: int, ldb: int, devInfo: int, batchSize: int) -> None:
        if nrhs != 1:
            raise CUSOLVERError(3, f"cusolverDn{t.upper()}potrsBatched: nrhs={nrhs}; only 1 is "
                                   "supported, as cuSOLVER does")

        def body(o: Operands) -> int:
            part = lapack.triangle(n, uplo)
            for at_a, at_b in zip(o.pointers("Aarray", Aarray, batchSize),
                                  o.pointers("Barray", Barray, batchSize), strict=True):
                factor = o.matrix("A", at_a, LETTERS[t], n, n, lda).read(part)
                right = o.matrix("B", at_b, LETTERS[t], n, nrhs, ldb)
                right.write(lapack.cholesky_solve(factor, right.read(), uplo))
            return 0
        self._submit(handle, f"cusolverDn{t.upper()}potrsBatched", body, devInfo)

    @family("{}getrf", ALL)
    def _getrf(self, t: str, handle: int, m: int, n: int, A: int, lda: int, work: int,
               devIpiv: int, devInfo: int) -> None:
        def body(o: Operands) -> int:
            matrix = o.matrix("A", A, LETTERS[t], m, n, lda)
            factors, pivots, info = lapack.lu(matrix.read(), bool(devIpiv))
            matrix.write(factors)
            if devIpiv:
                o.array("devIpiv", devIpiv, np.int32, (min(m, n),)).write(pivots)
            return info
        self._submit(handle, f"cusolverDn{t.upper()}getrf", body, devInfo)

    @family("{}getrs", ALL)
    def _getrs(self, t: str, handle: int, trans: int, n: int, nrhs: int, A: int, lda: int,
               devIpiv: int, B: int, ldb: int, devInfo: int) -> None:
        def body(o: Operands) -> int:
            pivots = o.array("devIpiv", devIpiv, np.int32, (n,)).read() if devIpiv else None
            factors = o.matrix("A", A, LETTERS[t], n, n, lda).read()
            right = o.matrix("B", B, LETTERS[t], n, nrhs, ldb)
            right.write(lapack.lu_solve(factors, pivots, right.read(), trans))
            return 0
        self._submit(handle, f"cusolverDn{t.upper()}getrs", body, devInfo)

    @family("{}sytrf", ALL)
    def _sytrf(self, t: str, handle: int, uplo: int, n: int, A: int, lda: int, ipiv: int,
               work: int, lwork: int, devInfo: int) -> None:
        call = f"cusolverDn{t.upper()}sytrf"
        if uplo:
            raise CUSOLVERError(9, f"{call}: the upper triangle is not simulated; give the lower")

        def body(o: Operands) -> int:
            matrix, part = o.matrix("A", A, LETTERS[t], n, n, lda), lapack.triangle(n, uplo)
            factors, pivots, info = ldl(matrix.read(part), False)
            matrix.write(factors, part)
            o.array("ipiv", ipiv, np.int32, (n,)).write(pivots)
            return int(info)
        self._submit(handle, call, body, devInfo)

    # -- QR ---------------------------------------------------------------------------------------

    @family("{}geqrf", ALL)
    def _geqrf(self, t: str, handle: int, m: int, n: int, A: int, lda: int, tau: int, work: int,
               lwork: int, devInfo: int) -> None:
        def body(o: Operands) -> int:
            matrix = o.matrix("A", A, LETTERS[t], m, n, lda)
            reflectors, factors = lapack.householder(matrix.read())
            matrix.write(reflectors)
            o.array("tau", tau, LETTERS[t], (min(m, n),)).write(factors)
            return 0
        self._submit(handle, f"cusolverDn{t.upper()}geqrf", body, devInfo)

    @family("{}orgqr", REALS)
    def _orgqr(self, t: str, *args: int) -> None:
        self._make_q(t, "orgqr", *args)

    @family("{}ungqr", COMPLEX)
    def _ungqr(self, t: str, *args: int) -> None:
        self._make_q(t, "ungqr", *args)

    def _make_q(self, t: str, name: str, handle: int, m: int, n: int, k: int, A: int, lda: int,
                tau: int, work: int, lwork: int, devInfo: int) -> None:
        def body(o: Operands) -> int:
            factors = o.array("tau", tau, LETTERS[t], (k,)).read()
            reflectors = o.matrix("A", A, LETTERS[t], m, k, lda).read()
            q = lapack.reflect(reflectors, factors, np.eye(m, n, dtype=LETTERS[t]), False)
            o.matrix("A", A, LETTERS[t], m, n, lda).write(q)
            return 0
        self._submit(handle, f"cusolverDn{t.upper()}{name}", body, devInfo)

    @family("{}ormqr", REALS)
    def _ormqr(self, t: str, *args: int) -> None:
        self._times_q(t, "ormqr", *args)

    @family("{}unmqr", COMPLEX)
    def _unmqr(self, t: str, *args: int) -> None:
        self._times_q(t, "unmqr", *args)

    def _times_q(self, t: str, name: str, handle: int, side: int, trans: int, m: int, n: int,
                 k: int, A: int, lda: int, tau: int, C: int, ldc: int, work: int, lwork: int,
                 devInfo: int) -> None:
        def body(o: Operands) -> int:
            factors = o.array("tau", tau, LETTERS[t], (k,)).read()
            reflectors = o.matrix("A", A, LETTERS[t], n if side else m, k, lda).read()
            target = o.matrix("C", C, LETTERS[t], m, n, ldc)
            if side:  # C @ Q is the conjugated transposed Q @ C's, transposed
                other = lapack.reflect(reflectors, factors, target.read().conj().T, not trans)
                target.write(other.conj().T)
            else:
                target.write(lapack.reflect(reflectors, factors, target.read(), bool(trans)))
            return 0
        self._submit(handle, f"cusolverDn{t.upper()}{name}", body, devInfo)

    # -- singular values and eigenvalues ----------------------------------------------------------

    @family("{}gesvd", ALL)
    def _gesvd(self, t: str, handle: int, jobu: int, jobvt: int, m: int, n: int, A: int, lda: int,
               S: int, U: int, ldu: int, VT: int, ldvt: int, Work: int, lwork: int, rwork: int,
               devInfo: int) -> None:
        dtype, call = LETTERS[t], f"cusolverDn{t.upper()}gesvd"
        if m < n:
            raise CUSOLVERError(3, f"{call}: {m} rows and {n} columns; as cuSOLVER it needs as "
                                   "many rows as columns at least: transpose the matrix")
        left, right = chr(jobu), chr(jobvt)
        k = min(m, n)

        def body(o: Operands) -> int:
            matrix = o.matrix("A", A, dtype, m, n, lda)
            try:
                u, s, vt = np.linalg.svd(matrix.read(), full_matrices="A" in left + right)
            except np.linalg.LinAlgError:  # it does not converge
                u, s, vt = (np.full(shape, np.nan, dtype) for shape in ((m, m), (k,), (n, n)))
                info = 1
            else:
                info = 0
            o.array("S", S, real(dtype), (k,)).write(s.real)
            if left in "AS":
                columns = m if left == "A" else k
                o.matrix("U", U, dtype, m, columns, ldu).write(u[:, :columns])
            if right in "AS":
                rows = n if right == "A" else k
                o.matrix("VT", VT, dtype, rows, n, ldvt).write(vt[:rows])
            if left == "O":
                o.matrix("A", A, dtype, m, k, lda).write(u[:, :k])
            elif right == "O":
                o.matrix("A", A, dtype, k, n, lda).write(vt[:k])
            return info
        self._submit(handle, call, body, devInfo)

    @family("{}syevd", REALS)
    def _syevd(self, t: str, *args: int) -> None:
        self._eigen(t, "syevd", *args)

    @family("{}heevd", COMPLEX)
    def _heevd(self, t: str, *args: int) -> None:
        self._eigen(t, "heevd", *args)

    def _eigen(self, t: str, name: str, handle: int, jobz: int, uplo: int, n: int, A: int,
               lda: int, W: int, work: int, lwork: int, info: int) -> None:
        self._symmetric(handle, f"cusolverDn{t.upper()}{name}", LETTERS[t], jobz, uplo, n, A, lda,
                        W, info)

    def xsyevd(self, handle: int, params: int, jobz: int, uplo: int, n: int, dataTypeA: int,
               A: int, lda: int, dataTypeW: int, W: int, computeType: int, bufferOnDevice: int,
               workspaceInBytesOnDevice: int, bufferOnHost: int, workspaceInBytesOnHost: int,
               info: int) -> None:
        dtype = _dtype("cusolverDnXsyevd", dataTypeA)
        self._symmetric(handle, "cusolverDnXsyevd", dtype, jobz, uplo, n, A, lda, W, info)

    def _symmetric(self, handle: int, call: str, dtype: np.dtype[Any], jobz: int, uplo: int,
                   n: int, A: int, lda: int, W: int, info: int) -> None:
        def body(o: Operands) -> int:
            matrix, part = o.matrix("A", A, dtype, n, n, lda), lapack.triangle(n, uplo)
            try:
                w, v = np.linalg.eigh(np.where(part, matrix.read(part), 0), "U" if uplo else "L")
            except np.linalg.LinAlgError:  # it does not converge
                w, v = np.full(n, np.nan), np.full((n, n), np.nan)
                found = 1
            else:
                found = 0
            o.array("W", W, real(dtype), (n,)).write(w)
            if jobz == VECTORS:
                matrix.write(v)
            return found
        self._submit(handle, call, body, info)

    def xgeev(self, handle: int, params: int, jobvl: int, jobvr: int, n: int, dataTypeA: int,
              A: int, lda: int, dataTypeW: int, W: int, dataTypeVL: int, VL: int, ldvl: int,
              dataTypeVR: int, VR: int, ldvr: int, computeType: int, bufferOnDevice: int,
              workspaceInBytesOnDevice: int, bufferOnHost: int, workspaceInBytesOnHost: int,
              info: int) -> None:
        call = "cusolverDnXgeev"
        dtype, result = _dtype(call, dataTypeA), _dtype(call, dataTypeW)
        if jobvl == VECTORS:
            raise CUSOLVERError(9, f"{call}: left eigenvectors are not supported, as in cuSOLVER")

        def body(o: Operands) -> int:
            matrix = o.matrix("A", A, dtype, n, n, lda).read()
            try:
                w, v = np.linalg.eig(matrix)
            except np.linalg.LinAlgError:  # it does not converge, or is not finite
                w, v = np.full(n, np.nan), np.full((n, n), np.nan)
                found = 1
            else:
                found = 0
            o.array("W", W, result, (n,)).write(w)
            if jobvr == VECTORS:
                if dtype.kind != "c" and v.dtype.kind == "c":  # pairs: real parts, then imaginary
                    v = np.where(w.imag < 0, -v.imag, v.real)
                o.matrix("VR", VR, dtype, n, n, ldvr).write(v)
            return found
        self._submit(handle, call, body, info)


def _dtype(call: str, cuda_type: int) -> np.dtype[Any]:
    dtype = dtype_of(cuda_type)
    if dtype is None:
        raise CUSOLVERError(9, f"{call}: the type {cuda_type} (cudaDataType) is not simulated")
    return dtype

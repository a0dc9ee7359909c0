"""cuBLAS in NumPy, under the names of CuPy's binding to it (the cuBLAS API reference says what each
function does).

float16 and bfloat16 accumulate in float32, and float32 is rounded to TF32 only where a call or the
handle's math mode asks for it.  A sum's order is NumPy's, so that last digits differ from a GPU's.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from mlgpu.sim.cuda.libraries import lapack
from mlgpu.sim.cuda.libraries.modules import Library, StatusError, family
from mlgpu.sim.cuda.libraries.numeric import LETTERS, dtype_of, real, tf32
from mlgpu.sim.cuda.libraries.operands import Operand, Operands, current_stream, submit
from mlgpu.sim.cuda.memory import DEVICE_BASE, host_bytes
from mlgpu.sim.cuda.streams import Stream
from mlgpu.sim.cuda.system import System

Array = np.ndarray[Any, Any]
Scalar = Callable[[Operands], Any]

INVALID_VALUE, EXECUTION_FAILED, NOT_SUPPORTED = 7, 13, 15
DEVICE_POINTERS = 1  # a pointer mode
TF32_MATH = 3  # a math mode
ALL, REALS, COMPLEX = "sdcz", "sd", "cz"

CONSTANTS = {
    "CUBLAS_OP_N": 0, "CUBLAS_OP_T": 1, "CUBLAS_OP_C": 2,
    "CUBLAS_POINTER_MODE_HOST": 0, "CUBLAS_POINTER_MODE_DEVICE": 1,
    "CUBLAS_SIDE_LEFT": 0, "CUBLAS_SIDE_RIGHT": 1,
    "CUBLAS_FILL_MODE_LOWER": 0, "CUBLAS_FILL_MODE_UPPER": 1,
    "CUBLAS_DIAG_NON_UNIT": 0, "CUBLAS_DIAG_UNIT": 1,
    "CUBLAS_GEMM_DEFAULT": -1, "CUBLAS_GEMM_DEFAULT_TENSOR_OP": 99,
    "CUBLAS_GEMM_DFALT": -1, "CUBLAS_GEMM_DFALT_TENSOR_OP": 99,
    "CUBLAS_DEFAULT_MATH": 0, "CUBLAS_TENSOR_OP_MATH": 1,
    "CUBLAS_COMPUTE_16F": 64, "CUBLAS_COMPUTE_16F_PEDANTIC": 65,
    "CUBLAS_COMPUTE_32F": 68, "CUBLAS_COMPUTE_32F_PEDANTIC": 69,
    "CUBLAS_COMPUTE_32F_FAST_16F": 74, "CUBLAS_COMPUTE_32F_FAST_16BF": 75,
    "CUBLAS_COMPUTE_32F_FAST_TF32": 77,
    "CUBLAS_COMPUTE_64F": 70, "CUBLAS_COMPUTE_64F_PEDANTIC": 71,
    "CUBLAS_COMPUTE_32I": 72, "CUBLAS_COMPUTE_32I_PEDANTIC": 73,
}


class CUBLASError(StatusError):
    """An error of cuBLAS."""

    names: ClassVar = {1: "CUBLAS_STATUS_NOT_INITIALIZED", 3: "CUBLAS_STATUS_ALLOC_FAILED",
             7: "CUBLAS_STATUS_INVALID_VALUE", 8: "CUBLAS_STATUS_ARCH_MISMATCH",
             11: "CUBLAS_STATUS_MAPPING_ERROR", 13: "CUBLAS_STATUS_EXECUTION_FAILED",
             14: "CUBLAS_STATUS_INTERNAL_ERROR", 15: "CUBLAS_STATUS_NOT_SUPPORTED",
             16: "CUBLAS_STATUS_LICENSE_ERROR"}
    failed = EXECUTION_FAILED


@dataclass
class Handle:
    """A handle's settings."""

    stream: int = 0
    pointers: int = 0
    math: int = 0


@dataclass
class Compute:
    """How a matrix product computes."""

    dtype: np.dtype[Any]  # of the sum and of alpha and beta
    rounding: str = ""  # what the operands are rounded to first


class Cublas(Library):
    """The functions of cuBLAS."""

    error = CUBLASError

    def __init__(self, system: System, version: int) -> None:
        super().__init__(system)
        self._version = version
        self._handles: dict[int, Handle] = {}
        self._numbers = itertools.count(0xB1A5_0000, 0x10)

    # -- handles ----------------------------------------------------------------------------------

    def create(self) -> int:
        number = next(self._numbers)
        self._handles[number] = Handle()
        return number

    def destroy(self, handle: int) -> None:
        self._handle(handle)
        del self._handles[handle]

    def getVersion(self, handle: int) -> int:
        self._handle(handle)
        return self._version

    def getPointerMode(self, handle: int) -> int:
        return self._handle(handle).pointers

    def setPointerMode(self, handle: int, mode: int) -> None:
        self._handle(handle).pointers = mode

    def setStream(self, handle: int, stream: int) -> None:
        _not_capturing(self.system.stream(stream))
        self._handle(handle).stream = stream

    def getStream(self, handle: int) -> int:
        return self._handle(handle).stream

    def setMathMode(self, handle: int, mode: int) -> None:
        self._handle(handle).math = mode

    def getMathMode(self, handle: int) -> int:
        return self._handle(handle).math

    def check_status(self, status: int) -> None:
        if status:
            raise CUBLASError(status)

    def _handle(self, handle: int) -> Handle:
        if handle not in self._handles:
            raise CUBLASError(1, f"{handle:#x} is no handle of cuBLAS, or is destroyed")
        return self._handles[handle]

    def _submit(self, handle: int, call: str, body: Callable[[Operands], None]) -> None:
        """Put work on CuPy's current stream, which its binding gives the handle at each call."""
        found = self._handle(handle)
        stream = current_stream(self.system)
        _not_capturing(stream)
        found.stream = stream.handle
        submit(self.system, stream, call, body)

    def _scalar(self, handle: int, call: str, address: int, dtype: Any) -> Scalar:
        """alpha or beta: of the host when the call is made, of the device when it runs."""
        if self._handle(handle).pointers == DEVICE_POINTERS:
            return lambda operands: operands.array("alpha or beta", address, dtype, (1,)).read()[0]
        if address >= DEVICE_BASE:
            raise CUBLASError(INVALID_VALUE, f"{call}: alpha or beta at {address:#x} is in device "
                              "memory, but the handle's pointer mode says the host's; "
                              "setPointerMode(handle, CUBLAS_POINTER_MODE_DEVICE)")
        value = host_bytes(address, np.dtype(dtype).itemsize).view(dtype)[0]
        return lambda operands: value

    def _result(self, handle: int, call: str, address: int, dtype: Any,
                value: Callable[[Operands], Any]) -> None:
        """A function that gives a number; where the host wants it, the call waits."""
        on_device = self._handle(handle).pointers == DEVICE_POINTERS
        if on_device != (address >= DEVICE_BASE):
            raise CUBLASError(INVALID_VALUE, f"{call}: the result at {address:#x} is "
                              f"{'not ' * on_device}in device memory, which the handle's pointer "
                              "mode says otherwise")
        self._submit(handle, call, lambda o: o.host("the result", address, dtype, 1).write(
            value(o)))
        if not on_device:
            self.system.finish(current_stream(self.system).last)

    # -- vectors ----------------------------------------------------------------------------------

    @family("i{}amax", ALL)
    def _amax(self, t: str, handle: int, n: int, x: int, incx: int, result: int) -> None:
        self._extreme(t, "amax", np.argmax, handle, n, x, incx, result)

    @family("i{}amin", ALL)
    def _amin(self, t: str, handle: int, n: int, x: int, incx: int, result: int) -> None:
        self._extreme(t, "amin", np.argmin, handle, n, x, incx, result)

    def _extreme(self, t: str, name: str, choose: Any, handle: int, n: int, x: int, incx: int,
                 result: int) -> None:
        def value(o: Operands) -> int:
            if n < 1 or incx < 1:
                return 0
            return int(choose(_size(o.vector("x", x, LETTERS[t], n, incx).read()))) + 1
        self._result(handle, f"cublasI{t}{name}", result, np.int32, value)

    @family("{}asum", ("s", "d", "sc", "dz"))
    def _asum(self, t: str, handle: int, n: int, x: int, incx: int, result: int) -> None:
        dtype = LETTERS[t]

        def value(o: Operands) -> Any:
            return _size(o.vector("x", x, dtype, n, incx).read()).sum(dtype=real(dtype))
        self._result(handle, f"cublas{t.title()}asum", result, real(dtype), value)

    @family("{}nrm2", ("s", "d", "sc", "dz"))
    def _nrm2(self, t: str, handle: int, n: int, x: int, incx: int, result: int) -> None:
        dtype = LETTERS[t]

        def value(o: Operands) -> Any:
            parts = np.abs(o.vector("x", x, dtype, n, incx).read())
            largest = parts.max(initial=0)
            if not largest or not np.isfinite(largest):
                return largest
            return largest * np.sqrt(np.square(parts / largest).sum())
        self._result(handle, f"cublas{t.title()}nrm2", result, real(dtype), value)

    @family("{}dot", REALS)
    def _dot(self, t: str, handle: int, n: int, x: int, incx: int, y: int, incy: int,
             result: int) -> None:
        self._product_of_vectors(t, "dot", False, handle, n, x, incx, y, incy, result)

    @family("{}dotu", COMPLEX)
    def _dotu(self, t: str, handle: int, n: int, x: int, incx: int, y: int, incy: int,
              result: int) -> None:
        self._product_of_vectors(t, "dotu", False, handle, n, x, incx, y, incy, result)

    @family("{}dotc", COMPLEX)
    def _dotc(self, t: str, handle: int, n: int, x: int, incx: int, y: int, incy: int,
              result: int) -> None:
        self._product_of_vectors(t, "dotc", True, handle, n, x, incx, y, incy, result)

    def _product_of_vectors(self, t: str, name: str, conjugate: bool, handle: int, n: int, x: int,
                            incx: int, y: int, incy: int, result: int) -> None:
        dtype = LETTERS[t]

        def value(o: Operands) -> Any:
            left = o.vector("x", x, dtype, n, incx).read()
            right = o.vector("y", y, dtype, n, incy).read()
            return np.vdot(left, right) if conjugate else np.dot(left, right)
        self._result(handle, f"cublas{t.upper()}{name}", result, dtype, value)

    @family("{}axpy", ALL)
    def _axpy(self, t: str, handle: int, n: int, alpha: int, x: int, incx: int, y: int,
              incy: int) -> None:
        dtype, call = LETTERS[t], f"cublas{t.upper()}axpy"
        factor = self._scalar(handle, call, alpha, dtype)

        def body(o: Operands) -> None:
            target = o.vector("y", y, dtype, n, incy)
            target.write(factor(o) * o.vector("x", x, dtype, n, incx).read() + target.read())
        self._submit(handle, call, body)

    @family("{}scal", ("s", "d", "c", "z", "cs", "zd"))
    def _scal(self, t: str, handle: int, n: int, alpha: int, x: int, incx: int) -> None:
        dtype, call = LETTERS[t], f"cublas{t.title()}scal"
        factor = self._scalar(handle, call, alpha, dtype if len(t) == 1 else real(dtype))

        def body(o: Operands) -> None:
            target = o.vector("x", x, dtype, n, incx)
            target.write(factor(o) * target.read())
        self._submit(handle, call, body)

    # -- matrices and vectors ---------------------------------------------------------------------

    @family("{}gemv", ALL)
    def _gemv(self, t: str, handle: int, trans: int, m: int, n: int, alpha: int, A: int, lda: int,
              x: int, incx: int, beta: int, y: int, incy: int) -> None:
        dtype, call = LETTERS[t], f"cublas{t.upper()}gemv"
        _leading(call, lda=(lda, m))
        first, second = (self._scalar(handle, call, p, dtype) for p in (alpha, beta))
        inner, outer = (n, m) if trans == 0 else (m, n)

        def body(o: Operands) -> None:
            a = lapack.transposed(o.matrix("A", A, dtype, m, n, lda).read(), trans)
            product = a @ o.vector("x", x, dtype, inner, incx).read()
            _scaled(o.vector("y", y, dtype, outer, incy), first(o), product, second(o))
        self._submit(handle, call, body)

    @family("{}ger", REALS)
    def _ger(self, t: str, *args: int) -> None:
        self._outer(t, "ger", False, *args)

    @family("{}geru", COMPLEX)
    def _geru(self, t: str, *args: int) -> None:
        self._outer(t, "geru", False, *args)

    @family("{}gerc", COMPLEX)
    def _gerc(self, t: str, *args: int) -> None:
        self._outer(t, "gerc", True, *args)

    def _outer(self, t: str, name: str, conjugate: bool, handle: int, m: int, n: int, alpha: int,
               x: int, incx: int, y: int, incy: int, A: int, lda: int) -> None:
        dtype, call = LETTERS[t], f"cublas{t.upper()}{name}"
        _leading(call, lda=(lda, m))
        factor = self._scalar(handle, call, alpha, dtype)

        def body(o: Operands) -> None:
            right = o.vector("y", y, dtype, n, incy).read()
            target = o.matrix("A", A, dtype, m, n, lda)
            product = np.outer(o.vector("x", x, dtype, m, incx).read(),
                               right.conj() if conjugate else right)
            target.write(factor(o) * product + target.read())
        self._submit(handle, call, body)

    @family("{}sbmv", REALS)
    def _sbmv(self, t: str, handle: int, uplo: int, n: int, k: int, alpha: int, A: int, lda: int,
              x: int, incx: int, beta: int, y: int, incy: int) -> None:
        dtype, call = LETTERS[t], f"cublas{t.upper()}sbmv"
        _leading(call, lda=(lda, k + 1))
        first, second = (self._scalar(handle, call, p, dtype) for p in (alpha, beta))

        def body(o: Operands) -> None:
            stored = o.matrix("A", A, dtype, k + 1, n, lda)
            row, column = np.indices((k + 1, n))
            there = row >= k - column if uplo else row + column < n
            band = np.where(there, stored.read(there), 0)
            full = np.zeros((n, n), dtype)
            for i in range(k + 1):
                distance = k - i if uplo else i
                if distance < n:
                    side = band[i, distance:] if uplo else band[i, :n - distance]
                    full += np.diag(side, distance)
                    if distance:
                        full += np.diag(side, -distance)
            product = full @ o.vector("x", x, dtype, n, incx).read()
            _scaled(o.vector("y", y, dtype, n, incy), first(o), product, second(o))
        self._submit(handle, call, body)

    # -- products of matrices ---------------------------------------------------------------------

    @family("{}gemm", ALL)
    def _gemm(self, t: str, handle: int, transa: int, transb: int, m: int, n: int, k: int,
              alpha: int, A: int, lda: int, B: int, ldb: int, beta: int, C: int, ldc: int) -> None:
        self._products(handle, f"cublas{t.upper()}gemm", transa, transb, m, n, k, alpha,
                       (A, lda, 0), (B, ldb, 0), beta, (C, ldc, 0), 1, (LETTERS[t],) * 3,
                       Compute(LETTERS[t]))

    @family("{}gemmStridedBatched", ALL)
    def _gemm_strided(self, t: str, handle: int, transa: int, transb: int, m: int, n: int, k: int,
                      alpha: int, A: int, lda: int, strideA: int, B: int, ldb: int, strideB: int,
                      beta: int, C: int, ldc: int, strideC: int, batchCount: int) -> None:
        self._products(handle, f"cublas{t.upper()}gemmStridedBatched", transa, transb, m, n, k,
                       alpha, (A, lda, strideA), (B, ldb, strideB), beta, (C, ldc, strideC),
                       batchCount, (LETTERS[t],) * 3, Compute(LETTERS[t]))

    @family("{}gemmBatched", ALL)
    def _gemm_batched(self, t: str, handle: int, transa: int, transb: int, m: int, n: int, k: int,
                      alpha: int, Aarray: int, lda: int, Barray: int, ldb: int, beta: int,
                      Carray: int, ldc: int, batchCount: int) -> None:
        self._products(handle, f"cublas{t.upper()}gemmBatched", transa, transb, m, n, k, alpha,
                       (Aarray, lda, None), (Barray, ldb, None), beta, (Carray, ldc, None),
                       batchCount, (LETTERS[t],) * 3, Compute(LETTERS[t]))

    def sgemmEx(self, handle: int, transa: int, transb: int, m: int, n: int, k: int, alpha: int,
                A: int, Atype: int, lda: int, B: int, Btype: int, ldb: int, beta: int, C: int,
                Ctype: int, ldc: int) -> None:
        call = "cublasSgemmEx"
        self._products(handle, call, transa, transb, m, n, k, alpha, (A, lda, 0), (B, ldb, 0),
                       beta, (C, ldc, 0), 1, _types(call, Atype, Btype, Ctype),
                       Compute(LETTERS["s"]))

    def gemmEx(self, handle: int, transa: int, transb: int, m: int, n: int, k: int, alpha: int,
               A: int, Atype: int, lda: int, B: int, Btype: int, ldb: int, beta: int, C: int,
               Ctype: int, ldc: int, computeType: int, algo: int) -> None:
        call = "cublasGemmEx"
        types = _types(call, Atype, Btype, Ctype)
        self._products(handle, call, transa, transb, m, n, k, alpha, (A, lda, 0), (B, ldb, 0),
                       beta, (C, ldc, 0), 1, types, _compute(call, computeType, types))

    def gemmBatchedEx(self, handle: int, transa: int, transb: int, m: int, n: int, k: int,
                      alpha: int, Aarray: int, Atype: int, lda: int, Barray: int, Btype: int,
                      ldb: int, beta: int, Carray: int, Ctype: int, ldc: int, batchCount: int,
                      computeType: int, algo: int) -> None:
        call = "cublasGemmBatchedEx"
        types = _types(call, Atype, Btype, Ctype)
        self._products(handle, call, transa, transb, m, n, k, alpha, (Aarray, lda, None),
                       (Barray, ldb, None), beta, (Carray, ldc, None), batchCount, types,
                       _compute(call, computeType, types))

    def gemmStridedBatchedEx(self, handle: int, transa: int, transb: int, m: int, n: int, k: int,
                             alpha: int, A: int, Atype: int, lda: int, strideA: int, B: int,
                             Btype: int, ldb: int, strideB: int, beta: int, C: int, Ctype: int,
                             ldc: int, strideC: int, batchCount: int, computeType: int,
                             algo: int) -> None:
        call = "cublasGemmStridedBatchedEx"
        types = _types(call, Atype, Btype, Ctype)
        self._products(handle, call, transa, transb, m, n, k, alpha, (A, lda, strideA),
                       (B, ldb, strideB), beta, (C, ldc, strideC), batchCount, types,
                       _compute(call, computeType, types))

    def _products(self, handle: int, call: str, transa: int, transb: int, m: int, n: int, k: int,
                  alpha: int, a: tuple[int, int, int | None], b: tuple[int, int, int | None],
                  beta: int, c: tuple[int, int, int | None], batch: int,
                  types: tuple[Any, Any, Any], compute: Compute) -> None:
        """Matrix products; each matrix has an address, a leading dimension and the elements from
        one matrix to the next (None: the address is of an array of addresses)."""
        shapes = [(m, k) if transa == 0 else (k, m), (k, n) if transb == 0 else (n, k), (m, n)]
        _leading(call, lda=(a[1], shapes[0][0]), ldb=(b[1], shapes[1][0]), ldc=(c[1], m))
        first, second = (self._scalar(handle, call, p, compute.dtype) for p in (alpha, beta))
        rounding = compute.rounding
        if not rounding and self._handle(handle).math == TF32_MATH and (
                compute.dtype in (np.float32, np.complex64)):
            rounding = "tf32"

        def body(o: Operands) -> None:
            if not m or not n:
                return
            places = [_addresses(o, name, matrix, dtype, batch) for name, matrix, dtype in
                      zip("ABC", (a, b, c), types, strict=True)]
            one, other = first(o), second(o)
            for at_a, at_b, at_c in zip(*places, strict=True):
                left = o.matrix("A", at_a, types[0], *shapes[0], a[1]).read()
                right = o.matrix("B", at_b, types[1], *shapes[1], b[1]).read()
                product = (lapack.transposed(_rounded(left, rounding, compute.dtype), transa)
                           @ lapack.transposed(_rounded(right, rounding, compute.dtype), transb))
                _scaled(o.matrix("C", at_c, types[2], m, n, c[1]), one, product, other)
        self._submit(handle, call, body)

    @family("{}syrk", ALL)
    def _syrk(self, t: str, handle: int, uplo: int, trans: int, n: int, k: int, alpha: int, A: int,
              lda: int, beta: int, C: int, ldc: int) -> None:
        dtype, call = LETTERS[t], f"cublas{t.upper()}syrk"
        shape = (n, k) if trans == 0 else (k, n)
        _leading(call, lda=(lda, shape[0]), ldc=(ldc, n))
        first, second = (self._scalar(handle, call, p, dtype) for p in (alpha, beta))

        def body(o: Operands) -> None:
            a = lapack.transposed(o.matrix("A", A, dtype, *shape, lda).read(), trans)
            _scaled(o.matrix("C", C, dtype, n, n, ldc), first(o), a @ a.T, second(o),
                    lapack.triangle(n, uplo))
        self._submit(handle, call, body)

    @family("{}trsm", ALL)
    def _trsm(self, t: str, handle: int, side: int, uplo: int, trans: int, diag: int, m: int,
              n: int, alpha: int, A: int, lda: int, B: int, ldb: int) -> None:
        self._triangular(t, "trsm", handle, side, uplo, trans, diag, m, n, alpha, (A, lda, 0),
                         (B, ldb, 0), 1)

    @family("{}trsmBatched", ALL)
    def _trsm_batched(self, t: str, handle: int, side: int, uplo: int, trans: int, diag: int,
                      m: int, n: int, alpha: int, Aarray: int, lda: int, Barray: int, ldb: int,
                      batchCount: int) -> None:
        self._triangular(t, "trsmBatched", handle, side, uplo, trans, diag, m, n, alpha,
                         (Aarray, lda, None), (Barray, ldb, None), batchCount)

    def _triangular(self, t: str, name: str, handle: int, side: int, uplo: int, trans: int,
                    diag: int, m: int, n: int, alpha: int, a: tuple[int, int, int | None],
                    b: tuple[int, int, int | None], batch: int) -> None:
        dtype, call = LETTERS[t], f"cublas{t.upper()}{name}"
        size = n if side else m
        _leading(call, lda=(a[1], size), ldb=(b[1], m))
        factor = self._scalar(handle, call, alpha, dtype)
        part = lapack.triangle(size, uplo)
        if diag:
            part &= ~np.eye(size, dtype=bool)

        def body(o: Operands) -> None:
            for at_a, at_b in zip(_addresses(o, "A", a, dtype, batch),
                                  _addresses(o, "B", b, dtype, batch), strict=True):
                stored = o.matrix("A", at_a, dtype, size, size, a[1]).read(part)
                matrix = lapack.transposed(np.where(part, stored, 0), trans)
                lower = not uplo if trans == 0 else bool(uplo)
                target = o.matrix("B", at_b, dtype, m, n, b[1])
                right = factor(o) * target.read()
                if side:
                    target.write(lapack.triangular(matrix.T, right.T, not lower, bool(diag)).T)
                else:
                    target.write(lapack.triangular(matrix, right, lower, bool(diag)))
        self._submit(handle, call, body)

    # -- what cuBLAS has beyond BLAS --------------------------------------------------------------

    @family("{}geam", ALL)
    def _geam(self, t: str, handle: int, transa: int, transb: int, m: int, n: int, alpha: int,
              A: int, lda: int, beta: int, B: int, ldb: int, C: int, ldc: int) -> None:
        dtype, call = LETTERS[t], f"cublas{t.upper()}geam"
        shapes = [(n, m) if trans else (m, n) for trans in (transa, transb)]
        _leading(call, lda=(lda, shapes[0][0]), ldb=(ldb, shapes[1][0]), ldc=(ldc, m))
        first, second = (self._scalar(handle, call, p, dtype) for p in (alpha, beta))

        def body(o: Operands) -> None:
            total = np.zeros((m, n), dtype)
            for name, factor, address, shape, leading, trans in (
                    ("A", first(o), A, shapes[0], lda, transa),
                    ("B", second(o), B, shapes[1], ldb, transb)):
                if factor:  # a matrix times 0 is not read
                    total += factor * lapack.transposed(
                        o.matrix(name, address, dtype, *shape, leading).read(), trans)
            o.matrix("C", C, dtype, m, n, ldc).write(total)
        self._submit(handle, call, body)

    @family("{}dgmm", ALL)
    def _dgmm(self, t: str, handle: int, mode: int, m: int, n: int, A: int, lda: int, x: int,
              incx: int, C: int, ldc: int) -> None:
        dtype, call = LETTERS[t], f"cublas{t.upper()}dgmm"
        _leading(call, lda=(lda, m), ldc=(ldc, m))

        def body(o: Operands) -> None:
            factors = o.vector("x", x, dtype, n if mode else m, incx).read()
            product = o.matrix("A", A, dtype, m, n, lda).read() * (
                factors if mode else factors[:, None])
            o.matrix("C", C, dtype, m, n, ldc).write(product)
        self._submit(handle, call, body)

    @family("{}tpttr", REALS)
    def _tpttr(self, t: str, handle: int, uplo: int, n: int, AP: int, A: int, lda: int) -> None:
        dtype, call = LETTERS[t], f"cublas{t.upper()}tpttr"
        _leading(call, lda=(lda, n))
        part = lapack.triangle(n, uplo)

        def body(o: Operands) -> None:
            full = np.zeros((n, n), dtype)
            packed = o.vector("AP", AP, dtype, n * (n + 1) // 2).read()
            full.T[part.T] = packed  # the packed form goes by columns
            o.matrix("A", A, dtype, n, n, lda).write(full, part)
        self._submit(handle, call, body)

    @family("{}trttp", REALS)
    def _trttp(self, t: str, handle: int, uplo: int, n: int, A: int, lda: int, AP: int) -> None:
        dtype, call = LETTERS[t], f"cublas{t.upper()}trttp"
        _leading(call, lda=(lda, n))
        part = lapack.triangle(n, uplo)

        def body(o: Operands) -> None:
            full = o.matrix("A", A, dtype, n, n, lda).read(part)
            o.vector("AP", AP, dtype, n * (n + 1) // 2).write(full.T[part.T])
        self._submit(handle, call, body)

    @family("{}getrfBatched", ALL)
    def _getrf(self, t: str, handle: int, n: int, Aarray: int, lda: int, PivotArray: int,
               infoArray: int, batchSize: int) -> None:
        dtype, call = LETTERS[t], f"cublas{t.upper()}getrfBatched"
        _leading(call, lda=(lda, n))

        def body(o: Operands) -> None:
            infos = np.zeros(batchSize, np.int32)
            pivots = np.zeros((batchSize, n), np.int32)
            for i, address in enumerate(o.pointers("Aarray", Aarray, batchSize)):
                matrix = o.matrix("A", address, dtype, n, n, lda)
                factors, pivots[i], infos[i] = lapack.lu(matrix.read(), bool(PivotArray))
                matrix.write(factors)
            if PivotArray:
                o.array("PivotArray", PivotArray, np.int32, (batchSize, n)).write(pivots)
            o.array("infoArray", infoArray, np.int32, (batchSize,)).write(infos)
        self._submit(handle, call, body)

    @family("{}getrsBatched", ALL)
    def _getrs(self, t: str, handle: int, trans: int, n: int, nrhs: int, Aarray: int, lda: int,
               devIpiv: int, Barray: int, ldb: int, info: int, batchSize: int) -> int:
        """The info is of the arguments, and the host's."""
        dtype, call = LETTERS[t], f"cublas{t.upper()}getrsBatched"
        _leading(call, lda=(lda, n), ldb=(ldb, n))
        host_bytes(info, 4)[:] = 0

        def body(o: Operands) -> None:
            pivots = None
            if devIpiv:
                pivots = o.array("devIpiv", devIpiv, np.int32, (batchSize, n)).read()
            for i, (at_a, at_b) in enumerate(zip(o.pointers("Aarray", Aarray, batchSize),
                                                 o.pointers("Barray", Barray, batchSize),
                                                 strict=True)):
                right = o.matrix("B", at_b, dtype, n, nrhs, ldb)
                right.write(lapack.lu_solve(o.matrix("A", at_a, dtype, n, n, lda).read(),
                                            None if pivots is None else pivots[i], right.read(),
                                            trans))
        self._submit(handle, call, body)
        return 0

    @family("{}getriBatched", ALL)
    def _getri(self, t: str, handle: int, n: int, Aarray: int, lda: int, PivotArray: int,
               Carray: int, ldc: int, infoArray: int, batchSize: int) -> None:
        dtype, call = LETTERS[t], f"cublas{t.upper()}getriBatched"
        _leading(call, lda=(lda, n), ldc=(ldc, n))

        def body(o: Operands) -> None:
            infos = np.zeros(batchSize, np.int32)
            pivots = None
            if PivotArray:
                pivots = o.array("PivotArray", PivotArray, np.int32, (batchSize, n)).read()
            for i, (at_a, at_c) in enumerate(zip(o.pointers("Aarray", Aarray, batchSize),
                                                 o.pointers("Carray", Carray, batchSize),
                                                 strict=True)):
                factors = o.matrix("A", at_a, dtype, n, n, lda).read()
                zeros = np.flatnonzero(np.diag(factors) == 0)
                infos[i] = zeros[0] + 1 if zeros.size else 0
                o.matrix("C", at_c, dtype, n, n, ldc).write(lapack.lu_solve(
                    factors, None if pivots is None else pivots[i], np.eye(n, dtype=dtype)))
            o.array("infoArray", infoArray, np.int32, (batchSize,)).write(infos)
        self._submit(handle, call, body)


def _not_capturing(stream: Stream) -> None:
    if stream.capture is not None:  # as CuPy's binding refuses it
        raise NotImplementedError("calling cuBLAS API during stream capture is currently "
                                  "unsupported")


def _size(x: Array) -> Array:
    """BLAS measures a complex number by the sum of its parts."""
    size: Array = np.abs(x.real) + np.abs(x.imag)
    return size


def _leading(call: str, **dimensions: tuple[int, int]) -> None:
    for name, (given, rows) in dimensions.items():
        if given < max(1, rows):
            raise CUBLASError(INVALID_VALUE, f"{call}: {name}={given}, but the matrix has {rows} "
                                             "rows")


def _types(call: str, *types: int) -> tuple[Any, Any, Any]:
    a, b, c = (dtype_of(t) for t in types)
    if a is None or b is None or c is None:
        raise CUBLASError(NOT_SUPPORTED, f"{call}: the types {types} (cudaDataType) are not "
                                         "simulated")
    return a, b, c


def _compute(call: str, kind: int, types: tuple[Any, Any, Any]) -> Compute:
    """What a cublasComputeType (or, of old, a cudaDataType) says."""
    single, double = ("c8", "c16") if np.dtype(types[2]).kind == "c" else ("f4", "f8")
    rounding = {74: "half", 75: "bfloat16", 77: "tf32"}.get(kind, "")
    if kind in (68, 69, 74, 75, 77, 0, 4):
        return Compute(np.dtype(single), rounding)
    if kind in (70, 71, 1, 5):
        return Compute(np.dtype(double))
    if kind in (72, 73, 10):
        return Compute(np.dtype("i4"))
    raise CUBLASError(NOT_SUPPORTED, f"{call}: computing in type {kind} is not simulated; use "
                                     "CUBLAS_COMPUTE_32F, which accumulates in float32")


def _rounded(values: Array, rounding: str, dtype: np.dtype[Any]) -> Array:
    """Operands as the product takes them."""
    if values.dtype != dtype:
        values = values.astype(dtype)
    if rounding == "tf32":
        return tf32(values)
    if rounding:
        parts = np.ascontiguousarray(values).view(np.float32)
        short = np.dtype(np.float16) if rounding == "half" else dtype_of(14)
        return parts.astype(short).astype(np.float32).view(values.dtype)
    return values


def _addresses(o: Operands, name: str, matrix: tuple[int, int, int | None], dtype: Any,
               batch: int) -> list[int]:
    address, _, step = matrix
    if step is None:
        return o.pointers(f"{name}array", address, batch)
    return [address + i * step * np.dtype(dtype).itemsize for i in range(batch)]


def _scaled(target: Operand, alpha: Any, product: Array, beta: Any,
            part: Array | None = None) -> None:
    """target = alpha * product + beta * target; times 0 it is not read."""
    result = product if alpha == 1 else alpha * product
    if beta:
        result = result + beta * target.read(part).astype(product.dtype)
    target.write(result, part)

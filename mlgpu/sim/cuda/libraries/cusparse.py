"""cuSPARSE in NumPy, as far as CuPy's conversions, sums and products call it; what is left out says
what to use instead.  Index bases are 0, as CuPy's are.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

from mlgpu.sim.cuda.libraries import sparse
from mlgpu.sim.cuda.libraries.modules import Library, StatusError, family
from mlgpu.sim.cuda.libraries.numeric import LETTERS, dtype_of
from mlgpu.sim.cuda.libraries.operands import Operands, current_stream, submit
from mlgpu.sim.cuda.libraries.refused import refusal
from mlgpu.sim.cuda.libraries.sparse import DenseMatrix, DenseVector, SparseMatrix, SparseVector
from mlgpu.sim.cuda.memory import DEVICE_BASE, host_bytes
from mlgpu.sim.cuda.system import System

Array = np.ndarray[Any, Any]
ALL = "sdcz"

CONSTANTS = {
    "CUSPARSE_POINTER_MODE_HOST": 0, "CUSPARSE_POINTER_MODE_DEVICE": 1,
    "CUSPARSE_ACTION_SYMBOLIC": 0, "CUSPARSE_ACTION_NUMERIC": 1,
    "CUSPARSE_INDEX_BASE_ZERO": 0, "CUSPARSE_INDEX_BASE_ONE": 1,
    "CUSPARSE_MATRIX_TYPE_GENERAL": 0, "CUSPARSE_MATRIX_TYPE_SYMMETRIC": 1,
    "CUSPARSE_MATRIX_TYPE_HERMITIAN": 2, "CUSPARSE_MATRIX_TYPE_TRIANGULAR": 3,
    "CUSPARSE_FILL_MODE_LOWER": 0, "CUSPARSE_FILL_MODE_UPPER": 1,
    "CUSPARSE_DIAG_TYPE_NON_UNIT": 0, "CUSPARSE_DIAG_TYPE_UNIT": 1,
    "CUSPARSE_OPERATION_NON_TRANSPOSE": 0, "CUSPARSE_OPERATION_TRANSPOSE": 1,
    "CUSPARSE_OPERATION_CONJUGATE_TRANSPOSE": 2,
    "CUSPARSE_DIRECTION_ROW": 0, "CUSPARSE_DIRECTION_COLUMN": 1,
    "CUSPARSE_INDEX_16U": 1, "CUSPARSE_INDEX_32I": 2, "CUSPARSE_INDEX_64I": 3,
    "CUSPARSE_ORDER_COL": 1, "CUSPARSE_ORDER_ROW": 2,
    "CUSPARSE_SOLVE_POLICY_NO_LEVEL": 0, "CUSPARSE_SOLVE_POLICY_USE_LEVEL": 1,
    "CUSPARSE_FORMAT_CSR": 1, "CUSPARSE_FORMAT_CSC": 2, "CUSPARSE_FORMAT_COO": 3,
    "CUSPARSE_SPMAT_FILL_MODE": 0, "CUSPARSE_SPMAT_DIAG_TYPE": 1,
    "CUSPARSE_MV_ALG_DEFAULT": 0, "CUSPARSE_MM_ALG_DEFAULT": 0,
    "CUSPARSE_CSR2CSC_ALG1": 1, "CUSPARSE_CSR2CSC_ALG2": 2, "CUSPARSE_SPSM_ALG_DEFAULT": 0,
    "CUSPARSE_SPGEMM_DEFAULT": 0, "CUSPARSE_SPGEMM_ALG1": 3, "CUSPARSE_SPGEMM_ALG2": 4,
    "CUSPARSE_SPGEMM_ALG3": 5, "CUSPARSE_SPGEAM_ALG_DEFAULT": 0, "CUSPARSE_SPGEAM_ALG1": 1,
    "CUSPARSE_SPARSETODENSE_ALG_DEFAULT": 0, "CUSPARSE_DENSETOSPARSE_ALG_DEFAULT": 0,
}


class CuSparseError(StatusError):
    """An error of cuSPARSE."""

    names: ClassVar = {1: "CUSPARSE_STATUS_NOT_INITIALIZED: initialization error",
                       2: "CUSPARSE_STATUS_ALLOC_FAILED", 3: "CUSPARSE_STATUS_INVALID_VALUE",
                       4: "CUSPARSE_STATUS_ARCH_MISMATCH", 6: "CUSPARSE_STATUS_EXECUTION_FAILED",
                       7: "CUSPARSE_STATUS_INTERNAL_ERROR",
                       10: "CUSPARSE_STATUS_NOT_SUPPORTED",
                       11: "CUSPARSE_STATUS_INSUFFICIENT_RESOURCES"}
    failed = 6


class Cusparse(Library):
    """The functions of cuSPARSE."""

    error = CuSparseError

    def __init__(self, system: System, version: int) -> None:
        super().__init__(system)
        self._version = version
        self._things: dict[int, Any] = {}  # by handle or descriptor
        self._numbers = itertools.count(0x5BA5_0000, 0x10)

    def _make(self, thing: Any) -> int:
        number = next(self._numbers)
        self._things[number] = thing
        return number

    def _get(self, number: int) -> Any:
        if number not in self._things:
            raise CuSparseError(3, f"{number:#x} is no descriptor of cuSPARSE, or is destroyed")
        return self._things[number]

    def _submit(self, call: str, body: Callable[[Operands], Any], wait: bool = False) -> None:
        stream = current_stream(self.system)
        if stream.capture is not None:  # as CuPy's binding refuses it
            raise NotImplementedError("calling cuSPARSE API during stream capture is currently "
                                      "unsupported")
        work = submit(self.system, stream, call, body)
        if wait:  # the host learns a size
            self.system.finish(work)

    def _scalar(self, call: str, address: int, dtype: Any) -> Any:
        if address >= DEVICE_BASE:
            raise CuSparseError(10, f"{call}: alpha and beta in device memory are not simulated; "
                                    "keep them in the host's, as CuPy does")
        return host_bytes(address, np.dtype(dtype).itemsize).view(dtype)[0]

    # -- handles and descriptors ------------------------------------------------------------------

    def create(self) -> int:
        return self._make("handle")

    def createMatDescr(self) -> int:
        return self._make("matrix")

    def spGEMM_createDescr(self) -> int:
        return self._make({})

    def getVersion(self, handle: int) -> int:
        return self._version

    def get_build_version(self) -> int:
        return self._version

    def is_cuda_python_build(self) -> bool:
        return False

    def setPointerMode(self, handle: int, mode: int) -> None:
        if mode:
            raise CuSparseError(10, "cusparseSetPointerMode: scalars in device memory are not "
                                    "simulated; keep them in the host's, as CuPy does")

    def setMatType(self, descr: int, kind: int) -> None:
        self._get(descr)

    def setMatIndexBase(self, descr: int, base: int) -> None:
        _based(base)

    def setMatFillMode(self, descr: int, mode: int) -> None:
        self._get(descr)

    def setMatDiagType(self, descr: int, kind: int) -> None:
        self._get(descr)

    def createCsr(self, rows: int, cols: int, nnz: int, offsets: int, columns: int, values: int,
                  offsetType: int, columnType: int, idxBase: int, valueType: int) -> int:
        _based(idxBase)
        return self._make(SparseMatrix("csr", rows, cols, nnz, offsets, columns, values,
                                       _index(offsetType), _index(columnType), _value(valueType)))

    def createCsc(self, rows: int, cols: int, nnz: int, offsets: int, indices: int, values: int,
                  offsetType: int, indexType: int, idxBase: int, valueType: int) -> int:
        _based(idxBase)
        return self._make(SparseMatrix("csc", rows, cols, nnz, offsets, indices, values,
                                       _index(offsetType), _index(indexType), _value(valueType)))

    def createCoo(self, rows: int, cols: int, nnz: int, row: int, column: int, values: int,
                  indexType: int, idxBase: int, valueType: int) -> int:
        _based(idxBase)
        return self._make(SparseMatrix("coo", rows, cols, nnz, row, column, values,
                                       _index(indexType), _index(indexType), _value(valueType)))

    def createDnVec(self, size: int, values: int, valueType: int) -> int:
        return self._make(DenseVector(size, values, _value(valueType)))

    def createDnMat(self, rows: int, cols: int, ld: int, values: int, valueType: int,
                    order: int) -> int:
        return self._make(DenseMatrix(rows, cols, ld, values, _value(valueType), order == 2))

    def createSpVec(self, size: int, nnz: int, indices: int, values: int, idxType: int,
                    idxBase: int, valueType: int) -> int:
        _based(idxBase)
        return self._make(SparseVector(nnz, indices, values, _index(idxType), _value(valueType)))

    def spMatGetSize(self, desc: int, rows: int, cols: int, nnz: int) -> None:
        matrix = self._get(desc)
        for address, value in ((rows, matrix.rows), (cols, matrix.columns), (nnz, matrix.count)):
            host_bytes(address, 8).view(np.int64)[0] = value

    def csrSetPointers(self, desc: int, offsets: int, columns: int, values: int) -> None:
        matrix = self._get(desc)
        matrix.first, matrix.second, matrix.values = offsets, columns, values

    @family("destroy{}", ["", "MatDescr", "SpMat", "DnVec", "DnMat", "SpVec"])
    def _destroy(self, kind: str, descriptor: int) -> None:
        self._get(descriptor)
        del self._things[descriptor]

    def spGEMM_destroyDescr(self, descriptor: int) -> None:
        self._destroy("", descriptor)

    @family("{}", ["spMV_bufferSize", "spMM_bufferSize", "sparseToDense_bufferSize",
                   "denseToSparse_bufferSize", "xcoosort_bufferSizeExt", "xcsrsort_bufferSizeExt",
                   "xcscsort_bufferSizeExt", "csr2cscEx2_bufferSize", *(
                       f"{t}csrgeam2_bufferSizeExt" for t in ALL)])
    def _buffer_size(self, name: str, *args: Any) -> int:
        """None is needed, and one byte keeps programs that allocate it working."""
        return 1

    # -- conversions ------------------------------------------------------------------------------

    def xcsr2coo(self, handle: int, csrRowPtr: int, nnz: int, m: int, cooRowInd: int,
                 idxBase: int) -> None:
        _based(idxBase)

        def body(o: Operands) -> None:
            offsets = o.array("csrRowPtr", csrRowPtr, np.int32, (m + 1,)).read()
            o.array("cooRowInd", cooRowInd, np.int32, (nnz,)).write(sparse.spread(offsets))
        self._submit("cusparseXcsr2coo", body)

    def xcoo2csr(self, handle: int, cooRowInd: int, nnz: int, m: int, csrRowPtr: int,
                 idxBase: int) -> None:
        _based(idxBase)

        def body(o: Operands) -> None:
            rows = o.array("cooRowInd", cooRowInd, np.int32, (nnz,)).read()
            o.array("csrRowPtr", csrRowPtr, np.int32, (m + 1,)).write(sparse.offsets(rows, m))
        self._submit("cusparseXcoo2csr", body)

    def createIdentityPermutation(self, handle: int, n: int, p: int) -> None:
        self._submit("cusparseCreateIdentityPermutation",
                     lambda o: o.array("p", p, np.int32, (n,)).write(np.arange(n)))

    def xcoosortByRow(self, handle: int, m: int, n: int, nnz: int, cooRows: int, cooCols: int,
                      P: int, pBuffer: int) -> None:
        self._sort("cusparseXcoosortByRow", nnz, cooRows, cooCols, P, lambda r, c: (c, r))

    def xcoosortByColumn(self, handle: int, m: int, n: int, nnz: int, cooRows: int, cooCols: int,
                         P: int, pBuffer: int) -> None:
        self._sort("cusparseXcoosortByColumn", nnz, cooRows, cooCols, P, lambda r, c: (r, c))

    def _sort(self, call: str, nnz: int, rows: int, columns: int, permutation: int,
              keys: Callable[[Array, Array], tuple[Array, Array]]) -> None:
        def body(o: Operands) -> None:
            first, second, p = (o.array(name, at, np.int32, (nnz,)) for name, at in (
                ("cooRows", rows), ("cooCols", columns), ("P", permutation)))
            order = np.lexsort(keys(first.read(), second.read()))
            for operand in (first, second, p):
                operand.write(operand.read()[order])
        self._submit(call, body)

    @family("{}", ["xcsrsort", "xcscsort"])
    def _sort_compressed(self, name: str, handle: int, m: int, n: int, nnz: int, descr: int,
                         offsets: int, indices: int, P: int, pBuffer: int) -> None:
        size = m if name == "xcsrsort" else n

        def body(o: Operands) -> None:
            lines = sparse.spread(o.array("offsets", offsets, np.int32, (size + 1,)).read())
            index, p = (o.array(what, at, np.int32, (nnz,)) for what, at in (
                ("indices", indices), ("P", P)))
            order = np.lexsort((index.read(), lines))
            for operand in (index, p):
                operand.write(operand.read()[order])
        self._submit(f"cusparse{name.title()}", body)

    def gather(self, handle: int, vecY: int, vecX: int) -> None:
        dense, picked = self._get(vecY), self._get(vecX)

        def body(o: Operands) -> None:
            picked.operand(o).write(dense.operand(o).read()[picked.places(o)])
        self._submit("cusparseGather", body)

    def csr2cscEx2(self, handle: int, m: int, n: int, nnz: int, csrVal: int, csrRowPtr: int,
                   csrColInd: int, cscVal: int, cscColPtr: int, cscRowInd: int, valType: int,
                   copyValues: int, idxBase: int, alg: int, buffer: int) -> None:
        _based(idxBase)
        source, target = (SparseMatrix(kind, m, n, nnz, *places, np.dtype("i4"), np.dtype("i4"),
                                       _value(valType)) for kind, places in (
            ("csr", (csrRowPtr, csrColInd, csrVal)), ("csc", (cscColPtr, cscRowInd, cscVal))))
        self._submit("cusparseCsr2cscEx2", lambda o: target.write(o, *source.read(o)))

    def sparseToDense(self, handle: int, matA: int, matB: int, alg: int, buffer: int) -> None:
        source, target = self._get(matA), self._get(matB)

        def body(o: Operands) -> None:
            rows, columns, values = source.read(o)
            full = np.zeros((target.rows, target.columns), target.dtype)
            full[rows, columns] = values
            target.operand(o).write(full)
        self._submit("cusparseSparseToDense", body)

    def denseToSparse_analysis(self, handle: int, matA: int, matB: int, alg: int,
                               buffer: int) -> None:
        source, target = self._get(matA), self._get(matB)

        def body(o: Operands) -> None:
            target.count = int(np.count_nonzero(source.operand(o).read()))
        self._submit("cusparseDenseToSparse_analysis", body, wait=True)

    def denseToSparse_convert(self, handle: int, matA: int, matB: int, alg: int,
                              buffer: int) -> None:
        source, target = self._get(matA), self._get(matB)

        def body(o: Operands) -> None:
            full = source.operand(o).read()
            rows, columns = np.nonzero(full)
            target.write(o, rows, columns, full[rows, columns])
        self._submit("cusparseDenseToSparse_convert", body)

    @family("{}nnz_compress", ALL)
    def _count_large(self, t: str, handle: int, m: int, descr: int, values: int, rowPtr: int,
                     nnzPerRow: int, tol: Any) -> int:
        found: list[int] = []

        def body(o: Operands) -> None:
            offsets = o.array("rowPtr", rowPtr, np.int32, (m + 1,)).read()
            large = np.abs(o.array("values", values, LETTERS[t], (int(offsets[-1]),)).read()
                           ) > np.real(tol)
            counts = np.bincount(sparse.spread(offsets)[large], minlength=m)
            o.array("nnzPerRow", nnzPerRow, np.int32, (m,)).write(counts)
            found.append(int(counts.sum()))
        self._submit(f"cusparse{t.upper()}nnz_compress", body, wait=True)
        return found[0] if found else 0

    @family("{}csr2csr_compress", ALL)
    def _keep_large(self, t: str, handle: int, m: int, n: int, descrA: int, inVal: int,
                    inColInd: int, inRowPtr: int, inNnz: int, nnzPerRow: int, outVal: int,
                    outColInd: int, outRowPtr: int, tol: Any) -> None:
        source = SparseMatrix("csr", m, n, inNnz, inRowPtr, inColInd, inVal, np.dtype("i4"),
                              np.dtype("i4"), LETTERS[t])

        def body(o: Operands) -> None:
            rows, columns, values = source.read(o)
            large = np.abs(values) > np.real(tol)
            target = SparseMatrix("csr", m, n, int(large.sum()), outRowPtr, outColInd, outVal,
                                  np.dtype("i4"), np.dtype("i4"), LETTERS[t])
            target.write(o, rows[large], columns[large], values[large])
        self._submit(f"cusparse{t.upper()}csr2csr_compress", body)

    # -- products and sums ------------------------------------------------------------------------

    def spMV(self, handle: int, opA: int, alpha: int, matA: int, vecX: int, beta: int, vecY: int,
             computeType: int, alg: int, externalBuffer: int) -> None:
        matrix, x, y = self._get(matA), self._get(vecX), self._get(vecY)
        one, two = (self._scalar("cusparseSpMV", p, _value(computeType)) for p in (alpha, beta))

        def body(o: Operands) -> None:
            product = sparse.times(matrix.read(o), opA, x.operand(o).read(), y.size)
            sparse.scaled(y.operand(o), one, two, product)
        self._submit("cusparseSpMV", body)

    def spMM(self, handle: int, opA: int, opB: int, alpha: int, matA: int, matB: int, beta: int,
             matC: int, computeType: int, alg: int, externalBuffer: int) -> None:
        matrix, b, c = self._get(matA), self._get(matB), self._get(matC)
        one, two = (self._scalar("cusparseSpMM", p, _value(computeType)) for p in (alpha, beta))

        def body(o: Operands) -> None:
            right = sparse.turned(b.operand(o).read(), opB)
            product = sparse.times(matrix.read(o), opA, right, c.rows)
            sparse.scaled(c.operand(o), one, two, product)
        self._submit("cusparseSpMM", body)

    def spGEMM_workEstimation(self, handle: int, opA: int, opB: int, alpha: int, matA: int,
                              matB: int, beta: int, matC: int, computeType: int, alg: int,
                              spgemmDescr: int, bufferSize: int, externalBuffer1: int) -> int:
        return 1

    def spGEMM_compute(self, handle: int, opA: int, opB: int, alpha: int, matA: int, matB: int,
                       beta: int, matC: int, computeType: int, alg: int, spgemmDescr: int,
                       bufferSize: int, externalBuffer2: int) -> int:
        a, b, c = self._get(matA), self._get(matB), self._get(matC)
        kept, factor = self._get(spgemmDescr), self._scalar("cusparseSpGEMM", alpha,
                                                            _value(computeType))
        if opA or opB or np.any(self._scalar("cusparseSpGEMM", beta, _value(computeType))):
            raise CuSparseError(10, "cusparseSpGEMM: transposed matrices and beta are not "
                                    "supported, as in cuSPARSE")
        if bufferSize:
            def body(o: Operands) -> None:
                rows, columns, values = sparse.product(a.read(o), b.read(o), a.columns, b.columns)
                kept["product"] = rows, columns, factor * values
                c.count = len(values)
            self._submit("cusparseSpGEMM_compute", body, wait=True)
        return 1

    def spGEMM_copy(self, handle: int, opA: int, opB: int, alpha: int, matA: int, matB: int,
                    beta: int, matC: int, computeType: int, alg: int, spgemmDescr: int) -> None:
        c, kept = self._get(matC), self._get(spgemmDescr)
        self._submit("cusparseSpGEMM_copy", lambda o: c.write(o, *kept["product"]))

    def xcsrgeam2Nnz(self, handle: int, m: int, n: int, descrA: int, nnzA: int, csrRowPtrA: int,
                     csrColIndA: int, descrB: int, nnzB: int, csrRowPtrB: int, csrColIndB: int,
                     descrC: int, csrRowPtrC: int, nnzTotalDevHostPtr: int,
                     workspace: int) -> None:
        def body(o: Operands) -> None:
            rows, _ = sparse.union(o, m, n, (nnzA, csrRowPtrA, csrColIndA),
                                   (nnzB, csrRowPtrB, csrColIndB))
            o.array("csrRowPtrC", csrRowPtrC, np.int32, (m + 1,)).write(sparse.offsets(rows, m))
            o.host("nnzTotal", nnzTotalDevHostPtr, np.int32, 1).write(len(rows))
        self._submit("cusparseXcsrgeam2Nnz", body, wait=True)

    @family("{}csrgeam2", ALL)
    def _add(self, t: str, handle: int, m: int, n: int, alpha: int, descrA: int, nnzA: int,
             csrValA: int, csrRowPtrA: int, csrColIndA: int, beta: int, descrB: int, nnzB: int,
             csrValB: int, csrRowPtrB: int, csrColIndB: int, descrC: int, csrValC: int,
             csrRowPtrC: int, csrColIndC: int, buffer: int) -> None:
        call, dtype = f"cusparse{t.upper()}csrgeam2", LETTERS[t]
        factors = [self._scalar(call, p, dtype) for p in (alpha, beta)]
        sides = [SparseMatrix("csr", m, n, *places, np.dtype("i4"), np.dtype("i4"), dtype)
                 for places in ((nnzA, csrRowPtrA, csrColIndA, csrValA),
                                (nnzB, csrRowPtrB, csrColIndB, csrValB))]

        def body(o: Operands) -> None:
            parts = [matrix.read(o) for matrix in sides]
            rows, columns = (np.concatenate([p[i] for p in parts]) for i in (0, 1))
            values = np.concatenate([f * p[2] for f, p in zip(factors, parts, strict=True)])
            rows, columns, values = sparse.merged(rows, columns, values, n)
            SparseMatrix("csr", m, n, len(rows), csrRowPtrC, csrColIndC, csrValC, np.dtype("i4"),
                         np.dtype("i4"), dtype).write(o, rows, columns, values)
        self._submit(call, body)


def look_up(name: str) -> Any:
    """Any other function: it says what to use instead."""
    if name.startswith(("_", "CUSPARSE_")):
        raise AttributeError(f"cusparse has no attribute {name!r}")
    return refusal(f"cuSPARSE's {name}", "compute with dense arrays (for tests small ones are "
                   "enough), or with SciPy's sparse matrices on the host")


def _based(base: int) -> None:
    if base:
        raise CuSparseError(10, "indices that count from 1 are not simulated; let them count from "
                                "0, as CuPy does")


def _index(kind: int) -> np.dtype[Any]:
    return np.dtype({1: "u2", 2: "i4", 3: "i8"}[kind])


def _value(kind: int) -> np.dtype[Any]:
    dtype = dtype_of(kind)
    if dtype is None:
        raise CuSparseError(10, f"the type {kind} (cudaDataType) is not simulated")
    return dtype

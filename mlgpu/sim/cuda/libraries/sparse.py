"""Sparse matrices in the devices' memory, and NumPy on the triplets of their elements."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from mlgpu.sim.cuda.libraries.operands import Operand, Operands

Array = np.ndarray[Any, Any]
Triplets = tuple[Array, Array, Array]  # rows, columns and values


@dataclass
class SparseMatrix:
    """Where a matrix lies: "csr" and "csc" begin with offsets, "coo" with rows."""

    kind: str
    rows: int
    columns: int
    count: int
    first: int
    second: int
    values: int
    first_type: np.dtype[Any]
    second_type: np.dtype[Any]
    dtype: np.dtype[Any]

    def _operands(self, o: Operands) -> tuple[Operand, Operand, Operand]:
        lines = {"csr": self.rows + 1, "csc": self.columns + 1}.get(self.kind, self.count)
        return (o.array("the offsets or rows", self.first, self.first_type, (lines,)),
                o.array("the indices", self.second, self.second_type, (self.count,)),
                o.array("the values", self.values, self.dtype, (self.count,)))

    def read(self, o: Operands) -> Triplets:
        """The elements, as they are stored."""
        first, second, values = (operand.read() for operand in self._operands(o))
        if self.kind == "coo":
            return first, second, values
        lines = spread(first)
        return (lines, second, values) if self.kind == "csr" else (second, lines, values)

    def write(self, o: Operands, rows: Array, columns: Array, values: Array) -> None:
        """Store elements, by rows or columns."""
        order = np.lexsort((rows, columns) if self.kind == "csc" else (columns, rows))
        rows, columns, values = rows[order], columns[order], values[order]
        first, second, target = self._operands(o)
        if self.kind == "coo":
            first.write(rows)
        elif self.kind == "csr":
            first.write(offsets(rows, self.rows))
        else:
            first.write(offsets(columns, self.columns))
        second.write(rows if self.kind == "csc" else columns)
        target.write(values)


@dataclass
class DenseMatrix:
    """Where a dense matrix lies."""

    rows: int
    columns: int
    leading: int
    values: int
    dtype: np.dtype[Any]
    by_rows: bool

    def operand(self, o: Operands) -> Operand:
        """Its elements."""
        size, step = self.dtype.itemsize, self.leading * self.dtype.itemsize
        return o.array("the dense matrix", self.values, self.dtype, (self.rows, self.columns),
                       (step, size) if self.by_rows else (size, step))


@dataclass
class DenseVector:
    """Where a dense vector lies."""

    size: int
    values: int
    dtype: np.dtype[Any]

    def operand(self, o: Operands) -> Operand:
        """Its elements."""
        return o.array("the dense vector", self.values, self.dtype, (self.size,))


@dataclass
class SparseVector:
    """Where a sparse vector lies."""

    count: int
    indices: int
    values: int
    index_type: np.dtype[Any]
    dtype: np.dtype[Any]

    def operand(self, o: Operands) -> Operand:
        """Its elements."""
        return o.array("the sparse vector", self.values, self.dtype, (self.count,))

    def places(self, o: Operands) -> Array:
        """Where they belong."""
        return o.array("its indices", self.indices, self.index_type, (self.count,)).read()


def spread(offsets_: Array) -> Array:
    """The line of each element."""
    return np.repeat(np.arange(len(offsets_) - 1), np.diff(offsets_))


def offsets(lines: Array, count: int) -> Array:
    """Where each line's elements begin, and the last one's end."""
    return np.concatenate([[0], np.cumsum(np.bincount(lines, minlength=count))])


def turned(matrix: Array, operation: int) -> Array:
    """op(matrix): 0 as it is, 1 transposed, 2 transposed and conjugated."""
    return (matrix, matrix.T, matrix.T.conj())[operation]


def times(elements: Triplets, operation: int, dense: Array, size: int) -> Array:
    """op(matrix) @ dense, of so many rows."""
    rows, columns, values = elements
    if operation:
        rows, columns, values = columns, rows, values.conj() if operation == 2 else values
    result = np.zeros((size, *dense.shape[1:]), np.result_type(values, dense))
    np.add.at(result, rows, values.reshape(-1, *[1] * (dense.ndim - 1)) * dense[columns])
    return result


def scaled(target: Operand, alpha: Any, beta: Any, product: Array) -> None:
    """target = alpha * product + beta * target; times 0 it is not read."""
    target.write(alpha * product + beta * target.read() if beta else alpha * product)


def merged(rows: Array, columns: Array, values: Array, width: int) -> Triplets:
    """Elements of the same place added up, in order of rows and columns."""
    places, which = np.unique(rows.astype(np.int64) * width + columns, return_inverse=True)
    sums = np.zeros(len(places), values.dtype)
    np.add.at(sums, which, values)
    return places // max(width, 1), places % max(width, 1), sums


def product(a: Triplets, b: Triplets, inner: int, width: int) -> Triplets:
    """a @ b; places whose sum happens to be zero stay."""
    order = np.argsort(b[0], kind="stable")
    begin = offsets(b[0], inner)
    lengths = np.diff(begin)[a[1]]
    of_a = np.repeat(np.arange(len(a[1])), lengths)
    within = np.arange(len(of_a)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    of_b = order[begin[a[1]][of_a] + within]
    return merged(a[0][of_a], b[1][of_b], a[2][of_a] * b[2][of_b], width)


def union(o: Operands, m: int, n: int, *sides: tuple[int, int, int]) -> tuple[Array, Array]:
    """The places that matrices have, each given by its count, offsets and columns."""
    rows, columns = [], []
    for count, first, second in sides:
        rows.append(spread(o.array("csrRowPtr", first, np.int32, (m + 1,)).read()))
        columns.append(o.array("csrColInd", second, np.int32, (count,)).read())
    every = np.concatenate(rows) * n + np.concatenate(columns)
    places = np.unique(every)
    return places // max(n, 1), places % max(n, 1)

"""Sparse matrices through the simulated cuSPARSE, against dense ones of NumPy."""

from __future__ import annotations

from typing import Any

import cupy as cp
import numpy as np
import pytest
from cupyx import cusparse
from cupyx.scipy import sparse

from mlgpu.sim.cuda.install import installed

DTYPES = ["f", "d", "F", "D"]
FORMATS = ["csr", "csc", "coo"]
simulated = pytest.mark.skipif(installed() is None, reason="the devices are not simulated")


def made(shape: tuple[int, ...], dtype: str, seed: int = 0) -> Any:
    """Numbers, most of them 0."""
    rng = np.random.default_rng(seed)
    values = rng.standard_normal(shape) * (rng.random(shape) < 0.4)
    if np.dtype(dtype).kind == "c":
        values = values * (1 + 2j)
    return values.astype(dtype)


def close(found: Any, expected: Any) -> None:
    """Compare, with the type and shape that NumPy gives."""
    if sparse.issparse(found):
        found = found.toarray()
    assert found.dtype == expected.dtype
    small = 1e-5 if expected.dtype.char in "fF" else 1e-12
    assert found.shape == expected.shape
    np.testing.assert_allclose(found.get(), expected, small, small)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", FORMATS)
def test_conversions(dtype: str, kind: str) -> None:
    a = made((6, 9), dtype)
    matrix = getattr(sparse, f"{kind}_matrix")(cp.asarray(a))
    assert matrix.nnz == np.count_nonzero(a)
    close(matrix, a)
    for other in FORMATS:
        turned = matrix.asformat(other)
        assert turned.format == other
        close(turned, a)
        close(turned.T, a.T)
    close(cusparse.sparseToDense(matrix), a)
    for format_ in FORMATS:
        close(cusparse.denseToSparse(cp.asarray(a), format_), a)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", FORMATS)
def test_products(dtype: str, kind: str) -> None:
    a, b, v = made((6, 9), dtype), made((9, 5), dtype, 1), made((9,), dtype, 2)
    x = getattr(sparse, f"{kind}_matrix")(cp.asarray(a))
    close(x @ cp.asarray(v), a @ v)
    close(x @ cp.asarray(b), a @ b)
    close(x @ sparse.csr_matrix(cp.asarray(b)), a @ b)
    close(x.T @ cp.asarray(a[:, 0]), a.T @ a[:, 0])
    close(x * 3, a * 3)
    close(x.sum(0), a.sum(0, keepdims=True))


@pytest.mark.parametrize("dtype", DTYPES)
def test_products_with_factors(dtype: str) -> None:
    a, b, c = made((6, 9), dtype), made((9, 5), dtype, 1), made((6, 5), dtype, 2)
    x, y = sparse.csr_matrix(cp.asarray(a)), cp.asarray(b, order="F")
    close(cusparse.spmm(x, y, cp.asarray(c, order="F"), 2, 3), 2 * a @ b + 3 * c)
    close(cusparse.spmm(x, cp.asarray(c, order="F"), transa=True), a.T @ c)
    close(cusparse.spmv(x, cp.asarray(c[:, 0].copy()), transa=True), a.T @ c[:, 0])
    close(cusparse.spmv(x, y[:, 0], cp.asarray(c[:, 1].copy()), 2, 3),
          2 * a @ b[:, 0] + 3 * c[:, 1])


@pytest.mark.parametrize("dtype", DTYPES)
def test_sums(dtype: str) -> None:
    a, b = made((6, 9), dtype), made((6, 9), dtype, 1)
    x, y = sparse.csr_matrix(cp.asarray(a)), sparse.csr_matrix(cp.asarray(b))
    close(x + y, a + b)
    close(x - y, a - b)
    close(x.tocsc() + y.tocsc(), a + b)
    close(x.multiply(y), a * b)
    z = sparse.csr_matrix((cp.asarray(a[a != 0]).copy(), x.indices, x.indptr), x.shape)
    z.data[:3] = 0
    before = z.nnz
    z.eliminate_zeros()
    assert z.nnz == before - 3


def test_elements_out_of_order_and_twice() -> None:
    rows, columns = cp.asarray([2, 0, 2, 1, 2]), cp.asarray([1, 3, 0, 2, 1])
    values = cp.asarray([1.0, 2, 3, 4, 5])
    expected = np.zeros((3, 4))
    np.add.at(expected, (rows.get(), columns.get()), values.get())
    matrix = sparse.coo_matrix((values, (rows, columns)), shape=(3, 4))
    for kind in FORMATS:
        turned = matrix.asformat(kind)
        close(turned, expected)
        turned.sum_duplicates()
        assert turned.nnz == 4
    unsorted = sparse.csr_matrix((cp.asarray([1.0, 2, 3]), cp.asarray([3, 0, 1]),
                                  cp.asarray([0, 2, 3])), shape=(2, 4))
    unsorted.sort_indices()
    np.testing.assert_array_equal(unsorted.indices.get(), [0, 3, 1])
    np.testing.assert_array_equal(unsorted.data.get(), [2, 1, 3])
    close(unsorted[0], np.array([[2.0, 0, 0, 1]]))


def test_empty() -> None:
    x = sparse.csr_matrix((3, 4))
    close(x, np.zeros((3, 4)))
    close(x @ cp.ones(4), np.zeros(3))
    close(x @ sparse.csr_matrix((4, 2)), np.zeros((3, 2)))


@simulated
def test_a_product_that_reads_too_far() -> None:
    x = sparse.csr_matrix((cp.ones(2), cp.arange(2, dtype="i"), cp.asarray([0, 1, 2], "i")),
                          shape=(2, 2))
    x._shape = (3, 2)  # for which there are too few offsets
    cusparse.spmv(x, cp.ones(2))
    with pytest.raises(cp.cuda.runtime.CUDARuntimeError, match="out of bounds: the offsets"
                       ) as error:
        cp.cuda.Device().synchronize()
    assert error.value.finding.kernel == "cusparseSpMV"

"""Compiled products of matrices against float64, for every layout, size and cut among threads."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mlgpu
from mlgpu.cpu import fast, gemm

pytestmark = pytest.mark.skipif(fast.problem() is not None,
                                reason=f"compiled loops: {fast.problem()}")

LAYOUTS = ["rows", "columns", "part of rows", "part of columns"]


@pytest.fixture(autouse=True)
def compiled(monkeypatch):
    """Whatever the machine's vectors and the size; BLAS is not asked where loops are to answer."""
    monkeypatch.setattr(fast, "ENOUGH", 0)
    monkeypatch.setattr(gemm, "_by_blas", None)
    monkeypatch.setattr(gemm, "_WIDE", True)
    monkeypatch.setattr(gemm, "_FEWEST", 1)
    monkeypatch.setattr(gemm, "_NARROWEST", 1)


def matrix(rows, columns, layout, dtype, seed):
    if "columns" in layout:
        return matrix(columns, rows, layout.replace("columns", "rows"), dtype, seed).T
    random = np.random.default_rng(seed)
    wide = random.standard_normal((rows, columns + 5 * layout.startswith("part")))
    return wide.astype(dtype)[:, :columns]


def check(m, k, n, a_layout="rows", b_layout="rows", dtype="float32", biased=False, threads=1):
    a, b = matrix(m, k, a_layout, dtype, 0), matrix(k, n, b_layout, dtype, 1)
    bias = np.arange(n).astype(dtype) if biased else None
    around = np.full((m + 2, n + 3), 7, dtype)
    out = around[1:-1, 1:-2]
    before = mlgpu.get_num_threads()
    mlgpu.set_num_threads(threads)
    try:
        gemm.multiply_all((a, b, out, bias))
    finally:
        mlgpu.set_num_threads(before)
    wide = [x.astype(np.float64) for x in (a, b)]
    expected = wide[0] @ wide[1] + (0 if bias is None else bias)
    largest = np.abs(wide[0]) @ np.abs(wide[1]) + n
    assert (np.abs(out - expected) <= k * np.finfo(dtype).eps * largest).all()
    result = out.copy()
    out[:] = 7
    assert (around == 7).all()
    return result


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("b_layout", LAYOUTS)
@pytest.mark.parametrize("a_layout", LAYOUTS)
def test_layouts(a_layout, b_layout, dtype):
    for m, k, n in ((1, 1, 1), (14, 5, 32), (29, 17, 33), (15, 400, 70), (40, 800, 700)):
        check(m, k, n, a_layout, b_layout, dtype, biased=m % 2 == 1)


@settings(max_examples=60, deadline=None)
@given(m=st.integers(1, 45), k=st.integers(1, 800), n=st.integers(1, 100),
       a_layout=st.sampled_from(LAYOUTS), b_layout=st.sampled_from(LAYOUTS),
       dtype=st.sampled_from(["float32", "float64"]), biased=st.booleans())
def test_any_sizes(m, k, n, a_layout, b_layout, dtype, biased):
    check(m, k, n, a_layout, b_layout, dtype, biased)


@pytest.mark.parametrize(("m", "n"), [(300, 200), (90, 1300)])
def test_how_it_is_cut_does_not_show(m, n):
    results = [check(m, 900, n, "rows", "columns", threads=threads) for threads in (1, 2, 3)]
    assert all(np.array_equal(results[0], other) for other in results[1:])


def test_what_is_not_finite_stays_in_its_row_and_column():
    a, b = (matrix(40, 40, "rows", "float32", seed) for seed in (0, 1))
    a[3, 7], b[5, 9] = np.inf, np.nan
    out = np.empty((40, 40), np.float32)
    gemm.multiply_all((a, b, out, None))
    spoilt = ~np.isfinite(out)
    expected = np.zeros((40, 40), bool)
    expected[3], expected[:, 9] = True, True
    assert (spoilt == expected).all()


def test_products_of_one_call_may_have_any_sizes_and_dtypes(monkeypatch):
    asked = []

    def by_blas(a, b, out, bias):
        asked.append(out.dtype.name)
        np.matmul(a, b, out=out)

    monkeypatch.setattr(gemm, "_by_blas", by_blas)
    pairs = [(matrix(m, k, "rows", dtype, 0), matrix(k, n, "columns", dtype, 1))
             for m, k, n, dtype in ((700, 90, 40, "float32"), (1, 500, 300, "float32"),
                                    (30, 900, 1200, "float32"), (200, 64, 64, "float64"))]
    for (a, b), made in zip(pairs, gemm.gemms(*pairs), strict=True):
        expected = a.astype(np.float64) @ b.astype(np.float64)
        np.testing.assert_allclose(made, expected, atol=1e-3)
    assert set(asked) == {"float64"}  # loops have workspaces of one dtype


def test_workspaces_are_given_back():
    a, b = (matrix(400, 400, "rows", "float32", seed) for seed in (0, 1))
    out = np.empty((400, 400), np.float32)
    gemm.multiply_all((a, b, out, None))
    mlgpu.memory.reset_peak()
    before = mlgpu.memory.stats()
    gemm.multiply_all((a, b, out, None))
    after = mlgpu.memory.stats()
    assert after.allocated == before.allocated
    assert after.peak > before.allocated  # they were accounted for
    assert after.peak - before.allocated < 4 << 20

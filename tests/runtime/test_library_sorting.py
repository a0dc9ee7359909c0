"""Sorting and what CuPy makes of it on simulated devices, against NumPy."""

from __future__ import annotations

from typing import Any

import cupy as cp
import numpy as np
import pytest

from mlgpu.sim.cuda.install import installed

DTYPES = ["?", "b", "B", "h", "H", "i", "I", "q", "Q", "e", "f", "d", "F", "D"]
simulated = pytest.mark.skipif(installed() is None, reason="the devices are not simulated")


def made(shape: tuple[int, ...], dtype: str, seed: int = 0) -> Any:
    """Numbers, some of them equal."""
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 50, shape)
    if np.dtype(dtype).kind == "c":
        values = values + 1j * rng.integers(0, 3, shape)
    return values.astype(dtype)


def same(found: Any, expected: Any) -> None:
    """Compare exactly, type and shape as well."""
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found.get(), expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(40,), (6, 9), (3, 4, 5), (1,), (0,), (3, 0), (5, 1)])
def test_sort(dtype: str, shape: tuple[int, ...]) -> None:
    a = made(shape, dtype)
    x = cp.asarray(a)
    for axis in range(-1, len(shape)):
        same(cp.sort(x, axis), np.sort(a, axis))
        same(cp.argsort(x, axis), np.argsort(a, axis, kind="stable"))
    same(cp.sort(x, None), np.sort(a, None))
    same(x, a)
    x.sort()
    same(x, np.sort(a))


def test_order_of_special_values() -> None:
    a = np.array([3, np.nan, -np.inf, 0.0, -0.0, np.inf, np.nan, -1], "f")
    x = cp.asarray(a)
    same(cp.sort(x), np.sort(a))
    same(cp.argsort(x), np.argsort(a, kind="stable"))
    z = np.array([1 + 2j, 1 - 2j, 0, complex(np.nan, 1), complex(1, np.nan)], "D")
    same(cp.sort(cp.asarray(z)), np.sort(z))


@pytest.mark.parametrize("dtype", ["i", "f", "d"])
def test_views(dtype: str) -> None:
    a = made((8, 10), dtype)
    x = cp.asarray(a)
    same(cp.sort(x.T), np.sort(a.T))
    same(cp.sort(x[::2, ::-3], 0), np.sort(a[::2, ::-3], 0))
    same(cp.argsort(x[:, 3]), np.argsort(a[:, 3], kind="stable"))


def test_lexsort() -> None:
    keys = made((3, 30), "i")
    same(cp.lexsort(cp.asarray(keys)), np.lexsort(keys))
    same(cp.lexsort(cp.asarray(keys[:, 0])), np.asarray(np.lexsort(keys[:, 0])))


@pytest.mark.parametrize("dtype", ["i", "f", "e"])
def test_partition(dtype: str) -> None:
    a = np.random.default_rng(0).permutation(100).astype(dtype)
    for k in (0, 7, 99, (3, 50)):
        parts = cp.partition(cp.asarray(a), k).get()
        places = cp.argpartition(cp.asarray(a), k).get()
        for one in np.atleast_1d(k):
            for found in (parts, a[places]):
                assert found[one] == one
                assert (found[:one] < one).all()


def test_what_is_made_of_sorting() -> None:
    a = made((7, 8), "f")
    x = cp.asarray(a)
    same(cp.unique(x), np.unique(a))
    for found, expected in zip(cp.unique(x, True, True, True), np.unique(a, True, True, True),
                               strict=True):
        same(found, expected)
    same(cp.median(x), np.asarray(np.median(a)))
    same(cp.median(x, axis=0), np.median(a, axis=0))
    for q in (0, 30, 50, 100):
        np.testing.assert_allclose(cp.percentile(x, q).get(), np.percentile(a, q), 1e-6)
    np.testing.assert_allclose(cp.quantile(x, 0.3, axis=1).get(), np.quantile(a, 0.3, axis=1),
                               1e-6)
    edges = np.array([3, 10, 30], "f")
    same(cp.searchsorted(cp.asarray(edges), x), np.searchsorted(edges, a))
    same(cp.isin(x, cp.asarray(edges)), np.isin(a, edges))
    same(cp.intersect1d(x, cp.asarray(edges)), np.intersect1d(a, edges))
    same(cp.setdiff1d(x, cp.asarray(edges)), np.setdiff1d(a, edges))
    same(cp.union1d(x, cp.asarray(edges)), np.union1d(a, edges))
    same(cp.sort_complex(x), np.sort_complex(a))
    counts, found = np.histogram(a, 5), cp.histogram(x, 5)
    np.testing.assert_array_equal(found[0].get(), counts[0])


@simulated
def test_it_runs_when_its_stream_comes_to_it() -> None:
    x = cp.zeros(100, "f")
    cp.cuda.Device().synchronize()
    one, other = cp.cuda.Stream(non_blocking=True), cp.cuda.Stream(non_blocking=True)
    with one:
        x[...] = cp.arange(100, 0, -1, dtype="f")
    with other:
        x.sort()
    with pytest.raises(cp.cuda.runtime.CUDARuntimeError, match="nothing orders the two") as error:
        cp.cuda.Device().synchronize()
    assert error.value.finding.tool == "racecheck"

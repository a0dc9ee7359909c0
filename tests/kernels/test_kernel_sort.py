"""Sorts and selections on a simulated device."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from hosted import hosted

from mlgpu.cpu import order
from mlgpu.cuda import scan as cuda_scan
from mlgpu.cuda import sort as cuda_sort

BF16 = np.dtype(ml_dtypes.bfloat16)
DTYPES = [np.float32, np.float64, np.float16, BF16, np.int8, np.uint8, np.int16, np.int32,
          np.int64, np.bool_]


@pytest.fixture
def host(monkeypatch):
    return hosted(monkeypatch, cuda_sort, cuda_scan)


def sample(shape, dtype, seed=0):
    """Values with ties, both zeros, NaN and infinities where there are such."""
    rng = np.random.default_rng(seed)
    x = rng.integers(-20, 20, shape) / 4
    if np.dtype(dtype).kind in "fV":
        flat = x.reshape(-1)
        flat[::7], flat[1::11], flat[2::13], flat[3::17] = -0.0, np.nan, np.inf, -np.inf
    return x.astype(dtype)


def expected(x, descending=False):
    rows = np.ascontiguousarray(x).reshape(-1, x.shape[-1])
    index = np.empty(rows.shape, np.int64)
    order.argsort(rows, descending, index)
    index = index.reshape(x.shape)
    return np.take_along_axis(x, index, -1), index


def same(found, wanted):
    for f, w in zip(found, wanted, strict=True):
        if w.dtype == BF16:
            f, w = f.astype(np.float32), w.astype(np.float32)
        np.testing.assert_array_equal(f, w)


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: np.dtype(d).name)
def test_sorts(host, dtype):
    run = host.wrap(cuda_sort.sort)
    for shape in ((5, 1), (9, 13), (3, 70)):
        x = sample(shape, dtype)
        same(run(x), expected(x))
    x = sample((2, 5000), dtype)
    same(run(x, 1, True), expected(x, True))


@pytest.mark.parametrize("n", [2, 32, 33, 300, 700, 1500, 2048, 2049, 9000])
def test_lengths(host, n):
    run = host.wrap(cuda_sort.sort)
    for dtype in (np.float32, np.int64):
        x = sample((2, n), dtype, n)
        same(run(x, 1, n % 2 == 0), expected(x, n % 2 == 0))


def test_other_dimensions(host):
    x = sample((6, 5, 4), np.float32)
    for dim in range(3):
        values, index = host.wrap(cuda_sort.sort)(x, dim)
        wanted = expected(np.moveaxis(x, dim, -1))
        same((values, index), [np.moveaxis(w, -1, dim) for w in wanted])
    values, index = host.wrap(cuda_sort.sort)(np.array(3, np.int8))
    assert values == 3
    assert index == 0


def test_signs_of_zero(host):
    x = np.array([[0.0, -0.0, -1.0, -0.0, 0.0]], np.float32)
    values, _ = host.wrap(cuda_sort.sort)(x)
    np.testing.assert_array_equal(np.signbit(values), [[True, False, True, True, False]])


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.int64, np.uint8],
                         ids=lambda d: np.dtype(d).name)
def test_selections(host, dtype):
    for shape, k in (((4, 60), 7), ((3, 3000), 20), ((2, 2500), 2100), ((17, 2100), 1)):
        x = sample(shape, dtype)
        for largest in (True, False):
            wanted = [w[:, :k] for w in expected(x, largest)]
            same(host.wrap(cuda_sort.topk)(x, k, 1, largest), wanted)
        for rank in (0, k - 1, shape[1] - 1):
            wanted = [w[:, rank:rank + 1] for w in expected(x)]
            same(host.wrap(cuda_sort.kth)(x, rank), wanted)


def test_bars(host):
    x = np.random.default_rng(0).standard_normal((1, 1 << 16)).astype(np.float32)
    host.wrap(cuda_sort.sort)(x)
    moved = sum(r.metrics["unique_bytes_read"] + r.metrics["unique_bytes_written"]
                for r in host.reports)
    # Four passes, each of which reads keys twice and moves keys and places once.
    least = (4 * 4 + 4 * (4 + 4) + 4 * (4 + 4) + 4) * x.size
    assert moved <= 1.05 * least
    for report in host.reports:
        assert report.metrics["registers"] <= 128
        assert report.metrics["spill_stores"] == 0
        assert report.metrics["local_load_sectors"] == 0
    y = np.random.default_rng(1).standard_normal((8, 1024)).astype(np.float32)
    host.wrap(cuda_sort.sort)(y)
    (report,) = host.reports
    found = report.metrics
    assert found["shared_wavefronts"] == found["shared_wavefronts_ideal"]
    assert found["global_load_efficiency"] >= 95
    assert found["global_store_efficiency"] >= 95
    assert found["spill_stores"] == 0

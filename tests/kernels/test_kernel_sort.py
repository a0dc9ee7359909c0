"""Sorts and selections on a simulated device."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from hosted import hosted

from mlgpu.cpu import order
from mlgpu.cuda import radix
from mlgpu.cuda import sort as cuda_sort

BF16 = np.dtype(ml_dtypes.bfloat16)
DTYPES = [np.float32, np.float64, np.float16, BF16, np.int8, np.uint8, np.int16, np.int32,
          np.int64, np.bool_]


@pytest.fixture
def host(monkeypatch):
    return hosted(monkeypatch, cuda_sort, radix)


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


def tile(dtype):
    """The elements that a block holds; longer rows are sorted digit by digit."""
    return 3584 if np.dtype(dtype).itemsize == 8 else 5632


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: np.dtype(d).name)
def test_sorts(host, dtype):
    run = host.wrap(cuda_sort.sort)
    for shape in ((5, 1), (9, 13), (3, 70)):
        x = sample(shape, dtype)
        same(run(x), expected(x))
    for n in (2100, tile(dtype) + 150):
        x = sample((2, n), dtype)
        same(run(x, 1, n > 3000), expected(x, n > 3000))


@pytest.mark.parametrize(("dtype", "n"), [
    (dtype, n) for dtype, of_blocks in ((np.float32, [2560, 2561]), (np.int64, []))
    for n in (2, 32, 33, 300, 700, 1500, 2048, 2049, *of_blocks, tile(dtype), tile(dtype) + 1)])
def test_lengths(host, dtype, n):
    """At the ends of what each kernel takes."""
    x = sample((2, n), dtype, n)
    found = host.wrap(cuda_sort.sort)(x, 1, n % 2 == 0)
    same(found, expected(x, n % 2 == 0))
    assert len(host.reports) == (1 if n <= tile(dtype) else 2 + np.dtype(dtype).itemsize)


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
    n = tile(dtype) + 150
    long = [((2, n), 20), ((1, n), 2100)][:1 if np.dtype(dtype).itemsize > 4 else 2]
    for shape, k in (((4, 60), 7), ((2, 2500), 2100), *long):
        x = sample(shape, dtype)
        for largest in (True, False)[:1 if shape == (1, n) else 2]:  # sorted as in test_sorts
            wanted = [w[:, :k] for w in expected(x, largest)]
            same(host.wrap(cuda_sort.topk)(x, k, 1, largest), wanted)
        for rank in (0, k - 1, shape[1] - 1) if len(x) == 4 else (k - 1,):
            wanted = [w[:, rank:rank + 1] for w in expected(x)]
            same(host.wrap(cuda_sort.kth)(x, rank), wanted)


def test_a_long_row_needs_wider_counters(host, monkeypatch):
    monkeypatch.setattr(radix, "_NARROW", 6000)
    x = sample((1, 7000), np.float16)
    same(host.wrap(cuda_sort.sort)(x), expected(x))


def test_digits_that_are_the_same_need_no_pass(host):
    """Of whole numbers below 1,000 two digits of eight differ; in another row, none do."""
    x = np.random.default_rng(0).integers(0, 1000, (2, 4000))
    x[1] = 7
    same(host.wrap(cuda_sort.sort)(x), expected(x))
    loads = [r.metrics["global_load_sectors"] for r in host.reports[2:]]
    assert len(loads) == 8
    assert all(few < 20 for few in loads[2:7])
    x = (x << 40) - (1 << 45)  # between such digits
    same(host.wrap(cuda_sort.sort)(x, 1, True), expected(x, True))


def moved(reports):
    return sum(r.metrics["dram_bytes"] for r in reports)


def within_bars(report):
    found = report.metrics
    assert found["registers"] <= 64
    assert found["spill_stores"] == 0
    assert found["local_load_sectors"] == 0
    assert found["shared_wavefronts"] <= 1.01 * found["shared_wavefronts_ideal"]


def runs(digits, sector):
    """Sectors that the items of each digit of each tile take, so many items in one."""
    tile, places = 5632, np.empty(digits.size, np.int64)
    places[np.argsort(digits, kind="stable")] = np.arange(digits.size)
    total = 0
    for first in range(0, digits.size, tile):
        part = slice(first, first + tile)
        total += len(np.unique(digits[part] * digits.size + places[part] // sector))
    return total


def test_bars_of_a_long_row(host):
    x = np.random.default_rng(0).standard_normal((1, 1 << 15)).astype(np.float32)
    host.wrap(cuda_sort.sort)(x)
    # The digits are counted once; a pass moves keys and places, and what tiles publish, which is
    # read by the next one.
    tables = 2 * 4 * 256 * 4 * 6
    assert len(host.reports) == 6
    least = (4 + 4 + 8) * x.size + 2 * 16 * x.size + (8 + 4 + 8 + 4) * x.size + tables
    assert moved(host.reports) <= 1.05 * least
    for report in host.reports:
        within_bars(report)
        assert report.metrics["global_load_efficiency"] >= 95
    bits = x.view(np.uint32)[0]
    keys = np.where(bits >> 31, ~bits, bits | 1 << 31).astype(np.int64)
    for number, report in enumerate(host.reports[2:]):
        digits = keys >> 8 * number & 255
        sectors = runs(digits, 4) + (runs(digits, 8) if number == 3 else 0)
        published = 256 * 4 // 32 * (2 * 6 - 1)
        assert report.metrics["global_store_sectors"] <= sectors + published
        keys = keys[np.argsort(digits, kind="stable")]


def test_bars_of_rows_on_chip(host):
    for shape in ((8, 1024), (2, 4096)):
        x = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
        host.wrap(cuda_sort.sort)(x)
        (report,) = host.reports
        within_bars(report)
        assert moved([report]) <= 1.05 * 16 * x.size
        assert report.metrics["global_load_efficiency"] >= 95
        assert report.metrics["global_store_efficiency"] >= 95


def test_bars_of_a_selection(host):
    x = np.random.default_rng(2).standard_normal((4, 16384)).astype(np.float32)
    host.wrap(cuda_sort.topk)(x, 32)
    assert moved(host.reports) <= 1.05 * x.nbytes
    for report in host.reports:
        within_bars(report)
    assert host.reports[0].metrics["global_load_efficiency"] >= 95

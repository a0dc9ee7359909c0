"""Scans on a simulated device: values for every layout, and what they move."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from hosted import hosted

from mlgpu.cuda import scan as cuda_scan

BF16 = np.dtype(ml_dtypes.bfloat16)


@pytest.fixture
def scan(monkeypatch):
    """`mlgpu.cuda.scan.scan` of NumPy arrays."""
    return hosted(monkeypatch, cuda_scan).wrap(cuda_scan.scan)


def sample(shape, dtype=np.float32, seed=0):
    rng = np.random.default_rng(seed)
    if np.dtype(dtype).kind in "iu":
        return rng.integers(-3, 4, shape).astype(dtype)
    return rng.standard_normal(shape).astype(dtype)


def recurrence(a, b):
    h = b.astype(float)
    for i in range(1, len(h)):
        h[i] += a[i] * h[i - 1]
    return h


LAYOUTS = [((7,), 0), ((1, 1), 1), ((300, 3), 1), ((70, 12), 1), ((5, 333), 1), ((3, 5000), 1),
           ((40000,), 0), ((3, 5), 0), ((41, 48), 0), ((500, 3), 0), ((2, 700, 8), 1),
           ((64, 2, 40), 0)]


@pytest.mark.parametrize(("shape", "dim"), LAYOUTS, ids=str)
@pytest.mark.parametrize("reverse", [False, True])
def test_layouts(scan, shape, dim, reverse):
    x = sample(shape)
    turned = np.flip(x, dim) if reverse else x
    back = (lambda y: np.flip(y, dim)) if reverse else (lambda y: y)
    np.testing.assert_allclose(scan(x, dim, "cumsum", reverse),
                               back(np.cumsum(turned.astype(float), dim)), rtol=1e-5, atol=2e-4)
    values, index = scan(x, dim, "cummax", reverse)
    np.testing.assert_array_equal(values, back(np.maximum.accumulate(turned, dim)))
    np.testing.assert_array_equal(np.take_along_axis(x, index, dim), values)
    a = sample(shape, seed=1)
    expected = recurrence(np.moveaxis(np.flip(a, dim) if reverse else a, dim, 0),
                          np.moveaxis(turned, dim, 0))
    np.testing.assert_allclose(scan(x, dim, "recurrence", reverse, a),
                               back(np.moveaxis(expected, 0, dim)), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [np.float64, np.float16, BF16, np.int8, np.int64, np.complex64],
                         ids=lambda d: np.dtype(d).name)
def test_dtypes(scan, dtype):
    x = sample((9, 37), dtype)
    wide = x if np.dtype(dtype).kind in "iuc" else x.astype(np.float64)
    rounding = {np.float16: 4e-3, BF16: 3e-2}.get(dtype, 1e-5)
    for dim in (0, 1):
        found = np.asarray(scan(x, dim, "cumsum"))
        expected = np.cumsum(wide, dim, dtype=wide.dtype)
        np.testing.assert_allclose(found.astype(expected.dtype), expected, rtol=rounding,
                                   atol=rounding)
        if np.dtype(dtype).kind in "fV":
            np.testing.assert_allclose(np.asarray(scan(x, dim, "logcumsumexp")).astype(float),
                                       np.logaddexp.accumulate(wide, dim), rtol=rounding,
                                       atol=rounding)


def test_special_values(scan):
    x = sample((4, 70))
    x[0, 3:9], x[1, 10], x[2, 20], x[3, ::2] = -np.inf, np.nan, np.inf, 1
    for op, extreme in (("cummax", np.maximum), ("cummin", np.minimum)):
        values, index = scan(x, 1, op)
        best = extreme.accumulate(x, 1)
        np.testing.assert_array_equal(values, best)
        won = (x == best) | np.isnan(x)
        np.testing.assert_array_equal(index, np.maximum.accumulate(won * np.arange(70), 1))
    x[0, :3] = -np.inf
    with np.errstate(invalid="ignore"):
        expected = np.logaddexp.accumulate(x.astype(float), 1)
    np.testing.assert_allclose(scan(x, 1, "logcumsumexp"), expected, rtol=1e-5, atol=1e-6)
    a = np.full((1, 4000), 3, np.float32)  # whose products leave every range
    b = np.zeros((1, 4000), np.float32)
    b[0, -1] = 1
    np.testing.assert_array_equal(scan(b, 1, "recurrence", False, a), b)


BARS = [((64, 4096), 1, np.float32, 2), ((2048, 64), 1, np.float16, 2),
        ((1 << 17,), 0, np.float32, 3), ((16, 32768), 0, np.float32, 2),
        ((4, 1024, 64), 1, BF16, 3)]


@pytest.mark.parametrize(("shape", "dim", "dtype", "passes"), BARS, ids=str)
@pytest.mark.parametrize("op", ["cumsum", "cummax"])
def test_bars(monkeypatch, op, shape, dim, dtype, passes):
    host = hosted(monkeypatch, cuda_scan)
    x = sample(shape, dtype)
    host.wrap(cuda_scan.scan)(x, dim, op)
    extra = 8 * x.size if op == "cummax" else 0
    requested = sum(r.metrics["unique_bytes_read"] + r.metrics["unique_bytes_written"]
                    for r in host.reports)
    assert requested <= 1.05 * (passes * x.nbytes + extra)
    assert len(host.reports) == (1 if passes == 2 else 3)
    for report in host.reports:
        found = report.metrics
        assert found["registers"] < 128
        assert found["spill_stores"] == 0
        assert found["local_load_sectors"] == 0
        assert found["shared_wavefronts"] <= 1.1 * found["shared_wavefronts_ideal"]
    assert host.reports[0].metrics["global_load_efficiency"] >= 95
    assert host.reports[-1].metrics["global_store_efficiency"] >= 95

"""Reductions on a simulated device: values for every layout, and what they move."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from hosted import hosted

from mlgpu.cuda import reduce as cuda_reduce

BF16 = np.dtype(ml_dtypes.bfloat16)
TOLERANCE = {1: 0, 2: 4e-3, 4: 1e-5, 8: 1e-12}


@pytest.fixture
def reduce(monkeypatch):
    """`mlgpu.cuda.reduce.reduce` of NumPy arrays."""
    return hosted(monkeypatch, cuda_reduce).wrap(cuda_reduce.reduce)


def exact(x):
    return x.astype(np.float64) if x.dtype.kind in "fV" else x


def close(found, expected, dtype, tolerance=1.0):
    size = np.dtype(dtype).itemsize // (2 if np.dtype(dtype).kind == "c" else 1)
    rounding = TOLERANCE[size] * tolerance * (8 if dtype == BF16 else 1)
    np.testing.assert_allclose(exact(found), expected, rtol=rounding, atol=rounding)


def sample(shape, dtype, seed=0):
    rng = np.random.default_rng(seed)
    dtype = np.dtype(dtype)
    if dtype.kind in "biu":
        return rng.integers(-5 if dtype.kind == "i" else 0, 6, shape).astype(dtype)
    x = rng.standard_normal(shape)
    return (x + 1j * rng.standard_normal(shape) if dtype.kind == "c" else x).astype(dtype)


LAYOUTS = [
    ((7,), (0,)), ((10007,), (0,)), ((3, 5), (1,)), ((300, 3), (1,)), ((70, 12), (1,)),
    ((5, 333), (1,)), ((4, 5000), (1,)), ((3, 5), (0,)), ((300, 3), (0,)), ((41, 48), (0,)),
    ((500, 130), (0,)), ((2, 700), (0,)), ((3, 4, 5), (1,)), ((3, 4, 5), (0, 2)),
    ((6, 16, 32), (0, 2)), ((3, 4, 5), (0, 1, 2)), ((2, 3, 4, 5), (1, 3)), ((3, 1, 4), (1,)),
    ((2, 3, 2, 2, 3, 2, 2, 2, 2, 3), (1, 3, 5, 7, 9)),
    ((2, 3, 2, 2, 3, 2, 2, 2, 2, 3), (0, 2, 4, 6, 8)),
]


@pytest.mark.parametrize(("shape", "dims"), LAYOUTS, ids=str)
def test_layouts(reduce, shape, dims):
    x = sample(shape, np.float32)
    close(reduce(x, dims, "sum"), x.astype(float).sum(dims), np.float32, 10)
    close(reduce(x, dims, "var", keepdim=True),
          x.astype(float).var(dims, keepdims=True), np.float32)


def test_strides(reduce):
    base = sample((6, 10, 8), np.float32)
    for x in (base.transpose(2, 0, 1), base[:, ::2, 1:7], base[::-1, :, ::3], base.T[3:],
              np.broadcast_to(base[:, :1], (6, 9, 8)), base[:, 1:, :], base[..., 3]):
        for dims in ((0,), (1,), (0, 1), tuple(range(x.ndim))):
            close(reduce(x, dims, "sum"), x.astype(float).sum(dims), np.float32, 5)
            close(reduce(x, dims, "mean"), x.astype(float).mean(dims), np.float32)


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.int8],
                         ids=lambda d: np.dtype(d).name)
def test_rows_that_start_between_vectors(reduce, dtype):
    flat = np.random.default_rng(5).permutation(9013).astype(dtype)
    for x in (flat[1:], flat[3:9001], flat[5:9002].reshape(3, 2999)):
        last = x.ndim - 1
        np.testing.assert_array_equal(reduce(x, (last,), "argmax", index=True)[1],
                                      np.argmax(x, last))
        found = reduce(x, (last,), "sum", np.dtype(np.float32))
        np.testing.assert_allclose(found, exact(x).sum(last, dtype=np.float64), rtol=1e-6)


DTYPES = [np.float32, np.float64, np.float16, BF16, np.int8, np.uint8, np.int16, np.int32,
          np.int64, np.bool_, np.complex64, np.complex128]


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: np.dtype(d).name)
def test_dtypes(reduce, dtype):
    x = sample((37, 21), dtype)
    whole = x.dtype.kind in "biu"
    wide = np.int64 if whole else None
    for dims in ((0,), (1,), (0, 1)):
        close(reduce(x, dims, "sum", wide), exact(x).sum(dims), dtype, 5)
        if x.dtype.kind != "c":
            np.testing.assert_array_equal(exact(reduce(x, dims, "amax")), exact(x).max(dims))


def logsumexp(x, axis):
    with np.errstate(divide="ignore"):
        return np.log(np.exp(x).sum(axis))


OPERATORS = {
    "prod": np.prod, "nansum": np.nansum, "norm0": lambda x, axis: (x != 0).sum(axis),
    "norm1": lambda x, axis: np.abs(x).sum(axis),
    "norm2": lambda x, axis: np.sqrt((np.abs(x) ** 2).sum(axis)),
    "norm": lambda x, axis: (np.abs(x) ** 2.5).sum(axis) ** (1 / 2.5),
    "norm_inf": lambda x, axis: np.abs(x).max(axis),
    "norm_low": lambda x, axis: np.abs(x).min(axis), "logsumexp": logsumexp,
    "std": np.std, "var": np.var, "mean": np.mean,
}


@pytest.mark.parametrize("op", OPERATORS)
def test_operators(reduce, op):
    for dtype in (np.float32, np.complex64) if op in ("std", "logsumexp", "norm2") else (
            np.float32,):
        x = sample((19, 45), dtype)
        result = np.dtype(np.float32) if op != "logsumexp" else x.dtype
        for dims in ((0,), (1,)):
            wide = x.astype(np.complex128 if x.dtype.kind == "c" else np.float64)
            with np.errstate(all="ignore"):
                close(reduce(x, dims, op, result, p=2.5 if op == "norm" else 0),
                      OPERATORS[op](wide, axis=dims), np.float32, 5)


def test_truth(reduce):
    x = sample((40, 9), np.float32)
    x[x < -1] = 0
    x[:, 2], x[:, 3] = 0, np.nan
    for dims in ((0,), (1,), (0, 1)):
        bools = np.dtype(np.bool_)
        np.testing.assert_array_equal(reduce(x, dims, "all", bools), (x != 0).all(dims))
        np.testing.assert_array_equal(reduce(x, dims, "any", bools), (x != 0).any(dims))
        np.testing.assert_array_equal(reduce(x, dims, "count", np.dtype(np.int64)),
                                      np.count_nonzero(x, dims))


@pytest.mark.parametrize("dtype", [np.float32, BF16, np.int8], ids=lambda d: np.dtype(d).name)
def test_arguments(reduce, dtype):
    x = np.random.default_rng(3).integers(-4, 5, (60, 33)).astype(dtype)
    if np.dtype(dtype).kind != "i":
        x[5:7, 4], x[:, 9] = np.nan, -np.inf
    for dims, axis in (((0,), 0), ((1,), 1), ((0, 1), None)):
        for y in (x, x.T):
            order = exact(y)
            for op, find, best in (("argmax", np.argmax, np.max), ("argmin", np.argmin, np.min)):
                values, index = reduce(y, dims, op, index=True)
                np.testing.assert_array_equal(index, find(order, axis))
                np.testing.assert_array_equal(exact(values), best(order, axis))


def test_infinities_of_logsumexp(reduce):
    x = sample((6, 40), np.float32)
    x[0], x[1, 3], x[2, 7], x[3, :20] = -np.inf, np.inf, np.nan, -np.inf
    x[4] += 1000
    with np.errstate(invalid="ignore"):
        expected = np.logaddexp.reduce(x.astype(float), 1)
    for y, dims in ((x, (1,)), (np.ascontiguousarray(x.T), (0,))):
        close(reduce(y, dims, "logsumexp"), expected, np.float32)


def test_variance_of_a_large_mean(reduce):
    x = (sample((5000,), np.float32) + 4096).astype(np.float32)
    x[0] = 1e6  # no element is a good shift
    for y, dims in ((x.reshape(1, -1), (1,)), (x.reshape(-1, 1), (0,)), (x, (0,))):
        found = np.asarray(reduce(y, dims, "var"))
        np.testing.assert_allclose(found.reshape(()), x.astype(float).var(), rtol=1e-6)


def test_other_results(reduce):
    x = sample((50, 33), np.float32)
    x[3, 4] = np.nan
    for dims in ((0,), (1,), (0, 1)):
        with np.errstate(invalid="ignore"):
            low, high = reduce(x, dims, "minmax", other=True)
            np.testing.assert_array_equal(low, x.min(dims))
            np.testing.assert_array_equal(high, x.max(dims))
            deviation, mean = reduce(x, dims, "std", other=True)
            close(deviation, x.astype(float).std(dims), np.float32)
            close(mean, x.astype(float).mean(dims), np.float32)


def test_nothing(reduce):
    x = np.zeros((0, 3), np.float32)
    np.testing.assert_array_equal(reduce(x, (0,), "sum"), np.zeros(3))
    np.testing.assert_array_equal(reduce(x, (0,), "mean"), np.full(3, np.nan))
    np.testing.assert_array_equal(reduce(x, (0, 1), "prod"), 1)
    np.testing.assert_array_equal(reduce(x, (0,), "logsumexp"), np.full(3, -np.inf))
    assert reduce(x, (1,), "sum").shape == (0,)


def test_sums_repeat_to_the_bit(reduce):
    x = sample((3, 20000), np.float32)
    first = [reduce(x, d, "sum").tobytes() for d in ((0,), (1,), (0, 1))]
    assert first == [reduce(x.copy(), d, "sum").tobytes() for d in ((0,), (1,), (0, 1))]


BARS = [
    ((64, 4096), (1,), np.float32), ((512, 1024), (0,), np.float32), ((1 << 18,), (0,), np.float32),
    ((64, 4096), (1,), np.float16), ((512, 1024), (0,), BF16), ((8192, 3), (1,), np.float32),
    ((8192, 3), (0,), np.float32), ((2048, 48), (0,), np.float32), ((4096, 6), (1,), np.float32),
    ((8, 32, 256), (0, 2), np.float32), ((2, 4096, 16), (1,), np.float16),
    ((16384, 8), (1,), np.float16), ((128, 512), (1,), np.int8),
]


CALLS = [("sum", *bar) for bar in BARS] + [
    (op, *BARS[i]) for op in ("var", "argmax") for i in (0, 2, 4, 6, 8)]


@pytest.mark.parametrize(("op", "shape", "dims", "dtype"), CALLS, ids=str)
def test_bars(monkeypatch, op, shape, dims, dtype):
    host = hosted(monkeypatch, cuda_reduce)
    x = sample(shape, dtype)
    result = {"sum": np.dtype(np.int64) if x.dtype.kind == "i" else x.dtype}.get(op, x.dtype)
    out = host.wrap(cuda_reduce.reduce)(x, dims, op, result, values=op != "argmax",
                                        index=op == "argmax")
    how = cuda_reduce.plan(shape, tuple(s // x.itemsize for s in x.strides), dims, x.dtype, op, 0)
    partial = 2 * how.splits * how.outputs * how.accumulator if how.splits > 1 else 0
    moved = sum(r.metrics["dram_bytes"] for r in host.reports) - partial
    assert moved <= 1.01 * (x.nbytes + out.nbytes) + 512, moved / (x.nbytes + out.nbytes)
    first = host.reports[0].metrics
    assert first["global_load_efficiency"] >= 95, first["global_load_efficiency"]
    for report in host.reports:
        found = report.metrics
        assert found["registers"] < 128
        assert found["spill_stores"] == 0
        assert found["local_load_sectors"] == 0
        wavefronts, ideal = found["shared_wavefronts"], found["shared_wavefronts_ideal"]
        assert wavefronts <= 1.1 * ideal, (wavefronts, ideal)

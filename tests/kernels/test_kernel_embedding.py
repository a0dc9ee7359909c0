"""Kernels over tables of rows, and over sliding windows."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from launching import launch

from mlgpu.cuda.types import ctype


def cell():
    return np.zeros(3, np.int64)


@pytest.mark.parametrize("p", [2, 1, 3, 0, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_renorm_rows(p, dtype):
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((6, 40)).astype(dtype)
    want, keys = weight.astype(np.float64), np.array([1, 1, 3, 5, 6], np.int32)  # 6 is skipped
    most = 3 if p in (1, 2, 3) else 0.01
    for row in (1, 3, 5):
        norm = np.linalg.norm(want[row], p)
        if norm > most:
            want[row] *= most / (norm + 1e-7)
    launch("embedding", f"renorm_rows<{ctype(weight.dtype)}, int>", 1, 256,
           (weight, keys, 5, 6, 40, most, p))
    np.testing.assert_allclose(weight, want, rtol=2e-3 if dtype == np.float16 else 1e-5, atol=1e-6)


@pytest.mark.parametrize("classes", [3, 8])
def test_one_hot(classes):
    index, fault = np.array([2, 0, 1, 2]), cell()
    out = np.full((4, classes), 9)
    width = 2 if classes % 2 == 0 else 1
    args = (out, index, 4, classes, fault, 1)
    report = launch("embedding", f"one_hot<{width}>", 1, 256, args)
    np.testing.assert_array_equal(out, np.eye(classes)[index])
    assert fault[0] == 0
    assert report.metrics["global_store_efficiency"] == 100
    index[1] = classes
    launch("embedding", f"one_hot<{width}>", 1, 256, args)
    assert fault[1] == fault[2] == classes


def test_row_dots():
    rng = np.random.default_rng(1)
    a, b = rng.standard_normal((2, 5, 33)).astype(np.float32)
    source, target, out = np.array([4, 0, 2]), np.array([1, 1, 3]), np.zeros(3, np.float32)
    launch("embedding", "row_dots<float>", 1, 256, (out, source, target, a, b, 3, 33, 5, 5))
    np.testing.assert_allclose(out, (a[source] * b[target]).sum(1), rtol=1e-5)


def test_largest_rows():
    rows = np.array([[1, np.nan], [3, 2], [3, 5], [0, 0]], np.float32)
    source, target = np.array([0, 1, 2, 3, 1]), np.array([0, 0, 0, 2, 2])
    which = np.full((3, 2), -1)
    launch("embedding", "largest_rows<float>", 1, 256,
           (which, source, target, rows, 5, 3, 2, 4, cell(), 0))
    np.testing.assert_array_equal(which, [[1, 0], [0, 0], [1, 1]])


def test_stretch_numbers():
    starts, fault = np.array([0, 3, 3, 7], np.int32), cell()
    numbers = np.full(9, -1)
    args = (numbers, starts, 9, 4, fault, 0)
    launch("embedding", "stretch_numbers<int>", 1, 256, args)
    np.testing.assert_array_equal(numbers, np.repeat([0, 1, 2, 3], [3, 0, 4, 2]))
    assert fault[0] == 0
    starts[2] = 2
    launch("embedding", "stretch_numbers<int>", 1, 256, args)
    assert fault[1] == 2


FIELDS = ("large", "small", "kernel", "stride", "dilation", "before")


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_unfold_and_fold(dtype):
    windows = np.zeros(1, np.dtype([(name, np.int32, 2) for name in FIELDS]))
    geometry = (5, 7), (3, 3), (3, 2), (2, 3), (1, 2), (1, 1)
    for name, pair in zip(FIELDS, geometry, strict=True):
        windows[name][0] = pair
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 5, 7)).astype(dtype)
    columns = np.zeros((2, 3, 2, 3, 3), dtype)
    padded = np.pad(x, ((0, 0), (1, 3), (1, 3)))
    want, total = np.zeros_like(columns), np.zeros(padded.shape)
    for tap in np.ndindex(3, 2):
        place = (slice(None), slice(tap[0], tap[0] + 5, 2), slice(2 * tap[1], 2 * tap[1] + 7, 3))
        want[:, tap[0], tap[1]] = padded[place]
        total[place] += want[:, tap[0], tap[1]]
    raw = np.int32 if dtype == np.float32 else np.int16
    found = columns.view(raw)
    launch("fold", f"unfold<{ctype(np.dtype(raw))}>", 1, 256, (found, x.view(raw), found.size,
                                                              windows))
    np.testing.assert_array_equal(columns, want)
    out = np.zeros_like(x)
    launch("fold", f"fold<{ctype(x.dtype)}>", 1, 256, (out, columns, out.size, windows))
    np.testing.assert_allclose(out, total[:, 1:6, 1:8], rtol=2e-3 if dtype == np.float16 else 1e-6,
                               atol=1e-3 if dtype == np.float16 else 1e-6)


@pytest.mark.parametrize(("size", "step", "number", "length"), [(4, 2, 5, 13), (3, 5, 2, 8),
                                                                (6, 1, 3, 7)])
def test_overlap_add(size, step, number, length):
    windows = np.random.default_rng(0).standard_normal((2, number, 3, size)).astype(np.float32)
    want = np.zeros((2, length + size, 3))
    for w in range(number):
        want[:, w * step:w * step + size] += windows[:, w].transpose(0, 2, 1)
    out = np.zeros((2, length, 3), np.float32)
    launch("fold", "overlap_add<float>", 1, 256,
           (out, windows, out.size, length, 3, number, size, step, number * 3 * size, 3 * size,
            size, 1))
    np.testing.assert_allclose(out, want[:, :length], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("arch", ["sm_75", "sm_80", "sm_90"])
@pytest.mark.parametrize(("dtype", "sum"), [
    (np.float32, "float"), (np.float16, "float"), (ml_dtypes.bfloat16, "float"),
    (np.float64, "double")])
def test_rows_added_in_any_order(dtype, sum, arch):
    rng = np.random.default_rng(2)
    values = rng.standard_normal((50, 64)).astype(dtype)
    index = rng.integers(0, 9, 50).astype(np.int32)
    index[:3] = -1, 9, 4
    sums, counts = np.zeros((9, 64), np.float64 if sum == "double" else np.float32), None
    want, times = np.zeros((9, 64)), np.zeros(9)
    for row, value in zip(index, values.astype(np.float64), strict=True):
        if 0 <= row < 9 and row != 3:
            want[row] += value
            times[row] += 1
    kernel = f"add_rows<{sum}, {ctype(values.dtype)}, int, int>"
    report = launch("embedding", kernel, 4, 256,
                    (sums, values, index, counts, values.size, 64, 9, 3), arch=arch)
    tolerance = 1e-13 if sum == "double" else 1e-5
    np.testing.assert_allclose(sums, want, tolerance, tolerance)
    assert report.metrics["spill_stores"] == report.metrics["barriers"] == 0
    found = report.metrics
    assert found["global_load_sectors"] == found["global_load_sectors_ideal"]
    counts, sums = np.zeros(9, np.int32), np.zeros_like(sums)
    launch("embedding", "count_rows<int>", 1, 256, (counts, index, 50, 9), arch=arch)
    assert counts.sum() == 48
    launch("embedding", kernel, 4, 256, (sums, values, index, counts, values.size, 64, 9, 3),
           arch=arch)
    np.testing.assert_allclose(sums, want / np.maximum(times, 1)[:, None], tolerance, tolerance)


@pytest.mark.parametrize("features", [1, 3, 33])
def test_rows_of_any_length_added_in_any_order(features):
    values, index = np.ones((1000, features), np.float32), np.arange(1000) % 7
    sums = np.zeros((7, features), np.float32)
    launch("embedding", "add_rows<float, float, ml_index, ml_index>", -(-values.size // 1024), 256,
           (sums, values, index, None, values.size, features, 7, -1))
    np.testing.assert_array_equal(sums, np.bincount(index)[:, None] * np.ones(features))

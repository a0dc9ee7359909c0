"""kernels/softmax.cu: values at odd sizes and in all dtypes; what its launches move and hold."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from launching import launch

from mlgpu.cuda import softmax

F32, F64, F16 = (np.dtype(f) for f in (np.float32, np.float64, np.float16))
BF16 = np.dtype(ml_dtypes.bfloat16)
TOLERANCE = {F32: 5e-6, F64: 1e-13, F16: 2e-3, BF16: 2e-2}
SHARED = 227 << 10


def width(dtype, n):
    count = 16 // dtype.itemsize
    while n % count:
        count //= 2
    return count


def exact(x, log, axis):
    x = x.astype(np.float64)
    with np.errstate(invalid="ignore"):
        x = x - x.max(axis, keepdims=True)
        logarithm = x - np.log(np.exp(x).sum(axis, keepdims=True))
    return logarithm if log else np.exp(logarithm)


def exact_gradient(dy, y, log, axis):
    dy, y = dy.astype(np.float64), y.astype(np.float64)
    if log:
        return dy - np.exp(y) * dy.sum(axis, keepdims=True)
    return y * (dy - (dy * y).sum(axis, keepdims=True))


def random(dtype, shape):
    return (np.random.default_rng(0).standard_normal(shape) * 3).astype(dtype)


def run(plan, arrays):
    """The launch's report and output: of arrays' first shape and dtype."""
    out = np.full_like(arrays[0], np.nan)
    report = launch("softmax", plan.kernel, plan.grid, plan.block, (out, *arrays, *plan.numbers),
                    plan.shared)
    assert not report.findings
    return report, out


def check(dtype, shape, plan, log, axis):
    x = random(dtype, shape)
    forward, y = run(plan("softmax"), (x,))
    np.testing.assert_allclose(y.astype(np.float64), exact(x, log, axis),
                               TOLERANCE[dtype], TOLERANCE[dtype])
    dy = random(dtype, shape)[::-1].copy()
    backward, dx = run(plan("softmax_backward"), (dy, y))
    sums = np.abs(dy).sum(axis, keepdims=True, dtype=np.float64)  # what rounding is relative to
    error = np.abs(dx.astype(np.float64) - exact_gradient(dy, y, log, axis)) / np.maximum(sums, 1)
    assert error.max() < TOLERANCE[dtype]
    for report, moved in ((forward, 2), (backward, 3)):
        if dtype != F64:
            assert report.metrics["spill_stores"] == 0
        if x.nbytes > 1 << 12:
            assert report.metrics["dram_bytes"] <= 1.01 * moved * x.nbytes
    return forward.metrics, backward.metrics


@pytest.mark.parametrize(("dtype", "n", "log"), [
    (F32, 1, False), (F32, 17, True), (F32, 128, False), (F16, 333, False), (BF16, 1024, True),
    (F64, 200, False), (F32, 1031, False), (F16, 4096, True), (BF16, 9000, False),
    (F32, 20000, False), (F64, 3000, True)])
def test_rows(dtype, n, log):
    count = max(2, min(37, 20000 // n))
    metrics = check(dtype, (count, n), lambda name: softmax.rows_plan(
        name, dtype, width(dtype, n), count, n, log, SHARED), log, 1)
    for each in metrics:
        if n <= 1024:
            assert each["barriers"] == 0
        if n * dtype.itemsize % 32 == 0 and n >= 64:
            assert each["global_load_efficiency"] == each["global_store_efficiency"] == 100


def test_a_row_that_shared_memory_cannot_hold_is_read_twice():
    plans = [softmax.rows_plan(name, F32, 4, 2, 20000, False, 48 << 10)
             for name in ("softmax", "softmax_backward")]
    assert all("false>" in plan.kernel and not plan.shared for plan in plans)
    check(F32, (2, 20000), lambda name: plans[name.endswith("backward")], False, 1)


@pytest.mark.parametrize(("dtype", "n", "log"), [(F32, 40002, True), (F16, 65536, False)])
def test_few_long_rows_are_shared_by_blocks(dtype, n, log):
    assert softmax.shared_by_blocks(2, n)
    x = random(dtype, (2, n))
    x[1, 5000:] = -np.inf  # whole pieces without a number
    y, part = np.full_like(x, np.nan), np.full((2, softmax.pieces(n), 2), np.nan, np.float32)
    sums, apply = softmax.pieces_plans(dtype, width(dtype, n), 2, n, log)
    launch("softmax", sums.kernel, sums.grid, sums.block, (part, x, *sums.numbers))
    report = launch("softmax", apply.kernel, apply.grid, apply.block, (y, x, part, *apply.numbers))
    np.testing.assert_allclose(y.astype(np.float64), exact(x, log, 1), TOLERANCE[dtype],
                               TOLERANCE[dtype])
    assert report.metrics["spill_stores"] == report.metrics["barriers"] == 0
    if n * dtype.itemsize % 32 == 0:
        assert report.metrics["global_store_efficiency"] == 100


@pytest.mark.parametrize(("dtype", "shape", "log"), [
    (F32, (3, 2, 50), False), (F16, (2, 3, 64), True), (F32, (2, 40, 8), True),
    (F64, (2, 100, 3), False), (BF16, (1, 300, 256), False), (F32, (2, 33, 130), False)])
def test_columns(dtype, shape, log):
    metrics = check(dtype, shape, lambda name: softmax.columns_plan(
        name, dtype, width(dtype, shape[2]), *shape, log), log, 1)
    for each in metrics:
        assert each["load_bank_conflicts"] == 0
        if shape[2] * dtype.itemsize % 32 == 0:
            assert each["global_load_efficiency"] == each["global_store_efficiency"] == 100


@pytest.mark.parametrize("n", [5, 1500, 20000])
@pytest.mark.parametrize("log", [False, True])
def test_rows_that_hold_what_is_no_number(n, log):
    x = random(F32, (6, n))
    x[0], x[1, 2], x[2, 1], x[3, 3] = -np.inf, np.inf, np.nan, -np.inf
    x[5, :-1] = -np.inf
    plan = softmax.rows_plan("softmax", F32, width(F32, n), 6, n, log, SHARED)
    _, y = run(plan, (x,))
    np.testing.assert_allclose(y, exact(x, log, 1), 5e-6, 5e-6)


def masked(dtype, mask, n, causal, shift):
    rng = np.random.default_rng(1)
    batch, heads, queries = 2, 2, 5
    x = random(dtype, (batch, heads, queries, n))
    layout = np.zeros((), softmax.MASK_ROWS)
    seen = np.ones((batch, 1, queries, n), bool)
    added = np.zeros((1, heads, 1, n), np.float64)
    given = None
    kind = dtype
    layout["heads"], layout["queries"], layout["shift"] = heads, queries, shift
    if mask == "bool":
        given = seen = rng.random(seen.shape) < 0.6
        seen[1, 0, 2] = False
        layout["batch_stride"], layout["query_stride"] = queries * n, n
        kind = np.dtype(bool)
    elif mask == "added":
        given = rng.standard_normal(added.shape).astype(dtype)
        added = given.astype(np.float64)
        layout["head_stride"] = n
    scores = np.where(seen, x.astype(np.float64) * 0.5 + added, -np.inf)
    if causal:
        scores = np.where(np.tril(np.ones((queries, n), bool), shift), scores, -np.inf)
    with np.errstate(invalid="ignore"):
        want = np.nan_to_num(exact(scores, False, 3), nan=0.0)
    plan = softmax.masked_plan(dtype, kind, width(dtype, n), batch * heads * queries, n, causal)
    out = np.full_like(x, np.nan)
    report = launch("softmax", plan.kernel, plan.grid, plan.block,
                    (out, x, given, layout, *plan.numbers, 0.5))
    np.testing.assert_allclose(out.astype(np.float64), want, TOLERANCE[dtype], TOLERANCE[dtype])
    return report.metrics, x


@pytest.mark.parametrize(("dtype", "mask", "n", "causal", "shift"), [
    (F32, "bool", 40, False, 0), (F16, "added", 64, True, 3), (F32, None, 33, True, -2),
    (BF16, "bool", 2000, False, 0), (F32, "added", 1500, True, 100)])
def test_masked(dtype, mask, n, causal, shift):
    masked(dtype, mask, n, causal, shift)


def test_causal_rows_do_not_read_what_they_do_not_see():
    metrics, x = masked(F32, None, 1024, True, 127)
    assert metrics["unique_bytes_read"] < x.nbytes / 6
    assert metrics["barriers"] == metrics["spill_stores"] == 0

"""kernels/batch_norm.cu and group_norm.cu: values, and what their launches move and hold."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from launching import launch

from mlgpu.cuda import batch_norm, group_norm, rows
from mlgpu.cuda.types import ctype

F32, F64, F16 = (np.dtype(f) for f in (np.float32, np.float64, np.float16))
BF16 = np.dtype(ml_dtypes.bfloat16)
TOLERANCE = {F32: 1e-5, F64: 1e-13, F16: 4e-3, BF16: 3e-2}
EPS = 1e-5


def width(dtype, n):
    count = 16 // dtype.itemsize
    while n % count:
        count //= 2
    return count


def close(got, want, dtype, scale=1.0):
    tolerance = TOLERANCE[dtype] * scale
    np.testing.assert_allclose(got.astype(np.float64), want, tolerance, tolerance)


def exact(x, dy, weight, bias, each):
    """Over groups of `each` channels of each example, or of all (each 0): y, dx, dweight, dbias."""
    x, dy, weight, bias = (v.astype(np.float64) for v in (x, dy, weight, bias))
    batch, channels, positions = x.shape
    if each:
        axes, split = (2, 3), (batch, channels // each, each, positions)
    else:
        axes, split = (0, 2), x.shape
    w = weight[:, None]
    grouped = x.reshape(split)
    mean = grouped.mean(axes, keepdims=True)
    rstd = 1 / np.sqrt(((grouped - mean) ** 2).mean(axes, keepdims=True) + EPS)
    hat = (grouped - mean) * rstd
    g = (dy * w).reshape(split)
    dx = rstd * (g - g.mean(axes, keepdims=True) - hat * (g * hat).mean(axes, keepdims=True))
    hat = hat.reshape(x.shape)
    return (hat * w + bias[:, None], dx.reshape(x.shape), (dy * hat).sum((0, 2)), dy.sum((0, 2)),
            mean.ravel(), rstd.ravel())


def inputs(dtype, shape, parameter):
    rng = np.random.default_rng(0)
    x = (rng.standard_normal(shape) * 3 + 5).astype(dtype)
    return (x, rng.standard_normal(shape).astype(dtype),
            *(rng.standard_normal(shape[1]).astype(parameter) for _ in range(2)))


@pytest.mark.parametrize(("dtype", "shape", "parameter"), [
    (F32, (3, 5, 49), F32), (F16, (4, 3, 4096), F32), (F64, (2, 3, 40), F64),
    (F32, (300, 20, 1), F32), (BF16, (140, 8, 16), BF16), (F32, (2, 2, 20000), F32)])
def test_batch_norm(dtype, shape, parameter):
    x, dy, weight, bias = inputs(dtype, shape, parameter)
    batch, channels, positions = shape
    y, dx, dweight, dbias, mean, rstd = exact(x, dy, weight, bias, 0)
    compute = rows.wide(dtype)
    cut = batch_norm.slices(*shape, width(dtype, positions), width(dtype, channels * positions))
    types = f"{ctype(dtype)}, {ctype(compute)}, {cut.width}"
    part = np.full((channels * cut.parts, 3), np.nan, compute)
    if cut.columns:
        report = launch("batch_norm", f"batch_moments_columns<{types}>", cut.grid, 256,
                        (part, x, batch, channels * positions, cut.slices))
    else:
        report = launch("batch_norm", f"batch_moments<{types}>", cut.grid, 256,
                        (part, x, batch * positions, channels, positions, cut.slices))
    assert report.metrics["load_bank_conflicts"] == report.metrics["store_bank_conflicts"] == 0
    assert dtype == F64 or report.metrics["spill_stores"] == 0
    means, variances = np.full((2, channels), np.nan, compute)
    launch("batch_norm", f"batch_finish<{ctype(compute)}>", -(-channels // 8), 256,
           (means, variances, None, part, channels, cut.parts, EPS))
    close(means, mean, F32 if compute == F32 else F64)
    close(variances, 1 / rstd ** 2 - EPS, F32 if compute == F32 else F64, 3)
    e = width(dtype, positions)
    grid = -(-x.size // (512 * e))
    kinds = f"{ctype(dtype)}, {ctype(parameter)}, {ctype(compute)}, int, {e}"
    out = np.full_like(x, np.nan)
    report = launch("batch_norm", f"batch_apply<{kinds}>", grid, 256,
                    (out, x, means, variances, weight, bias, x.size // e, channels, positions, EPS))
    close(out, y, dtype, 3)
    if positions % 64 == 0:
        assert report.metrics["global_store_efficiency"] == 100
    part = np.full((channels * cut.parts, 2), np.nan, compute)
    arrays = (part, dy, x, means, variances)
    if cut.columns:
        launch("batch_norm", f"batch_sums_columns<{types}>", cut.grid, 256,
               (*arrays, batch, channels * positions, positions, cut.slices, EPS))
    else:
        launch("batch_norm", f"batch_sums<{types}>", cut.grid, 256,
               (*arrays, batch * positions, channels, positions, cut.slices, EPS))
    sums = np.full((2, channels), np.nan, compute)
    got = np.full((2, channels), np.nan, parameter)
    launch("batch_norm", f"batch_gradients<{ctype(parameter)}, {ctype(compute)}>",
           -(-channels // 8), 256, (got[0], got[1], sums, part, channels, cut.parts))
    size = (batch * positions) ** 0.5
    close(got[0], dweight, parameter, size)
    close(got[1], dbias, parameter, size)
    report = launch("batch_norm", f"batch_backward<{kinds}>", grid, 256,
                    (out, dy, x, means, variances, weight, sums, x.size // e, channels, positions,
                     batch * positions, EPS))
    close(out, dx, dtype, 3)
    assert dtype == F64 or report.metrics["spill_stores"] == 0


@pytest.mark.parametrize(("dtype", "shape", "each", "parameter"), [
    (F32, (3, 6, 49), 2, F32), (F16, (2, 4, 256), 4, F32), (BF16, (2, 6, 1024), 3, BF16),
    (F64, (2, 4, 40), 1, F64), (F32, (2, 2, 12000), 2, F32), (F32, (5, 12, 1), 4, F32),
    (F32, (1, 4, 18000), 4, F32)])
def test_group_norm(dtype, shape, each, parameter):
    x, dy, weight, bias = inputs(dtype, shape, parameter)
    y, dx, dweight, dbias, mean, rstd = exact(x, dy, weight, bias, each)
    compute = rows.wide(dtype)
    sizes = group_norm.Shape(*shape, each)
    e = width(dtype, shape[2])
    means, rstds = np.full((2, sizes.rows), np.nan, compute)
    out = np.full_like(x, np.nan)
    if sizes.shared:
        means[:], rstds[:] = mean, rstd
        types = f"{ctype(dtype)}, {ctype(parameter)}, {ctype(compute)}, int, {e}"
        report = launch("group_norm", f"group_apply<{types}>", -(-x.size // (512 * e)), 256,
                        (out, x, weight, bias, means, rstds, x.size // e, *shape[1:2], each,
                         shape[2]))
    else:
        plan = group_norm.forward_plan(dtype, ctype(parameter), e, sizes, 227 << 10)
        report = launch("group_norm", plan.kernel, plan.grid, plan.block,
                        (out, x, weight, bias, means, rstds, *plan.numbers, EPS), plan.shared)
        assert report.metrics["dram_bytes"] <= 1.01 * 2 * x.nbytes + 1000
    close(out, y, dtype, 3)
    np.testing.assert_allclose(rstds, rstd, 1e-5)
    plans, slices = group_norm.backward_plans(dtype, ctype(parameter), e, sizes)
    assert (len(plans) == 2) == sizes.shared
    sums = np.full((shape[0] * shape[1], slices, 2), np.nan, compute)
    if sizes.shared:
        launch("group_norm", plans[0].kernel, plans[0].grid, plans[0].block,
               (sums, dy, x, means, rstds, *plans[0].numbers))
    report = launch("group_norm", plans[-1].kernel, plans[-1].grid, plans[-1].block,
                    (out, dy, x, weight, means, rstds, sums, *plans[-1].numbers))
    close(out, dx, dtype, 3)
    assert dtype == F64 or report.metrics["spill_stores"] == 0
    if x.nbytes > 40000 and not sizes.shared:
        assert report.metrics["dram_bytes"] <= 1.04 * 3 * x.nbytes
    got = np.full((2, shape[1]), np.nan, parameter)
    launch("group_norm", f"group_fold<{ctype(parameter)}, {ctype(compute)}>",
           -(-shape[1] // 32), 256, (got[0], got[1], sums, shape[0], shape[1], slices))
    size = (shape[0] * shape[2]) ** 0.5
    close(got[0], dweight, parameter, size)
    close(got[1], dbias, parameter, size)


def test_a_channel_far_from_zero_keeps_its_variance():
    """Squares of the values would have lost it: 1e3 +- 1e-2 in float32."""
    x = (1e3 + np.random.default_rng(0).uniform(-0.01, 0.01, (2, 2, 3000))).astype(np.float32)
    part, (means, variances) = np.zeros((4, 3), np.float32), np.zeros((2, 2), np.float32)
    launch("batch_norm", "batch_moments<float, float, 4>", 4, 256, (part, x, 6000, 2, 3000, 2))
    launch("batch_norm", "batch_finish<float>", 1, 256, (means, variances, None, part, 2, 2, 0.0))
    np.testing.assert_allclose(variances, x.astype(np.float64).var((0, 2)), 0.01)

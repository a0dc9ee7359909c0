"""kernels/norm.cu: values at odd sizes and in all dtypes; what its launches move and hold."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from launching import launch

from mlgpu.cuda import norm, rows
from mlgpu.cuda.types import ctype

F32, F64, F16 = (np.dtype(f) for f in (np.float32, np.float64, np.float16))
BF16 = np.dtype(ml_dtypes.bfloat16)
TOLERANCE = {F32: 1e-5, F64: 1e-13, F16: 4e-3, BF16: 3e-2}
SHARED, EPS = 227 << 10, 1e-5


class Rows:
    """Rows of random values, their parameters, and what comes out of them in double precision."""

    def __init__(self, dtype, count, n, parameter=None, centered=True, add=False, affine=True):
        rng = np.random.default_rng(0)
        self.dtype, self.count, self.n, self.centered = dtype, count, n, centered
        self.parameter = parameter or dtype
        self.compute = rows.wide(dtype)

        def draw(shape, dtype=dtype):
            return rng.standard_normal(shape).astype(dtype)

        self.x, self.dy = draw((count, n)) * 3 + dtype.type(1), draw((count, n))
        self.residual, self.extra = (draw((count, n)) if add else None for _ in range(2))
        self.weight = draw(n, self.parameter) if affine else None
        self.bias = draw(n, self.parameter) if affine and centered else None
        self.width = 16 // max(dtype.itemsize, self.parameter.itemsize)
        while n % self.width:
            self.width //= 2
        self.total = None
        if add:
            self.total = (self.x.astype(self.compute) + self.residual).astype(dtype)
        h = (self.total if add else self.x).astype(np.float64)
        self.mean = h.mean(1) if centered else np.zeros(count)
        self.rstd = 1 / np.sqrt(((h.T - self.mean) ** 2).mean(0) + EPS)
        self.hat = ((h.T - self.mean) * self.rstd).T
        scale = 1 if self.weight is None else self.weight.astype(np.float64)
        self.y = self.hat * scale + (0 if self.bias is None else self.bias.astype(np.float64))
        dy = self.dy.astype(np.float64)
        g = dy * scale
        self.dx = g - self.hat * (g * self.hat).mean(1, keepdims=True)
        if centered:
            self.dx -= g.mean(1, keepdims=True)
        self.dx = (self.dx.T * self.rstd).T + (0 if self.extra is None else
                                               self.extra.astype(np.float64))
        self.dweight, self.dbias = (dy * self.hat).sum(0), dy.sum(0)

    def close(self, got, want, scale=1.0):
        tolerance = TOLERANCE[self.dtype if got.dtype != self.parameter else got.dtype] * scale
        np.testing.assert_allclose(got.astype(np.float64), want, tolerance, tolerance)

    def forward(self, limit=SHARED):
        y = np.full_like(self.x, np.nan)
        total = None if self.total is None else np.full_like(self.x, np.nan)
        mean, rstd = (np.full(self.count, np.nan, self.compute) for _ in range(2))
        plan = norm.forward_plan(self.dtype, ctype(self.parameter), self.width, self.count, self.n,
                                 self.centered, limit)
        report = launch("norm", plan.kernel, plan.grid, plan.block,
                        (y, total, self.x, self.residual, self.weight, self.bias,
                         mean if self.centered else None, rstd, *plan.numbers, EPS), plan.shared)
        self.close(y, self.y)
        if total is not None:
            np.testing.assert_array_equal(total, self.total)
        np.testing.assert_allclose(rstd, self.rstd, 1e-5)
        return report.metrics

    def backward(self):
        given = self.x if self.total is None else self.total
        mean = self.mean.astype(self.compute) if self.centered else None
        rstd = self.rstd.astype(self.compute)
        dx = np.full_like(self.x, np.nan)
        plan, parts = norm.backward_plan(
            self.dtype, ctype(self.parameter), self.width, self.count, self.n, self.centered,
            self.weight is not None)
        kinds = 2 if self.centered else 1
        part = None
        if self.weight is not None:
            part = np.full((parts, kinds, self.n), np.nan, self.compute)
        arrays = (dx, self.dy, given, self.extra, self.weight, mean, rstd)
        long = "_long" in plan.kernel
        report = launch("norm", plan.kernel, plan.grid, plan.block,
                        (*arrays, *(() if long else (part,)), *plan.numbers))
        self.close(dx, self.dx)
        if part is None:
            return report.metrics
        if long:
            columns = norm.columns_plan(self.dtype, self.width, self.count, self.n, self.centered,
                                        parts)
            launch("norm", columns.kernel, columns.grid, columns.block,
                   (part, self.dy, given, mean, rstd, *columns.numbers))
        dweight = np.full(self.n, np.nan, self.parameter)
        dbias = np.full(self.n, np.nan, self.parameter) if self.centered else None
        launch("norm", f"norm_fold<{ctype(self.parameter)}, {ctype(self.compute)}>",
               -(-self.n // 32), 256, (dweight, dbias, part, parts, kinds, self.n))
        size = max(1, self.count ** 0.5)  # of the sums, which rounding is relative to
        self.close(dweight, self.dweight, size)
        if dbias is not None:
            self.close(dbias, self.dbias, size)
        return report.metrics


@pytest.mark.parametrize("given", [
    Rows(F32, 70, 17), Rows(F16, 20, 768, F32), Rows(BF16, 9, 1024, add=True),
    Rows(F16, 40, 512, centered=False), Rows(F32, 9, 333, centered=False, add=True),
    Rows(F64, 9, 200), Rows(F32, 5, 4096, add=True), Rows(F32, 3, 1031),
    Rows(F16, 3, 9000, F32, centered=False), Rows(F32, 3, 20000, affine=False),
    Rows(F32, 40, 3)], ids=lambda r: f"{r.dtype}-{r.n}")
def test_values(given):
    forward, backward = given.forward(), given.backward()
    if given.dtype != F64:
        assert forward["spill_stores"] == backward["spill_stores"] == 0
    if given.n <= 1024:
        assert forward["barriers"] == 0
    if given.n % 128 == 0:
        assert forward["global_load_efficiency"] >= 95 <= backward["global_load_efficiency"]


def test_a_row_that_shared_memory_cannot_hold_is_read_again():
    given = Rows(F32, 2, 20000)
    given.forward(limit=48 << 10)
    given.backward()


def test_bytes():
    """One read and one write of each value, and little for the gradients of parameters."""
    given = Rows(F32, 2560, 128)
    values = given.x.nbytes
    forward, backward = given.forward(), given.backward()
    assert forward["dram_bytes"] <= 1.01 * (2 * values + 8 * given.count + 2 * given.weight.nbytes)
    assert backward["dram_bytes"] <= 1.04 * 3 * values
    assert backward["load_bank_conflicts"] == backward["store_bank_conflicts"] == 0

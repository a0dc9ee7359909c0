"""kernels/cross_entropy.cu: losses and gradients, what is reported, and what launches move."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from launching import launch

from mlgpu.cuda import cross_entropy, rows

F32, F64, F16 = (np.dtype(f) for f in (np.float32, np.float64, np.float16))
BF16, INT = np.dtype(ml_dtypes.bfloat16), np.dtype(np.int64)
TOLERANCE = {F32: 1e-5, F64: 1e-13, F16: 4e-3, BF16: 3e-2}
IGNORE = 1


class Scores:
    """Scores (outer, n, inner), classes of which some are ignored, and the exact results."""

    def __init__(self, dtype, outer, n, inner=1, weighted=False, smoothing=0.0):
        rng = np.random.default_rng(0)
        self.dtype, self.n, self.inner, self.smoothing = dtype, n, inner, smoothing
        self.compute = rows.wide(dtype)
        self.x = (rng.standard_normal((outer, n, inner)) * 3).astype(dtype)
        self.target = rng.integers(0, n, (outer, inner))
        self.target[0, 0] = IGNORE
        self.weight = rng.uniform(0.5, 2, n).astype(dtype) if weighted else None
        self.width = 16 // dtype.itemsize
        while (n if inner == 1 else inner) % self.width:
            self.width //= 2
        x = self.x.astype(np.float64)
        w = np.ones(n) if self.weight is None else self.weight.astype(np.float64)
        top = x.max(1, keepdims=True)
        self.lse = (top + np.log(np.exp(x - top).sum(1, keepdims=True)))[:, 0]
        counted = self.target != IGNORE
        self.weights = w[self.target] * counted
        score = np.take_along_axis(x, self.target[:, None], 1)[:, 0]
        spread = (w[:, None] * (self.lse[:, None] - x)).sum(1) * smoothing / n
        self.losses = (1 - smoothing) * self.weights * (self.lse - score) + spread * counted
        p = np.exp(x - self.lse[:, None])
        one = np.arange(n)[:, None] == self.target[:, None]
        hit = (1 - smoothing) * self.weights[:, None]
        share = smoothing / n * w[:, None]
        self.gradient = (p * (hit + share.sum()) - hit * one - share) * counted[:, None]
        self.whole = None
        if weighted and smoothing:
            self.whole = np.asarray([w.sum()], self.compute)

    def close(self, got, want):
        tolerance = TOLERANCE[self.dtype if got.dtype != self.compute else self.compute]
        scale = 2 if self.compute != F64 else 1
        np.testing.assert_allclose(got.astype(np.float64).reshape(want.shape), want,
                                   scale * tolerance, scale * tolerance)

    def forward(self, target=None, fault=None):
        count = self.losses.size
        losses, lse, weights = np.full((3, count), np.nan, self.compute)
        outer = len(self.x)
        plan = cross_entropy.forward_plan(self.dtype, INT, self.compute, self.width, outer, self.n,
                                          self.inner, self.smoothing != 0)
        report = launch("cross_entropy", plan.kernel, plan.grid, plan.block,
                        (losses, lse, weights, self.x,
                         self.target.ravel() if target is None else target, self.weight,
                         self.whole, *plan.numbers, IGNORE, self.smoothing,
                         np.zeros(3, np.int64) if fault is None else fault, 7))
        return report.metrics, losses, lse, weights

    def backward(self):
        dx = np.full_like(self.x, np.nan)
        kernel = cross_entropy.backward_kernel(self.x, np.zeros(0, INT), self.width, self.inner > 1,
                                               self.smoothing != 0)
        dy = np.random.default_rng(1).standard_normal(self.losses.shape).astype(self.dtype)
        report = launch("cross_entropy", kernel, -(-dx.size // (512 * self.width)), 256,
                        (dx, self.x, self.lse.ravel().astype(self.compute), self.target.ravel(),
                         self.weight, self.whole, dy.ravel(), None, True, dx.size // self.width,
                         self.n, self.inner, IGNORE, self.smoothing))
        self.close(dx, self.gradient * dy.astype(np.float64)[:, None])
        return report.metrics


@pytest.mark.parametrize("given", [
    Scores(F32, 9, 5), Scores(F32, 5, 1000, weighted=True, smoothing=0.1), Scores(F16, 4, 1024),
    Scores(BF16, 3, 5000, smoothing=0.2), Scores(F64, 3, 300, weighted=True),
    Scores(F32, 2, 4099), Scores(F32, 2, 7, 50, weighted=True, smoothing=0.3),
    Scores(F16, 2, 100, 24), Scores(F32, 3, 150, 3, smoothing=0.1)],
    ids=lambda s: f"{s.dtype}-{s.n}-{s.inner}")
def test_values(given):
    forward, losses, lse, weights = given.forward()
    given.close(losses, given.losses)
    given.close(lse, given.lse)
    given.close(weights, given.weights)
    backward = given.backward()
    for metrics in (forward, backward):
        assert given.dtype == F64 or metrics["spill_stores"] == 0
        assert metrics["load_bank_conflicts"] == metrics["store_bank_conflicts"] == 0
    if given.inner == 1 and given.n <= 1024:
        assert forward["barriers"] == 0


@pytest.mark.parametrize(("given", "limit"), [
    (Scores(F16, 6, 16384), 227 << 10), (Scores(F32, 3, 4099, weighted=True, smoothing=0.1), 0),
    (Scores(BF16, 5, 200, smoothing=0.1), 227 << 10)])
def test_loss_and_gradient_at_once(given, limit):
    x = given.x.copy()
    losses, weights = np.full((2, len(x)), np.nan, given.compute)
    plan, shared = cross_entropy.fused_plan(given.dtype, INT, given.width, len(x), given.n,
                                            given.smoothing != 0, limit)
    assert ("true>" in plan.kernel) == bool(limit)
    report = launch("cross_entropy", plan.kernel, plan.grid, plan.block,
                    (losses, weights, x, given.target.ravel(), given.weight, given.whole,
                     *plan.numbers, IGNORE, given.smoothing, np.zeros(3, np.int64), 7), shared)
    given.close(losses, given.losses)
    given.close(weights, given.weights)
    given.close(x, given.gradient)
    assert report.metrics["spill_stores"] == 0
    if x.nbytes > 1 << 16:
        assert report.metrics["dram_bytes"] <= 1.02 * 2 * x.nbytes


@pytest.mark.parametrize("wrong", [-1, 5])
@pytest.mark.parametrize("inner", [1, 3])
def test_a_class_out_of_range_is_reported_and_does_not_count(inner, wrong):
    given = Scores(F32, 4, 5, inner)
    target, fault = given.target.ravel().copy(), np.zeros(3, np.int64)
    target[2] = wrong
    _, losses, _, weights = given.forward(target, fault)
    assert losses[2] == weights[2] == 0
    assert fault.tolist() == [1 | 7 << 32, wrong, 5]


def test_the_mean_is_over_what_counts():
    losses = np.arange(40000, dtype=np.float32)
    weights = (losses % 3).astype(np.float32)
    part = np.zeros((3, 2))
    launch("cross_entropy", "loss_sums<float>", 3, 512, (part, losses, weights, 40000))
    np.testing.assert_array_equal(part.sum(0), [losses.sum(dtype=float), weights.sum(dtype=float)])
    loss, total = np.zeros(1, np.float16), np.zeros(1, np.float32)
    launch("cross_entropy", "loss_finish<__half, float>", 1, 32, (loss, total, part, 3, True))
    np.testing.assert_allclose(loss, losses.sum(dtype=float) / weights.sum(dtype=float), 1e-3)
    assert total == weights.sum()


@pytest.mark.parametrize("inner", [1, 4])
def test_nll(inner):
    given = Scores(F32, 6, 7, inner, weighted=True)
    losses, weights = np.full((2, given.losses.size), np.nan, np.float32)
    launch("cross_entropy", "nll_forward<float, long long, float, float>", 1, 256,
           (losses, weights, given.x, given.target.ravel(), given.weight, losses.size, 7, inner,
            IGNORE, np.zeros(3, np.int64), 7))
    score = np.take_along_axis(given.x, given.target[:, None], 1)[:, 0]
    np.testing.assert_allclose(losses.reshape(score.shape), -given.weights * score, 1e-6)
    dx, dy = np.full_like(given.x, np.nan), np.float32([0.5])
    width = 4 if inner == 4 else 2
    launch("cross_entropy", f"nll_backward<float, long long, float, int, {width}, "
           f"{str(inner > 1).lower()}>", 1, 256,
           (dx, given.target.ravel(), given.weight, dy, np.float32([2]), False, dx.size // width, 7,
            inner, IGNORE))
    one = np.arange(7)[:, None] == given.target[:, None]
    np.testing.assert_allclose(dx, -0.25 * given.weights[:, None] * one, 1e-6)

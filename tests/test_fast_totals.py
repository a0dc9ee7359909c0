"""Sums as compiled loops: as exact as NumPy's way, the same in every call."""

import numpy as np
import pytest

pytest.importorskip("numba")

import mlgpu
from mlgpu.cpu import fast, totals

pytestmark = pytest.mark.skipif(fast.problem() is not None, reason=str(fast.problem()))


@pytest.fixture(autouse=True)
def _always(monkeypatch):
    monkeypatch.setattr(fast, "ENOUGH", 0)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("shape", "dims"), [
    ((300_000,), (0,)), ((4096, 128), (1,)), ((1000, 1000), (1,)), ((64, 8192), (0, 1)),
    ((300, 17, 33), (2,)), ((50, 3000), (0,)), ((7, 640, 11), (0, 2)), ((100_000, 3), (1,)),
])
def test_sums_are_exact_and_repeat(dtype, shape, dims):
    x = np.random.default_rng(0).random(shape).astype(dtype) - dtype(0.3)
    found = totals.total(x, dims)
    wanted = x.sum(dims, dtype=np.longdouble, keepdims=True)
    count = x.size // wanted.size
    size = np.abs(x).sum(dims, keepdims=True)
    bound = 4 * np.finfo(dtype).eps * size * max(1, np.log2(count) / 8)
    assert found.shape == wanted.shape
    assert (np.abs(found - wanted) <= bound).all()
    for _ in range(3):
        np.testing.assert_array_equal(totals.total(x, dims), found)


def test_what_is_not_finite_stays():
    x = np.ones((3000, 128), np.float32)
    x[1, 5], x[2, 6], x[3, 7], x[4, 8], x[4, 9] = np.nan, np.inf, -np.inf, np.inf, -np.inf
    sums = totals.total(x, (1,)).ravel()
    np.testing.assert_array_equal(sums[:6], [128, np.nan, np.inf, -np.inf, np.nan, 128])


def test_a_sum_and_its_gradient():
    x = mlgpu.tensor(np.arange(6000.0, dtype=np.float32).reshape(60, 100)).requires_grad_()
    total = x.sum()
    total.backward()
    assert total.item() == 17_997_000
    assert (x.grad.numpy() == 1).all()

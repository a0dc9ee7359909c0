"""Softmax and norms over rows, forward and backward."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import log_softmax, softmax
from sim.corpus.program import program

from mlgpu import sim

Array = np.ndarray[Any, Any]


def _values(seed: int, *shape: int, scale: float = 1.0) -> Array:
    return (scale * np.random.default_rng(seed).standard_normal(shape)).astype(np.float32)


@program("rownorm.cu")
def softmax_warp(m: sim.Machine, mod: Any) -> None:
    for rows, n in ((5, 100), (3, 128), (1, 7)):
        x = _values(0, rows, n, scale=3)
        out = m.empty((rows, n), np.float32)
        mod.kernel("softmax_warp").launch(2, (32, 3), (out, m.array(x), np.int32(rows),
                                                       np.int32(n)))
        assert_allclose(out.numpy(), softmax(x.astype(np.float64), 1), rtol=1e-5, atol=1e-9)


@program("rownorm.cu")
def softmax_block(m: sim.Machine, mod: Any) -> None:
    for rows, n, block in ((3, 150, 64), (2, 5, 32)):
        x = _values(1, rows, n, scale=5)
        out = m.empty((rows, n), np.float32)
        mod.kernel("softmax_block").launch(rows, block, (out, m.array(x), np.int32(n)))
        assert_allclose(out.numpy(), softmax(x.astype(np.float64), 1), rtol=1e-4, atol=1e-9)


@program("rownorm.cu")
def softmax_online(m: sim.Machine, mod: Any) -> None:
    for rows, n, block in ((2, 130, 96), (3, 20, 64)):  # 20 of 64 threads have an element
        x = _values(2, rows, n, scale=20)
        out = m.empty((rows, n), np.float32)
        mod.kernel("softmax_online").launch(rows, block, (out, m.array(x), np.int32(n)))
        assert_allclose(out.numpy(), softmax(x.astype(np.float64), 1), rtol=2e-5, atol=1e-30)


@program("rownorm.cu")
def log_softmax_half(m: sim.Machine, mod: Any) -> None:
    for rows, n in ((3, 70), (2, 9)):
        x = _values(3, rows, n, scale=4).astype(np.float16)
        out = m.empty((rows, n), np.float16)
        mod.kernel("log_softmax_half").launch(rows, 64, (out, m.array(x), np.int32(n)),
                                              shared_mem=4 * (n + 32))
        exact = log_softmax(x.astype(np.float64), 1)
        assert_allclose(out.numpy().astype(np.float64), exact, rtol=1e-3, atol=1e-5)


@program("rownorm.cu")
def softmax_backward(m: sim.Machine, mod: Any) -> None:
    rows, n = 5, 75
    y = softmax(_values(4, rows, n), 1).astype(np.float32)
    dy = _values(5, rows, n)
    out = m.empty((rows, n), np.float32)
    args = out, m.array(y), m.array(dy), np.int32(rows), np.int32(n)
    mod.kernel("softmax_backward").launch(2, 96, args)
    wide = y.astype(np.float64)
    expected = wide * (dy - (wide * dy).sum(1, keepdims=True))
    assert_allclose(out.numpy(), expected, rtol=1e-4, atol=1e-7)


@program("rownorm.cu")
def layer_norm(m: sim.Machine, mod: Any) -> None:
    rows = 3
    for n, block in ((36, 32), (400, 64)):
        x = (_values(6, rows, n, scale=2) + 5).astype(np.float32)
        dy, weight, bias = _values(7, rows, n), _values(8, n), _values(9, n)
        y, dx, means, rates = (m.empty(s, np.float32) for s in ((rows, n), (rows, n), rows, rows))
        bx, bw, bdy = m.array(x), m.array(weight), m.array(dy)
        mod.kernel("layer_norm").launch(rows, block, (
            y, means, rates, bx, bw, m.array(bias), np.int32(n // 4), np.float32(1e-5)))
        wide = x.astype(np.float64)
        rate = 1 / np.sqrt(wide.var(1, keepdims=True) + 1e-5)
        normed = (wide - wide.mean(1, keepdims=True)) * rate
        assert_allclose(y.numpy(), normed * weight + bias, rtol=1e-5, atol=1e-5)
        assert_allclose(means.numpy(), wide.mean(1), rtol=1e-6)
        assert_allclose(rates.numpy(), rate[:, 0], rtol=1e-5)

        mod.kernel("layer_norm_backward").launch(rows, block, (dx, bdy, bx, bw, means, rates,
                                                               np.int32(n)))
        g = dy.astype(np.float64) * weight
        expected = rate * (g - g.mean(1, keepdims=True)
                           - normed * (g * normed).mean(1, keepdims=True))
        assert_allclose(dx.numpy(), expected, rtol=1e-4, atol=1e-5)

        dw, db = m.zeros(n, np.float32), m.zeros(n, np.float32)
        args = dw, db, bdy, bx, means, rates, np.int32(rows), np.int32(n)
        mod.kernel("layer_norm_backward_weight").launch((-(-n // 64), 2), 64, args)
        assert_allclose(dw.numpy(), (dy * normed).sum(0), rtol=1e-4, atol=1e-5)
        assert_allclose(db.numpy(), dy.sum(0, dtype=np.float64), rtol=1e-5, atol=1e-6)


@program("rownorm.cu")
def add_rms_norm(m: sim.Machine, mod: Any) -> None:
    rows = 2
    for pairs in (20, 90):
        residual, x = (_values(s, rows, 2 * pairs).astype(np.float16) for s in (10, 11))
        weight = _values(12, 2 * pairs).astype(np.float16)
        y, held = m.empty((rows, 2 * pairs), np.float16), m.array(residual)
        args = y, held, m.array(x), m.array(weight), np.int32(pairs), np.float32(1e-6)
        mod.kernel("add_rms_norm").launch(rows, 64, args, shared_mem=8 * pairs)
        total = residual + x
        assert_array_equal(held.numpy(), total)
        wide = total.astype(np.float64)
        expected = wide / np.sqrt((wide**2).mean(1, keepdims=True) + 1e-6) * weight
        assert_allclose(y.numpy().astype(np.float64), expected, rtol=1e-3, atol=1e-6)

"""Convolution, pooling and batch normalisation."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.testing import assert_allclose, assert_array_equal
from sim.corpus.program import program

from mlgpu import sim


def shape(n: int, c: int, h: int, w: int, k: int, r: int, s: int, pad: int, stride: int) -> Any:
    """The kernels' structure, with the output's size last."""
    out = [(size + 2 * pad - f) // stride + 1 for size, f in ((h, r), (w, s))]
    return np.void(np.array([n, c, h, w, k, r, s, pad, stride, *out], np.int32).tobytes()), *out


def windows(x: Any, r: int, s: int, pad: int, stride: int, fill: float = 0.0) -> Any:
    """[n, c, oh, ow, r, s] in float64."""
    wide = np.pad(x.astype(np.float64), ((0, 0), (0, 0), (pad, pad), (pad, pad)),
                  constant_values=fill)
    return sliding_window_view(wide, (r, s), (2, 3))[:, :, ::stride, ::stride]


def blocks(total: int, threads: int) -> int:
    return -(-total // threads)


@program("conv.cu")
def direct_3x3(m: sim.Machine, mod: Any) -> None:
    rng = np.random.default_rng(0)
    x, f = rng.standard_normal((2, 3, 11, 19), np.float32), rng.standard_normal((4, 3, 3, 3))
    f, bias = f.astype(np.float32), rng.standard_normal(4, np.float32)
    p, oh, ow = shape(2, 3, 11, 19, 4, 3, 3, 1, 1)
    y = m.empty((2, 4, oh, ow), np.float32)
    args = m.array(x), m.array(f), m.array(bias), y, p
    mod.kernel("conv3x3").launch((2, 2, 8), (16, 8), args)
    exact = np.einsum("ncyxrs,kcrs->nkyx", windows(x, 3, 3, 1, 1), f) + bias[:, None, None]
    assert_allclose(y.numpy(), np.maximum(exact, 0), rtol=1e-5, atol=2e-6)


@program("conv.cu")
def implicit_gemm(m: sim.Machine, mod: Any) -> None:
    cases = (2, 3, 9, 7, 5, 3, 3, 1, 2), (1, 5, 6, 8, 18, 2, 4, 0, 1), (3, 1, 5, 5, 2, 5, 5, 2, 1)
    for seed, (n, c, h, w, k, r, s, pad, stride) in enumerate(cases):
        rng = np.random.default_rng(seed)
        x = rng.standard_normal((n, c, h, w), np.float32)
        f = rng.standard_normal((k, c, r, s), np.float32)
        p, oh, ow = shape(n, c, h, w, k, r, s, pad, stride)
        y = m.empty((n, k, oh, ow), np.float32)
        grid = blocks(n * oh * ow, 16), blocks(k, 16)
        mod.kernel("conv_implicit").launch(grid, (16, 16), (m.array(x), m.array(f), y, p))
        exact = np.einsum("ncyxrs,kcrs->nkyx", windows(x, r, s, pad, stride), f)
        assert_allclose(y.numpy(), exact, rtol=1e-5, atol=5e-6)


@program("conv.cu")
def pointwise(m: sim.Machine, mod: Any) -> None:
    rng = np.random.default_rng(3)
    x, f = rng.standard_normal((2, 7, 75), np.float32), rng.standard_normal((6, 7), np.float32)
    y = m.empty((2, 6, 75), np.float32)
    args = m.array(x), m.array(f), y, np.int32(7), np.int32(6), np.int32(75)
    mod.kernel("conv1x1").launch((2, 2, 2), 64, args, shared_mem=4 * 4 * 7)
    assert_allclose(y.numpy(), f.astype(np.float64) @ x, rtol=1e-5, atol=2e-6)


@program("conv.cu")
def depthwise(m: sim.Machine, mod: Any) -> None:
    rng = np.random.default_rng(4)
    x = rng.standard_normal((6, 8, 9, 10), np.float32)
    f = rng.standard_normal((8, 5, 5), np.float32)
    p, oh, ow = shape(6, 8, 9, 10, 8, 5, 5, 2, 2)
    mod.symbol("depthwise_filter").set(f.ravel())
    y = m.empty((6, 8, oh, ow), np.float32)
    mod.kernel("depthwise").launch(3, 64, (m.array(x), y, p))
    seen = windows(x, 5, 5, 2, 2)
    assert_allclose(y.numpy(), np.einsum("ncyxrs,crs->ncyx", seen, f), rtol=1e-5, atol=5e-6)

    dy = rng.standard_normal((6, 8, oh, ow), np.float32)
    dw = m.empty((8, 5, 5), np.float32)
    mod.kernel("depthwise_filter_gradient").launch((8, 25), 128, (m.array(x), m.array(dy), dw, p))
    assert_allclose(dw.numpy(), np.einsum("ncyxrs,ncyx->crs", seen, dy), rtol=1e-5, atol=5e-6)


@program("conv.cu")
def max_pool(m: sim.Machine, mod: Any) -> None:
    rng = np.random.default_rng(5)
    x = rng.standard_normal((2, 3, 9, 11), np.float32)
    p, oh, ow = shape(2, 3, 9, 11, 3, 3, 3, 1, 2)
    total = 6 * oh * ow
    y, where = m.empty((2, 3, oh, ow), np.float32), m.empty((2, 3, oh, ow), np.int32)
    mod.kernel("max_pool").launch(blocks(total, 64), 64, (m.array(x), y, where, p))
    exact = windows(x, 3, 3, 1, 2, -np.inf).max((4, 5))
    assert_array_equal(y.numpy(), exact.astype(np.float32))
    flat, at = x.reshape(6, -1), where.numpy().reshape(6, -1)
    assert_array_equal(np.take_along_axis(flat, at, 1), y.numpy().reshape(6, -1))

    dy = rng.integers(-9, 10, (2, 3, oh, ow)).astype(np.float32)  # exact in any order
    dx = m.zeros(x.shape, np.float32)
    mod.kernel("max_pool_backward").launch(blocks(total, 64), 64, (m.array(dy), where, dx, p))
    expected = np.zeros(flat.shape)
    np.add.at(expected, (np.arange(6)[:, None], at), dy.reshape(6, -1))
    assert_array_equal(dx.numpy().reshape(6, -1), expected)


@program("conv.cu")
def average_pool_backward(m: sim.Machine, mod: Any) -> None:
    rng = np.random.default_rng(6)
    for h, w, r, s, pad, stride in ((8, 9, 3, 3, 1, 2), (6, 5, 2, 2, 0, 1)):
        p, oh, ow = shape(2, 2, h, w, 2, r, s, pad, stride)
        dy = rng.standard_normal((2, 2, oh, ow), np.float32)
        dx = m.empty((2, 2, h, w), np.float32)
        mod.kernel("average_pool_backward").launch(blocks(4 * h * w, 96), 96, (m.array(dy), dx, p))
        wide = np.zeros((2, 2, h + 2 * pad, w + 2 * pad))
        for y in range(oh):
            for x in range(ow):
                at = np.s_[:, :, y * stride:y * stride + r, x * stride:x * stride + s]
                wide[at] += dy[:, :, y, x, None, None] / (r * s)
        exact = wide[:, :, pad:pad + h, pad:pad + w]
        assert_allclose(dx.numpy(), exact, rtol=1e-6, atol=1e-6)


@program("conv.cu")
def batch_norm(m: sim.Machine, mod: Any) -> None:
    rng = np.random.default_rng(7)
    offsets = np.array([50, 0, -3, 7])[:, None, None]
    x = (2 * rng.standard_normal((3, 4, 5, 7)) + offsets).astype(np.float32)
    running = rng.standard_normal((2, 4), np.float32)
    mean, inverse = m.empty(4, np.float32), m.empty(4, np.float32)
    stats = m.array(running)
    args = (m.array(x), mean, inverse, stats, np.int32(3), np.int32(4), np.int32(35),
            np.float32(0.1), np.float32(1e-5))
    mod.kernel("batch_norm_statistics").launch(4, 128, args)
    wide = x.astype(np.float64)
    mu, var = wide.mean((0, 2, 3)), wide.var((0, 2, 3))
    assert_allclose(mean.numpy(), mu, rtol=1e-6, atol=1e-6)
    assert_allclose(inverse.numpy(), 1 / np.sqrt(var + 1e-5), rtol=1e-5)
    now = np.stack([mu, var * 105 / 104])
    assert_allclose(stats.numpy(), 0.9 * running + 0.1 * now, rtol=1e-5, atol=1e-6)

    gamma, beta = rng.standard_normal((2, 4), np.float32)
    y = m.empty(x.shape, np.float32)
    args = (m.array(x), mean, inverse, m.array(gamma), m.array(beta), y, np.int32(4), np.int32(35))
    mod.kernel("batch_norm_apply").launch((2, 12), 32, args)
    normal = (wide - mu[:, None, None]) / np.sqrt(var + 1e-5)[:, None, None]
    exact = normal * gamma[:, None, None] + beta[:, None, None]
    assert_allclose(y.numpy(), exact, rtol=1e-4, atol=2e-5)

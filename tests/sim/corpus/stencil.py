"""Stencils, pooling and the game of life."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.testing import assert_allclose, assert_array_equal
from sim.corpus.program import program

from mlgpu import sim

Array = np.ndarray[Any, Any]


@program("stencil.cu")
def convolve_row(m: sim.Machine, mod: Any) -> None:
    rng = np.random.default_rng(0)
    for n in (1, 63, 64, 150):
        taps = rng.standard_normal(7).astype(np.float32)
        mod.symbol("taps").set(taps)
        x = rng.standard_normal(n).astype(np.float32)
        out = m.empty(n, np.float32)
        mod.kernel("convolve_row").launch(-(-n // 64), 64, (out, m.array(x), np.int32(n)))
        expected = np.correlate(np.pad(x.astype(np.float64), 3), taps, "valid")
        assert_allclose(out.numpy(), expected, rtol=1e-5, atol=1e-5)


@program("stencil.cu")
def heat(m: sim.Machine, mod: Any) -> None:
    for width, height, steps in ((40, 19, 2), (5, 3, 1)):
        x = np.random.default_rng(1).standard_normal((height, width)).astype(np.float32)
        a, b = m.array(x), m.empty((height, width), np.float32)
        expected = x.astype(np.float64)
        for _ in range(steps):
            args = b, a, np.int32(width), np.int32(height), np.float32(0.2)
            mod.kernel("heat").launch((-(-width // 32), -(-height // 8)), (32, 8), args)
            a, b = b, a
            p = np.pad(expected, 1, "edge")
            around = p[:-2, 1:-1] + p[2:, 1:-1] + p[1:-1, :-2] + p[1:-1, 2:]
            expected = expected + 0.2 * (around - 4 * expected)
        assert_allclose(a.numpy(), expected, rtol=1e-5, atol=1e-5)


@program("stencil.cu")
def laplace(m: sim.Machine, mod: Any) -> None:
    for nx, ny, nz in ((16, 4, 3), (20, 7, 2), (20, 7, 5)):
        x = np.random.default_rng(2).standard_normal((nz, ny, nx)).astype(np.float32)
        out = m.empty(x.shape, np.float32)
        args = out, m.array(x), np.int32(nx), np.int32(ny), np.int32(nz)
        mod.kernel("laplace").launch((-(-nx // 16), -(-ny // 4)), (16, 4), args)
        p = np.pad(x.astype(np.float64), 1)
        expected = (p[:-2, 1:-1, 1:-1] + p[2:, 1:-1, 1:-1] + p[1:-1, :-2, 1:-1]
                    + p[1:-1, 2:, 1:-1] + p[1:-1, 1:-1, :-2] + p[1:-1, 1:-1, 2:] - 6.0 * x)
        assert_allclose(out.numpy(), expected, rtol=1e-5, atol=1e-5)


def _life(cells: Array) -> Array:
    """The next generation on a torus."""
    around = sum(np.roll(cells, (dy, dx), (0, 1)) for dy in (-1, 0, 1) for dx in (-1, 0, 1))
    return ((around == 3) | ((around == 4) & (cells == 1))).astype(np.uint8)


@program("stencil.cu")
def life_bits(m: sim.Machine, mod: Any) -> None:
    for words, height in ((3, 11), (1, 8)):
        cells = (np.random.default_rng(3).random((height, 32 * words)) < 0.4).astype(np.uint8)
        packed = np.packbits(cells, axis=1, bitorder="little").view(np.uint32)
        a, b = m.array(packed), m.empty(packed.shape, np.uint32)
        for _ in range(2):
            args = b, a, np.int32(words), np.int32(height)
            mod.kernel("life_bits").launch((1, height), 32, args)
            a, b = b, a
            cells = _life(cells)
        found = np.unpackbits(a.numpy().view(np.uint8), axis=1, bitorder="little")
        assert_array_equal(found, cells)


@program("stencil.cu")
def life_bytes(m: sim.Machine, mod: Any) -> None:
    width, height = 19, 13
    cells = (np.random.default_rng(4).random((height, width)) < 0.4).astype(np.uint8)
    a, b = m.array(cells), m.empty(cells.shape, np.uint8)
    for _ in range(2):
        args = b, a, np.int32(width), np.int32(height)
        mod.kernel("life_bytes").launch((3, 4), (8, 4), args)
        a, b = b, a
        cells = _life(cells)
    assert_array_equal(a.numpy(), cells)


@program("stencil.cu")
def max_pool(m: sim.Machine, mod: Any) -> None:
    rng = np.random.default_rng(5)
    planes, height, width = 2, 9, 12
    x = rng.standard_normal((planes, height, width)).astype(np.float32)
    for size, stride in ((2, 2), (3, 2), (3, 1)):
        windows = sliding_window_view(x, (size, size), (1, 2))[:, ::stride, ::stride]
        shape = windows.shape[:3]
        out, where = m.empty(shape, np.float32), m.empty(shape, np.int32)
        sizes = [np.int32(v) for v in (height, width, size, stride, shape[1], shape[2])]
        mod.kernel("max_pool").launch((1, shape[1], planes), 32, (out, where, m.array(x), *sizes))
        assert_array_equal(out.numpy(), windows.max((3, 4)))
        at = where.numpy()
        assert_array_equal(np.take_along_axis(x.reshape(planes, -1), at.reshape(planes, -1), 1),
                           out.numpy().reshape(planes, -1))

        dy = rng.standard_normal(shape).astype(np.float32)
        grad = m.zeros(x.shape, np.float32)
        counts = np.int32(height * width), np.int32(shape[1] * shape[2]), np.int32(dy.size)
        mod.kernel("max_pool_backward").launch(2, 64, (grad, m.array(dy), where, *counts))
        expected = np.zeros((planes, height * width))
        for p in range(planes):
            np.add.at(expected[p], at[p].ravel(), dy[p].ravel())
        assert_allclose(grad.numpy().reshape(planes, -1), expected, rtol=1e-5, atol=1e-6)

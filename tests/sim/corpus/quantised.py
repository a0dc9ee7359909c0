"""Products with quantised weights, and the kernels that quantise."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
from numpy.testing import assert_allclose, assert_array_equal
from sim.corpus.program import program

from mlgpu import sim


def int8(rng: Any, *shape: int) -> Any:
    return rng.integers(-128, 128, shape, np.int8)


@program("quantised.cu")
def quantise_rows(m: sim.Machine, mod: Any) -> None:
    x = np.random.default_rng(0).standard_normal((4, 333), np.float32)
    x[1] = 0
    q, scale = m.empty(x.shape, np.int8), m.empty(4, np.float32)
    mod.kernel("quantise_rows").launch(4, 128, (m.array(x), q, scale, np.int32(333)))
    top = np.abs(x).max(1)
    factor = np.where(top > 0, np.float32(127) / np.where(top > 0, top, 1), 0).astype(np.float32)
    assert_array_equal(q.numpy(), np.rint(x * factor[:, None]))  # each step rounds as NumPy does
    assert_array_equal(scale.numpy(), top / np.float32(127))


@program("quantised.cu")
def gemv_dp4a(m: sim.Machine, mod: Any) -> None:
    rng = np.random.default_rng(1)
    w, x = int8(rng, 11, 1040), int8(rng, 1040)
    scale = rng.uniform(0.01, 0.02, 11).astype(np.float32)
    y = m.empty(11, np.float32)
    args = (m.array(w), m.array(scale), m.array(x), np.float32(0.03), y, np.int32(11), np.int32(65))
    mod.kernel("gemv_dp4a").launch(3, 128, args)
    exact = w.astype(np.int64) @ x.astype(np.int64) * scale.astype(np.float64) * np.float32(0.03)
    assert_allclose(y.numpy(), exact, rtol=3e-7)


@program("quantised.cu")
def gemv_zero_point(m: sim.Machine, mod: Any) -> None:
    rng = np.random.default_rng(2)
    w, x = int8(rng, 70, 52), rng.integers(0, 256, 52, np.uint8)
    y = m.empty(70, np.int32)
    args = m.array(w), m.array(x), np.int32(113), y, np.int32(70), np.int32(13)
    mod.kernel("gemv_zero_point").launch(2, 64, args)
    assert_array_equal(y.numpy(), w.astype(np.int64) @ (x.astype(np.int64) - 113))


@program("quantised.cu")
def dp2a(m: sim.Machine, mod: Any) -> None:
    rng = np.random.default_rng(3)
    a, b = rng.integers(-2**15, 2**15, (50, 4), np.int16), int8(rng, 50, 4)
    y = m.empty(50, np.int32)
    mod.kernel("dp2a").launch(1, 64, (m.array(a), m.array(b), y, np.int32(50)))
    assert_array_equal(y.numpy(), (a.astype(np.int64) * b).sum(1) + 5)


@program("quantised.cu")
def gemv_int4(m: sim.Machine, mod: Any) -> None:
    rng = np.random.default_rng(4)
    rows, cols = 13, 320
    q = rng.integers(0, 16, (rows, cols // 8, 8)).astype(np.uint32)
    # Nibbles j and j + 4 of a word hold the columns 2j and 2j + 1.
    place = np.array([0, 4, 1, 5, 2, 6, 3, 7], np.uint32)
    packed = (q << 4 * place).sum(-1).astype(np.uint32)
    scales = rng.uniform(0.01, 0.02, (rows, cols // 32)).astype(np.float16)
    zeros = rng.integers(0, 16, (rows, cols // 32), np.uint8)
    x = rng.standard_normal(cols).astype(np.float16)
    y = m.empty(rows, np.float32)
    args = (*map(m.array, (packed, scales, zeros, x)), y, np.int32(rows), np.int32(cols))
    mod.kernel("gemv_int4").launch(4, 128, args)
    steps = q.reshape(rows, cols // 32, 32).astype(np.float64) - zeros[..., None]
    w = (steps * scales.astype(np.float64)[..., None]).astype(np.float16).reshape(rows, cols)
    assert_allclose(y.numpy(), w.astype(np.float64) @ x.astype(np.float64), rtol=1e-5, atol=2e-6)


@program("quantised.cu")
def w8a16(m: sim.Machine, mod: Any) -> None:
    rng = np.random.default_rng(5)
    w, x = int8(rng, 9, 148), rng.standard_normal((6, 148), np.float32).astype(ml_dtypes.bfloat16)
    scale = rng.uniform(0.01, 0.02, 9).astype(np.float32)
    y = m.empty((6, 9), ml_dtypes.bfloat16)
    args = (*map(m.array, (w, scale, x)), y, np.int32(6), np.int32(9), np.int32(37))
    mod.kernel("w8a16").launch((3, 2), 128, args)
    exact = x.astype(np.float64) @ w.T * scale
    assert_allclose(y.numpy().astype(np.float64), exact, rtol=2**-8 + 1e-5, atol=1e-4)


@program("quantised.cu")
def gemv_blocks(m: sim.Machine, mod: Any) -> None:
    rng = np.random.default_rng(6)
    block = np.dtype([("scale", np.float16), ("q", np.int8, 32)])
    w, x = np.zeros((5, 37), block), np.zeros(37, block)
    for part in (w, x):
        part["scale"] = rng.uniform(0.01, 0.1, part.shape)
        part["q"] = int8(rng, *part.shape, 32)
    y = m.empty(5, np.float32)
    args = (*(m.array(part.view(np.uint8)) for part in (w, x)), y, np.int32(5), np.int32(37))
    mod.kernel("gemv_blocks").launch(2, (32, 4), args)
    wide = [part["q"] * part["scale"].astype(np.float64)[..., None] for part in (w, x)]
    assert_allclose(y.numpy(), np.einsum("rbi,bi->r", *wide), rtol=1e-5, atol=1e-3)


@program("quantised.cu")
def gemm_dp4a(m: sim.Machine, mod: Any) -> None:
    rng = np.random.default_rng(7)
    a, b = int8(rng, 21, 76), int8(rng, 76, 18)
    c = m.empty((21, 18), np.int32)
    args = m.array(a), m.array(np.ascontiguousarray(b.T)), c, *map(np.int32, (21, 18, 19))
    mod.kernel("gemm_dp4a").launch((2, 2), (16, 16), args)
    assert_array_equal(c.numpy(), a.astype(np.int64) @ b.astype(np.int64))

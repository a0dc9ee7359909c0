"""Tensor cores through <mma.h>."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
from numpy.testing import assert_allclose, assert_array_equal
from sim.corpus.mma import normal, sizes, tf32
from sim.corpus.program import program

from mlgpu import sim

HEADERS = ("crt/mma.h",)


@program("wmma.cu", headers=HEADERS)
def half_with_epilogue(m: sim.Machine, mod: Any) -> None:
    a, b = normal(0, np.float16, (25, 37), (37, 18))
    old = np.random.default_rng(1).standard_normal((25, 18), np.float32)
    c = m.array(old)
    args = m.array(a), m.array(b), c, *sizes(25, 18, 37), np.float32(0.5), np.float32(-2)
    mod.kernel("gemm_half").launch((2, 2), 32, args)
    exact = 0.5 * (a.astype(np.float64) @ b.astype(np.float64)) - 2.0 * old
    assert_allclose(c.numpy(), exact, rtol=1e-5, atol=1e-5)


@program("wmma.cu", headers=HEADERS)
def half_sums_of_32x8(m: sim.Machine, mod: Any) -> None:
    rng = np.random.default_rng(2)
    a, b = (rng.integers(-4, 5, shape).astype(np.float16) for shape in ((64, 48), (48, 16)))
    c = m.empty((16, 64), np.float16)
    args = (m.array(np.ascontiguousarray(a.T)), m.array(np.ascontiguousarray(b.T)), c,
            *sizes(64, 16, 48))
    mod.kernel("gemm_32x8").launch((2, 2), 32, args)
    assert_array_equal(c.numpy().T, a.astype(np.int64) @ b.astype(np.int64))


@program("wmma.cu", headers=HEADERS)
def int8(m: sim.Machine, mod: Any) -> None:
    rng = np.random.default_rng(3)
    a, b = (rng.integers(-128, 128, shape, np.int8) for shape in ((32, 64), (64, 16)))
    c = m.empty((32, 16), np.int32)
    args = m.array(a), m.array(np.ascontiguousarray(b.T)), c, *sizes(32, 16, 64)
    mod.kernel("gemm_s8").launch((1, 2), 32, args)
    assert_array_equal(c.numpy(), a.astype(np.int64) @ b.astype(np.int64))


@program("wmma.cu", since="sm_80", headers=HEADERS)
def bfloat16(m: sim.Machine, mod: Any) -> None:
    a, b = normal(4, ml_dtypes.bfloat16, (32, 64), (64, 16))
    c = m.empty((32, 16), np.float32)
    args = m.array(a), m.array(b), c, *sizes(32, 16, 64)
    mod.kernel("gemm_bfloat16").launch((1, 2), 32, args)
    assert_allclose(c.numpy(), a.astype(np.float64) @ b.astype(np.float64), rtol=1e-5, atol=2e-5)


@program("wmma.cu", since="sm_80", headers=HEADERS)
def tf32_rounded(m: sim.Machine, mod: Any) -> None:
    a, b = normal(5, np.float32, (32, 40), (40, 16))
    c = m.empty((32, 16), np.float32)
    mod.kernel("gemm_tf32").launch((1, 2), 32, (m.array(a), m.array(b), c, *sizes(32, 16, 40)))
    exact = tf32(a).astype(np.float64) @ tf32(b).astype(np.float64)
    assert_allclose(c.numpy(), exact, rtol=1e-5, atol=1e-5)


@program("wmma.cu", since="sm_80", headers=HEADERS)
def doubles(m: sim.Machine, mod: Any) -> None:
    rng = np.random.default_rng(6)
    a, b = rng.standard_normal((16, 20)), rng.standard_normal((20, 8))
    c = m.empty((16, 8), np.float64)
    mod.kernel("gemm_double").launch((1, 2), 32, (m.array(a), m.array(b), c, *sizes(16, 8, 20)))
    assert_allclose(c.numpy(), a @ b, rtol=1e-13, atol=1e-14)

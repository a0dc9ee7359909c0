"""Tensor cores as sm_75 has them: mma of halves and of int8, ldmatrix, wmma."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.testing import assert_allclose, assert_array_equal
from sim.corpus.program import program

from mlgpu import sim


def sizes(*values: int) -> tuple[np.int32, ...]:
    return tuple(np.int32(v) for v in values)


@program("mma_turing.cu")
def float_sums(m: sim.Machine, mod: Any) -> None:
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal(shape).astype(np.float16) for shape in ((27, 41), (41, 30)))
    c = m.empty((27, 30), np.float32)
    mod.kernel("gemm_f32").launch((2, 2), 32, (m.array(a), m.array(b), c, *sizes(27, 30, 41)))
    assert_allclose(c.numpy(), a.astype(np.float64) @ b.astype(np.float64), rtol=1e-5, atol=1e-5)


@program("mma_turing.cu")
def half_sums(m: sim.Machine, mod: Any) -> None:
    rng = np.random.default_rng(1)
    # Small integers: every sum is exact in half precision, whatever the order.
    a = rng.integers(-4, 5, (37, 24)).astype(np.float16)
    b = rng.integers(-4, 5, (24, 14)).astype(np.float16)
    c = m.empty((37, 14), np.float16)
    args = m.array(a), m.array(np.ascontiguousarray(b.T)), c, *sizes(37, 14, 24)
    mod.kernel("gemm_f16").launch((2, 2), 64, args)
    assert_array_equal(c.numpy(), a.astype(np.int64) @ b.astype(np.int64))


@program("mma_turing.cu")
def int8_scaled(m: sim.Machine, mod: Any) -> None:
    rng = np.random.default_rng(2)
    a = rng.integers(-128, 128, (13, 48), np.int8)
    b = rng.integers(-128, 128, (48, 19), np.int8)
    rows, columns = rng.uniform(0.01, 0.1, 13), rng.uniform(0.01, 0.1, 19)
    rows, columns = rows.astype(np.float32), columns.astype(np.float32)
    c = m.empty((13, 19), np.float32)
    args = (m.array(a), m.array(np.ascontiguousarray(b.T)), m.array(rows), m.array(columns), c,
            *sizes(13, 19, 48))
    mod.kernel("gemm_s8").launch((3, 2), 32, args)
    product = a.astype(np.int64) @ b.astype(np.int64)
    exact = product * rows.astype(np.float64)[:, None] * columns.astype(np.float64)
    assert_allclose(c.numpy(), exact, rtol=3e-7, atol=0)


@program("mma_turing.cu")
def wmma(m: sim.Machine, mod: Any) -> None:
    rng = np.random.default_rng(3)
    a, b = (rng.standard_normal(shape).astype(np.float16) for shape in ((32, 48), (48, 16)))
    old = rng.standard_normal((32, 16), np.float32)
    c = m.array(old)
    args = m.array(a), m.array(np.ascontiguousarray(b.T)), c, *sizes(32, 16, 48)
    mod.kernel("gemm_wmma").launch((1, 2), 32, args)
    exact = old + a.astype(np.float64) @ b.astype(np.float64)
    assert_allclose(c.numpy(), exact, rtol=1e-5, atol=1e-5)

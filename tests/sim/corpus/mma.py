"""Tensor cores as sm_80 has them: halves, bfloat16, tf32, int8, doubles, a pipelined product."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
from numpy.testing import assert_allclose, assert_array_equal
from sim.corpus.program import program

from mlgpu import sim

LDMATRIX = ("gemm_ldmatrix<__half>", "gemm_ldmatrix<__nv_bfloat16>")
NO_BIAS = np.uint64(0)


def sizes(*values: int) -> tuple[np.int32, ...]:
    return tuple(np.int32(v) for v in values)


def normal(seed: int, dtype: Any, *shapes: tuple[int, int]) -> list[Any]:
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape, np.float32).astype(dtype) for shape in shapes]


@program("mma.cu", since="sm_80", names=LDMATRIX)
def ldmatrix_half(m: sim.Machine, mod: Any) -> None:
    a, b = normal(0, np.float16, (45, 35), (35, 38))
    c = m.empty((45, 38), np.float16)
    args = m.array(a), m.array(b), NO_BIAS, c, *sizes(45, 38, 35)
    mod.kernel(LDMATRIX[0]).launch((2, 2), 128, args)
    exact = a.astype(np.float64) @ b.astype(np.float64)
    assert_allclose(c.numpy().astype(np.float64), exact, rtol=2**-11 + 1e-5, atol=1e-5)


@program("mma.cu", since="sm_80", names=LDMATRIX)
def bias_gelu_bfloat16(m: sim.Machine, mod: Any) -> None:
    a, b = normal(1, ml_dtypes.bfloat16, (20, 50), (50, 66))
    bias = np.random.default_rng(2).standard_normal(66, np.float32)
    c = m.empty((20, 66), ml_dtypes.bfloat16)
    args = m.array(a), m.array(b), m.array(bias), c, *sizes(20, 66, 50)
    mod.kernel(LDMATRIX[1]).launch((3, 1), 128, args)
    x = a.astype(np.float64) @ b.astype(np.float64) + bias
    exact = 0.5 * x * (1 + np.tanh(0.7978845608 * (x + 0.044715 * x**3)))
    assert_allclose(c.numpy().astype(np.float64), exact, rtol=2**-8 + 1e-4, atol=1e-5)


@program("mma.cu", since="sm_80", names=LDMATRIX)
def half_sums(m: sim.Machine, mod: Any) -> None:
    rng = np.random.default_rng(3)
    a, b = (rng.integers(-4, 5, shape).astype(np.float16) for shape in ((32, 48), (48, 24)))
    c = m.empty((32, 24), np.float16)
    args = m.array(a), m.array(np.ascontiguousarray(b.T)), c, *sizes(32, 24, 48)
    mod.kernel("gemm_f16").launch((3, 2), 32, args)
    assert_array_equal(c.numpy(), a.astype(np.int64) @ b.astype(np.int64))


def tf32(x: Any) -> Any:
    """Rounded to 10 bits of mantissa, ties away from zero."""
    bits = x.astype(np.float32).view(np.uint32)
    return ((bits + np.uint32(0x1000)) & np.uint32(0xFFFFE000)).view(np.float32)


@program("mma.cu", since="sm_80", names=LDMATRIX)
def tf32_rounded(m: sim.Machine, mod: Any) -> None:
    a, b = normal(4, np.float32, (23, 37), (37, 29))
    c = m.empty((23, 29), np.float32)
    mod.kernel("gemm_tf32").launch((2, 2), 32, (m.array(a), m.array(b), c, *sizes(23, 29, 37)))
    rounded = tf32(a).astype(np.float64) @ tf32(b).astype(np.float64)
    assert_allclose(c.numpy(), rounded, rtol=1e-5, atol=1e-5)
    assert np.abs(rounded - a.astype(np.float64) @ b).max() > 1e-3  # the rounding is seen


@program("mma.cu", since="sm_80", names=LDMATRIX)
def int8_requantised(m: sim.Machine, mod: Any) -> None:
    rng = np.random.default_rng(5)
    a, b = (rng.integers(-128, 128, shape, np.int8) for shape in ((21, 64), (64, 24)))
    c = m.empty((21, 24), np.int8)
    scale = np.float32(2.0**-9)  # a power of two: halves are ties, and the largest saturate
    args = m.array(a), m.array(np.ascontiguousarray(b.T)), scale, c, *sizes(21, 24, 64)
    mod.kernel("gemm_s8").launch((3, 2), 32, args)
    product = a.astype(np.int64) @ b.astype(np.int64)
    assert_array_equal(c.numpy(), np.clip(np.rint(product * 2.0**-9), -128, 127).astype(np.int8))
    assert np.abs(product).max() > 128 * 2**9  # some do saturate


@program("mma.cu", since="sm_80", names=LDMATRIX)
def doubles(m: sim.Machine, mod: Any) -> None:
    rng = np.random.default_rng(6)
    a, b = rng.standard_normal((19, 21)), rng.standard_normal((21, 13))
    c = m.empty((19, 13), np.float64)
    mod.kernel("gemm_f64").launch((2, 3), 32, (m.array(a), m.array(b), c, *sizes(19, 13, 21)))
    assert_allclose(c.numpy(), a @ b, rtol=1e-13, atol=1e-14)


@program("mma.cu", since="sm_80", names=LDMATRIX)
def pipelined_and_swizzled(m: sim.Machine, mod: Any) -> None:
    for seed, (rows, columns, inner) in enumerate(((72, 40, 104), (24, 56, 16))):
        a, b = normal(seed, np.float16, (rows, inner), (inner, columns))
        c = m.empty((rows, columns), np.float16)
        args = m.array(a), m.array(b), c, *sizes(rows, columns, inner)
        grid = -(-columns // 32), -(-rows // 64)
        shared = 3 * (64 * 32 + 32 * 32) * 2
        mod.kernel("gemm_pipelined").launch(grid, 128, args, shared_mem=shared)
        exact = a.astype(np.float64) @ b.astype(np.float64)
        assert_allclose(c.numpy().astype(np.float64), exact, rtol=2**-11 + 1e-5, atol=2e-5)

"""What later targets add to the tensor cores: fp8 operands, stmatrix."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
from numpy.testing import assert_allclose, assert_array_equal
from sim.corpus.program import program

from mlgpu import sim

E4M3, E5M2 = ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2


def sizes(*values: int) -> tuple[np.int32, ...]:
    return tuple(np.int32(v) for v in values)


def judge(m: sim.Machine, kernel: Any, a: Any, b: Any, error: float) -> None:
    """error: of the sums, relative to the sum of the products' magnitudes."""
    scales = np.array([0.5, 0.25], np.float32)
    rows, inner = a.shape
    columns = b.shape[1]
    c = m.empty((rows, columns), np.float32)
    args = m.array(a.view(np.uint8)), m.array(np.ascontiguousarray(b.T).view(np.uint8)), \
        m.array(scales), c, *sizes(columns, inner)
    kernel.launch((columns // 8, rows // 16), 32, args)
    x, y = a.astype(np.float64), b.astype(np.float64)
    off = np.abs(c.numpy() - x @ y / 8)
    assert np.all(off <= error * (np.abs(x) @ np.abs(y)) / 8)


@program("mma_hopper.cu", since="sm_89")
def fp8(m: sim.Machine, mod: Any) -> None:
    rng = np.random.default_rng(0)
    for name, dtype in (("gemm_e4m3", E4M3), ("gemm_e5m2", E5M2)):
        # Small integers add exactly; the hardware adds other fp8 products with fewer bits.
        a = rng.integers(-4, 5, (32, 64)).astype(E4M3)
        b = rng.integers(-4, 5, (64, 24)).astype(dtype)
        judge(m, mod.kernel(name), a, b, 0.0)
        a = rng.standard_normal((16, 96)).astype(E4M3)
        b = rng.standard_normal((96, 8)).astype(dtype)
        judge(m, mod.kernel(name), a, b, 2**-10)


@program("mma_hopper.cu", since="sm_89")
def fp8_quantised_by_rows(m: sim.Machine, mod: Any) -> None:
    x = np.random.default_rng(1).standard_normal((5, 148), np.float32) * np.float32(3)
    x[2] = 0
    y, scale = m.empty((5, 148), np.uint8), m.empty(5, np.float32)
    mod.kernel("quantise_e4m3").launch(5, 32, (m.array(x), y, scale, np.int32(37)))
    top = np.abs(x).max(1)
    factor = np.where(top > 0, np.float32(448) / np.where(top > 0, top, 1), 1).astype(np.float32)
    assert_allclose(scale.numpy(), factor, rtol=2e-7)
    exact = np.clip(x * scale.numpy()[:, None], -448, 448).astype(E4M3)
    assert_array_equal(y.numpy(), exact.view(np.uint8))


@program("mma_hopper.cu", since="sm_90")
def stmatrix(m: sim.Machine, mod: Any) -> None:
    rng = np.random.default_rng(2)
    a, b = (rng.standard_normal(shape).astype(np.float16) for shape in ((32, 160), (160, 48)))
    exact = a.astype(np.float64) @ b.astype(np.float64)
    for transposed in (0, 1):
        c = m.empty((48, 32) if transposed else (32, 48), np.float16)
        args = m.array(a), m.array(b), c, *sizes(32, 48, 160, transposed)
        mod.kernel("gemm_stmatrix").launch((3, 2), 32, args)
        got = c.numpy().astype(np.float64)
        assert_allclose(got.T if transposed else got, exact, rtol=2**-11 + 1e-5, atol=2e-5)

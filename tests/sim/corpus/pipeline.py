"""Asynchronous copies by the primitives of <cuda_pipeline.h>."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.testing import assert_allclose, assert_array_equal
from sim.corpus.program import program

from mlgpu import sim


@program("pipeline.cu")
def gemm(m: sim.Machine, mod: Any) -> None:
    rng = np.random.default_rng(0)
    for rows, columns, inner in ((37, 19, 50), (4, 5, 6)):
        a = rng.standard_normal((rows, inner), np.float32)
        b = rng.standard_normal((inner, columns), np.float32)
        c = m.empty((rows, columns), np.float32)
        grid = -(-columns // 16), -(-rows // 16)
        args = m.array(a), m.array(b), c, np.int32(rows), np.int32(columns), np.int32(inner)
        mod.kernel("gemm_pipeline").launch(grid, (16, 16), args)
        assert_allclose(c.numpy(), a.astype(np.float64) @ b, rtol=1e-5, atol=4e-6)


@program("pipeline.cu")
def scale_without_barriers(m: sim.Machine, mod: Any) -> None:
    x = np.random.default_rng(1).standard_normal((517, 4), np.float32)
    y = m.empty(x.shape, np.float32)
    mod.kernel("scale_own").launch(2, 64, (m.array(x), y, np.float32(1.7), np.int32(517)))
    assert_array_equal(y.numpy(), x * np.float32(1.7))

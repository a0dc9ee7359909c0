"""Bulk copies into and out of shared memory, and their mbarriers."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.testing import assert_allclose, assert_array_equal
from sim.corpus.program import program

from mlgpu import sim


@program("bulk.cu", since="sm_90")
def reverse_rows(m: sim.Machine, mod: Any) -> None:
    x = np.random.default_rng(0).standard_normal((21, 32), np.float32)
    y = m.empty(x.shape, np.float32)
    mod.kernel("reverse_rows").launch(3, 64, (m.array(x), y, np.int32(21)))
    assert_array_equal(y.numpy(), x[:, ::-1])


@program("bulk.cu", since="sm_90")
def rms_norm_specialised(m: sim.Machine, mod: Any) -> None:
    x = np.random.default_rng(1).standard_normal((17, 64), np.float32)
    y = m.empty(x.shape, np.float32)
    mod.kernel("rms_norm").launch(2, 128, (m.array(x), y, np.int32(17)))
    exact = x / np.sqrt((x.astype(np.float64) ** 2).mean(1, keepdims=True) + 1e-5)
    assert_allclose(y.numpy(), exact, rtol=1e-5, atol=1e-7)


@program("bulk.cu", since="sm_90")
def column_sums(m: sim.Machine, mod: Any) -> None:
    x = np.random.default_rng(2).standard_normal((50, 100), np.float32)
    sums = m.zeros(100, np.float32)
    args = m.array(x), sums, np.int32(50), np.int32(100)
    mod.kernel("column_sums").launch(3, 64, args, shared_mem=400)
    assert_allclose(sums.numpy(), x.sum(0, dtype=np.float64), rtol=1e-5, atol=1e-5)


@program("bulk.cu", since="sm_90")
def column_max(m: sim.Machine, mod: Any) -> None:
    x = np.random.default_rng(3).integers(0, 2**32, (20, 44), np.uint32)
    tops = m.zeros(44, np.uint32)
    mod.kernel("column_max").launch(3, 32, (m.array(x), tops, np.int32(20), np.int32(44)))
    assert_array_equal(tops.numpy(), x.max(0))


@program("bulk.cu", since="sm_90")
def gemm_specialised(m: sim.Machine, mod: Any) -> None:
    rng = np.random.default_rng(4)
    a, b = (rng.standard_normal(shape).astype(np.float16) for shape in ((64, 160), (160, 32)))
    # [tile row][tile column][row][column]
    blocks = [np.ascontiguousarray(x.reshape(x.shape[0] // 32, 32, -1, 32).swapaxes(1, 2))
              for x in (a, b)]
    c = m.empty((64, 32), np.float32)
    args = *(m.array(x) for x in blocks), c, np.int32(32), np.int32(5)
    mod.kernel("gemm_blocked").launch((1, 2), 160, args)
    assert_allclose(c.numpy(), a.astype(np.float64) @ b.astype(np.float64), rtol=1e-5, atol=4e-5)


@program("bulk.cu", since="sm_90")
def gather_rows(m: sim.Machine, mod: Any) -> None:
    rng = np.random.default_rng(5)
    table, index = rng.standard_normal((30, 16), np.float32), rng.integers(0, 30, 19, np.int32)
    y = m.empty((19, 16), np.float32)
    mod.kernel("gather_rows").launch(3, 32, (m.array(table), m.array(index), y, np.int32(19)))
    assert_array_equal(y.numpy(), table[index])

"""Matrix products whose tiles come by cp.async: groups, rings, narrow copies, mbarriers."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.testing import assert_allclose
from sim.corpus.program import program

from mlgpu import sim


def judge(m: sim.Machine, kernel: Any, rows: int, columns: int, inner: int, *, pad: int,
          shared: int = 0) -> None:
    """Rows are padded with NaN to a multiple of `pad` values: zeros are filled in, none is read."""
    rng = np.random.default_rng(rows + columns + inner)
    a = rng.standard_normal((rows, inner), np.float32)
    b = rng.standard_normal((inner, columns), np.float32)
    wide = [np.pad(x, ((0, 0), (0, -x.shape[1] % pad)), constant_values=np.nan) for x in (a, b)]
    c = m.empty((rows, columns), np.float32)
    shape = np.array([rows, columns, inner, wide[0].shape[1], wide[1].shape[1]], np.int32)
    grid = -(-columns // 32), -(-rows // 32)
    args = m.array(wide[0]), m.array(wide[1]), c, np.void(shape.tobytes())
    kernel.launch(grid, 64, args, shared_mem=shared)
    assert_allclose(c.numpy(), a.astype(np.float64) @ b, rtol=1e-5, atol=4e-6)


@program("gemm_async.cu", since="sm_80")
def groups(m: sim.Machine, mod: Any) -> None:
    judge(m, mod.kernel("gemm_groups"), 37, 45, 51, pad=4)
    judge(m, mod.kernel("gemm_groups"), 3, 5, 7, pad=4)


@program("gemm_async.cu", since="sm_80")
def ring_of_four(m: sim.Machine, mod: Any) -> None:
    stage = 4 * (32 * 16 + 16 * 32)
    judge(m, mod.kernel("gemm_ring"), 33, 40, 99, pad=4, shared=4 * stage)
    judge(m, mod.kernel("gemm_ring"), 20, 30, 17, pad=4, shared=4 * stage)


@program("gemm_async.cu", since="sm_80")
def narrow_copies(m: sim.Machine, mod: Any) -> None:
    judge(m, mod.kernel("gemm_narrow"), 35, 42, 39, pad=1)


@program("gemm_async.cu", since="sm_80")
def mbarrier(m: sim.Machine, mod: Any) -> None:
    judge(m, mod.kernel("gemm_mbarrier"), 34, 39, 83, pad=4)
    judge(m, mod.kernel("gemm_mbarrier"), 9, 9, 9, pad=4)

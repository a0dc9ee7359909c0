"""Flash attention on tensor cores."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.testing import assert_allclose
from sim.corpus.attention import reference
from sim.corpus.program import program

from mlgpu import sim

NAMES = ("flash_forward<false>", "flash_forward<true>")


def judge(m: sim.Machine, kernel: Any, n: int, causal: bool) -> None:
    rng = np.random.default_rng(n)
    q, k, v = rng.standard_normal((3, 2, n, 64), np.float32).astype(np.float16)
    o, lse = m.empty(q.shape, np.float16), m.empty((2, n), np.float32)
    args = *map(m.array, (q, k, v)), o, lse, np.int32(n), np.float32(64**-0.5)
    kernel.launch((-(-n // 32), 2), 64, args)
    exact, _, sums = reference(q, k, v, causal)
    # The weights are rounded to half, and so are the results.
    assert_allclose(o.numpy().astype(np.float64), exact, rtol=1e-3, atol=1e-3)
    assert_allclose(lse.numpy(), sums, rtol=1e-5, atol=1e-5)


@program("flash.cu", since="sm_80", names=NAMES)
def full(m: sim.Machine, mod: Any) -> None:
    judge(m, mod.kernel(NAMES[0]), 70, False)
    judge(m, mod.kernel(NAMES[0]), 5, False)


@program("flash.cu", since="sm_80", names=NAMES)
def causal(m: sim.Machine, mod: Any) -> None:
    judge(m, mod.kernel(NAMES[1]), 75, True)
    judge(m, mod.kernel(NAMES[1]), 1, True)

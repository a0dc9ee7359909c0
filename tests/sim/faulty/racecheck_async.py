"""Races around named barriers, barriers in shared memory and asynchronous copies."""

from __future__ import annotations

from typing import Any

import numpy as np
from sim.faulty.fault import IN_VAIN, expect, fault

from mlgpu import sim

SOURCE = "racecheck_async.cu"
X = np.arange(2048, dtype=np.float32)


@fault(SOURCE, since="sm_80")
def barrier_of_the_half(m: sim.Machine, mod: Any) -> None:
    x, y = X[:128], m.empty((2, 64), np.float32)
    mod.kernel("barrier_of_the_half").launch(1, 128, (m.array(x), y))
    squares = (x * x).reshape(2, 64)
    expect(y, squares[::-1] + [[0], [1]])


@fault(SOURCE, since="sm_80")
def no_empty_barrier(m: sim.Machine, mod: Any) -> None:
    x, sums = X[:160].reshape(5, 32), m.empty(32, np.float32)
    mod.kernel("no_empty_barrier").launch(1, 64, (m.array(x), sums, np.int32(5)))
    expect(sums, x.sum(0)[::-1])


@fault(SOURCE, since="sm_80")
def consumer_at_own_barrier(m: sim.Machine, mod: Any) -> None:
    x, y = X[:64], m.empty(64, np.float32)
    mod.kernel("consumer_at_own_barrier").launch(1, 128, (m.array(x), y))
    expect(y, 2 * x[::-1])


@fault(SOURCE, since="sm_80", tools=("racecheck", *IN_VAIN))
def parity_not_flipped(m: sim.Machine, mod: Any) -> None:
    x, sums = X[:160].reshape(5, 32), m.empty(32, np.float32)
    mod.kernel("parity_not_flipped").launch(1, 64, (m.array(x), sums, np.int32(5)))
    expect(sums, x.sum(0)[::-1])


@fault(SOURCE, since="sm_80")
def waited_for_own_copies(m: sim.Machine, mod: Any) -> None:
    x, y = X[:512].reshape(128, 4), m.empty((128, 4), np.float32)
    mod.kernel("waited_for_own_copies").launch(1, 128, (m.array(x), y))
    expect(y, x[::-1])


@fault(SOURCE, since="sm_80")
def prefetch_too_early(m: sim.Machine, mod: Any) -> None:
    x, y = X[:1280].reshape(5, 64, 4), m.empty((64, 4), np.float32)
    mod.kernel("prefetch_too_early").launch(1, 64, (m.array(x), y, np.int32(5)))
    expect(y, x.sum(0)[::-1])


@fault(SOURCE, since="sm_80")
def ldmatrix_too_early(m: sim.Machine, mod: Any) -> None:
    x, out = np.arange(512, dtype=np.uint16).reshape(64, 8), m.empty((2, 32, 4, 2), np.uint16)
    mod.kernel("ldmatrix_too_early").launch(1, 64, (m.array(x), out))
    matrices = x[::-1].reshape(2, 4, 8, 4, 2)  # warp, matrix, row, word, half
    expect(out, matrices.transpose(0, 2, 3, 1, 4))


@fault(SOURCE, since="sm_80")
def written_after_arrival(m: sim.Machine, mod: Any) -> None:
    x, y = X[:64], m.empty(64, np.float32)
    mod.kernel("written_after_arrival").launch(1, 64, (m.array(x), y))
    expect(y, x[::-1] + 3)

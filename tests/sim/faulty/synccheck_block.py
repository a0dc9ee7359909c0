"""Barriers that part of the threads reach."""

from __future__ import annotations

from typing import Any

import numpy as np
from sim.faulty.fault import IN_VAIN, expect, fault

from mlgpu import sim

SOURCE = "synccheck_block.cu"
X = np.arange(512, dtype=np.float32)


@fault(SOURCE)
def barrier_under_guard(m: sim.Machine, mod: Any) -> None:
    y = m.empty(128, np.float32)
    mod.kernel("barrier_under_guard").launch(1, 128, (m.array(X[:100] + 1), y, np.int32(100)))
    expect(y, np.concatenate([X[:100] + 1, np.zeros(28)])[::-1])


@fault(SOURCE)
def barrier_of_one_warp(m: sim.Machine, mod: Any) -> None:
    y = m.empty(128, np.float32)
    mod.kernel("barrier_of_one_warp").launch(1, 128, (m.array(X[:128]), y))
    expect(y, np.full(128, X[:128].sum()))


@fault(SOURCE)
def barrier_in_uneven_loop(m: sim.Machine, mod: Any) -> None:
    y = m.empty(64, np.float32)
    mod.kernel("barrier_in_uneven_loop").launch(1, 64, (m.array(X[:300] + 1), y, np.int32(300)))
    expect(y, np.full(64, (X[:300:64] + 1).sum()))


@fault(SOURCE)
def barrier_after_return(m: sim.Machine, mod: Any) -> None:
    y = m.empty(300, np.float32)
    mod.kernel("barrier_after_return").launch(3, 128, (m.array(X[:300]), y, np.int32(300)))
    expect(y, X[:300] % 128)


@fault(SOURCE)
def convergence_of_each_thread(m: sim.Machine, mod: Any) -> None:
    start, steps = np.arange(64, dtype=np.int32), m.empty(64, np.int32)
    mod.kernel("convergence_of_each_thread").launch(1, 64, (m.array(start), steps))
    expect(steps, [max(0, int(value).bit_length() - 1) for value in start])


@fault(SOURCE)
def vote_under_guard(m: sim.Machine, mod: Any) -> None:
    x = np.random.default_rng(0).integers(-9, 9, 100, np.int32)
    y = m.empty(100, np.int32)
    mod.kernel("vote_under_guard").launch(1, 128, (m.array(x), y, np.int32(100)))
    expect(y, np.full(100, (x > 0).sum()))


@fault(SOURCE)
def named_barrier_count(m: sim.Machine, mod: Any) -> None:
    y = m.empty(64, np.float32)
    mod.kernel("named_barrier_count").launch(1, 128, (m.array(X[:64]), y))
    expect(y, X[:64][::-1])


@fault(SOURCE)
def count_of_part_of_a_warp(m: sim.Machine, mod: Any) -> None:
    y = m.empty(50, np.float32)
    mod.kernel("count_of_part_of_a_warp").launch(1, 64, (m.array(X[:50]), y, np.int32(50)))
    expect(y, X[:50][::-1])


@fault(SOURCE)
def seventeenth_barrier(m: sim.Machine, mod: Any) -> None:
    y = m.empty((256, 2), np.float32)
    mod.kernel("seventeenth_barrier").launch(1, 512, (m.array(X), y))
    expect(y, X.reshape(256, 2)[:, ::-1])


@fault(SOURCE)
def barriers_in_other_order(m: sim.Machine, mod: Any) -> None:
    y = m.empty(128, np.float32)
    mod.kernel("barriers_in_other_order").launch(1, 128, (m.array(X[:128]), y))
    expect(y, np.tile(X[:64] + X[64:128], 2))


@fault(SOURCE, tools=IN_VAIN)
def grid_barrier_after_return(m: sim.Machine, mod: Any) -> None:
    x, y, sums = X[:100] + 1, m.empty(100, np.float32), m.zeros(1, np.float32)
    args = (m.array(x), sums, y, m.zeros(1, np.uint32), np.int32(100))
    mod.kernel("grid_barrier_after_return").launch(4, 64, args, cooperative=True)
    expect(y, x / x.sum(), rtol=1e-6)

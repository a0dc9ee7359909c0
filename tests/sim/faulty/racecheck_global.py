"""Races in global memory."""

from __future__ import annotations

from typing import Any

import numpy as np
from sim.faulty.fault import expect, fault

from mlgpu import sim

SOURCE = "racecheck_global.cu"
X = np.arange(512, dtype=np.float32)


@fault(SOURCE)
def two_blocks_one_output(m: sim.Machine, mod: Any) -> None:
    x, sums = X.reshape(16, 32), m.zeros(32, np.float32)
    args = (m.array(x), sums, np.int32(16), np.int32(32))
    mod.kernel("two_blocks_one_output").launch(4, 32, args)
    expect(sums, x.sum(0))


@fault(SOURCE)
def total_without_atomics(m: sim.Machine, mod: Any) -> None:
    x = np.random.default_rng(0).integers(-9, 9, 512, np.int32)
    total = m.zeros(1, np.int32)
    mod.kernel("total_without_atomics").launch(4, 128, (m.array(x), total))
    expect(total, [(x > 0).sum()])


@fault(SOURCE)
def global_histogram(m: sim.Machine, mod: Any) -> None:
    x, bins = np.random.default_rng(0).integers(0, 256, 2000, np.uint8), m.zeros(256, np.uint32)
    mod.kernel("global_histogram").launch(4, 128, (m.array(x), np.int32(2000), bins))
    expect(bins, np.bincount(x, minlength=256))


@fault(SOURCE)
def embedding_gradient(m: sim.Machine, mod: Any) -> None:
    ids, dy = np.array([4, 1, 4, 0, 3], np.int32), X[:160].reshape(5, 32)
    table = m.zeros((6, 32), np.float32)
    args = (m.array(ids), m.array(dy), table, np.int32(32))
    mod.kernel("embedding_gradient").launch(5, 32, args)
    expected = np.zeros((6, 32))
    np.add.at(expected, ids, dy)
    expect(table, expected)


@fault(SOURCE)
def smooth_in_place(m: sim.Machine, mod: Any) -> None:
    x, y = 3 * X * X, m.array(3 * X * X)
    mod.kernel("smooth_in_place").launch(4, 128, (m.array(x), y, np.int32(512)))
    expect(y, np.concatenate([x[:1], (x[:-2] + x[1:-1] + x[2:]) / 3, x[-1:]]), rtol=1e-6)


@fault(SOURCE)
def transpose_in_place(m: sim.Machine, mod: Any) -> None:
    x = np.arange(64 * 64, dtype=np.float32).reshape(64, 64)
    a = m.array(x)
    mod.kernel("transpose_in_place").launch((2, 64), 32, (a, np.int32(64)))
    expect(a, x.T)


@fault(SOURCE)
def no_grid_barrier(m: sim.Machine, mod: Any) -> None:
    squares, y = m.empty(512, np.float32), m.empty(512, np.float32)
    args = (m.array(X), squares, y, m.zeros(1, np.uint32))
    mod.kernel("no_grid_barrier").launch(4, 128, args, cooperative=True)
    expect(y, np.roll(X * X, -128) - X * X)


@fault(SOURCE)
def plain_read_beside_atomic(m: sim.Machine, mod: Any) -> None:
    x = np.random.default_rng(0).integers(0, 10_000, 512, np.int32)
    best = m.zeros(1, np.int32)
    mod.kernel("plain_read_beside_atomic").launch(4, 128, (m.array(x), best))
    expect(best, [x.max()])


@fault(SOURCE)
def counter_reset(m: sim.Machine, mod: Any) -> None:
    x = np.random.default_rng(0).integers(-9, 9, 512, np.int32)
    count = m.zeros(1, np.int32)
    mod.kernel("counter_reset").launch(4, 128, (m.array(x), count))
    expect(count, [(x > 0).sum()])

"""Races of one warp's lanes."""

from __future__ import annotations

from typing import Any

import numpy as np
from sim.faulty.fault import expect, fault

from mlgpu import sim

SOURCE = "racecheck_warp.cu"
X = np.arange(512, dtype=np.float32)


@fault(SOURCE)
def last_warp_in_step(m: sim.Machine, mod: Any) -> None:
    sums = m.empty(4, np.float32)
    mod.kernel("last_warp_in_step").launch(4, 128, (m.array(X), sums))
    expect(sums, X.reshape(4, 128).sum(1))


@fault(SOURCE)
def warp_tree(m: sim.Machine, mod: Any) -> None:
    sums = m.empty(4, np.float32)
    mod.kernel("warp_tree").launch(1, 128, (m.array(X[:128]), sums))
    expect(sums, X[:128].reshape(4, 32).sum(1))


@fault(SOURCE)
def lane_0_collects(m: sim.Machine, mod: Any) -> None:
    x, y = np.arange(32, dtype=np.int32), m.empty(1, np.int32)
    mod.kernel("lane_0_collects").launch(1, 32, (m.array(x), y))
    expect(y, [(x * x).sum()])


@fault(SOURCE)
def broadcast_without_shuffle(m: sim.Machine, mod: Any) -> None:
    x, y = 2 ** (X[:64] // 16), m.empty(64, np.float32)
    mod.kernel("broadcast_without_shuffle").launch(1, 64, (m.array(x), y))
    expect(y, x / np.repeat(x[::32], 32))


@fault(SOURCE)
def exchange_in_a_loop(m: sim.Machine, mod: Any) -> None:
    x, y = np.arange(32, dtype=np.int32), m.empty(32, np.int32)
    mod.kernel("exchange_in_a_loop").launch(1, 32, (m.array(x), y, np.int32(5)))
    value = x
    for _ in range(5):
        value = value + np.roll(value, -1)
    expect(y, value)


@fault(SOURCE)
def syncwarp_of_half(m: sim.Machine, mod: Any) -> None:
    x, y = np.arange(32, dtype=np.int32), m.empty(32, np.int32)
    mod.kernel("syncwarp_of_half").launch(1, 32, (m.array(x), y))
    expect(y, x[::-1] + 1)

"""Strong accesses whose scope is too small for those that they meet."""

from __future__ import annotations

from typing import Any

import numpy as np
from sim.faulty.fault import expect, fault
from sim.faulty.racecheck_flags import hand_over

from mlgpu import sim

SOURCE = "racecheck_scopes.cu"


@fault(SOURCE)
def block_acquires(m: sim.Machine, mod: Any) -> None:
    x, sums = np.arange(80, dtype=np.int32), m.empty(5, np.int32)
    args = (m.array(x), sums, m.zeros(5, np.uint32))
    mod.kernel("block_acquires").launch(5, 1, args, cooperative=True)
    expect(sums, x.reshape(5, 16).sum(1).cumsum())


@fault(SOURCE)
def block_merges(m: sim.Machine, mod: Any) -> None:
    x = np.random.default_rng(0).integers(0, 256, 1000, dtype=np.uint8)
    bins = m.zeros(32, np.uint32)
    mod.kernel("block_merges").launch(4, 64, (m.array(x), np.int32(1000), bins))
    expect(bins, np.bincount(x // 8, minlength=32))


@fault(SOURCE)
def two_scopes(m: sim.Machine, mod: Any) -> None:
    x, total = np.arange(256, dtype=np.int32), m.zeros(1, np.int32)
    mod.kernel("two_scopes").launch(4, 64, (m.array(x), total))
    expect(total, [x.sum()])


@fault(SOURCE)
def fence_of_the_reader(m: sim.Machine, mod: Any) -> None:
    hand_over(m, mod, "fence_of_the_reader", 64)


@fault(SOURCE, since="sm_90")
def barrier_unfenced(m: sim.Machine, mod: Any) -> None:
    x, y = np.arange(256, dtype=np.float32), m.empty(256, np.float32)
    mod.kernel("barrier_unfenced").launch(2, 128, (m.array(x), y))
    expect(y, x.reshape(2, 128)[:, ::-1])

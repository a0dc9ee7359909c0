"""Cooperative groups that are not whole."""

from __future__ import annotations

from typing import Any

import numpy as np
from sim.faulty.fault import IN_VAIN, expect, fault

from mlgpu import sim

SOURCE = "synccheck_groups.cu"
NEEDED = ("nv/target",)
X = np.arange(1, 129, dtype=np.float32)


@fault(SOURCE, headers=NEEDED, tools=IN_VAIN)
def grid_sync_in_part(m: sim.Machine, mod: Any) -> None:
    x, y, sums = X[:100], m.empty(100, np.float32), m.zeros(1, np.float32)
    args = (m.array(x), sums, y, np.int32(100))
    mod.kernel("grid_sync_in_part").launch(4, 64, args, cooperative=True)
    expect(y, x / x.sum(), rtol=1e-6)


@fault(SOURCE, headers=NEEDED)
def block_sync_in_tile(m: sim.Machine, mod: Any) -> None:
    y = m.empty(128, np.float32)
    mod.kernel("block_sync_in_tile").launch(1, 128, (m.array(X), y))
    expect(y, np.full(128, X.sum()))


@fault(SOURCE, headers=NEEDED)
def tile_shuffle_in_branch(m: sim.Machine, mod: Any) -> None:
    x = np.random.default_rng(0).integers(-9, 9, 64, np.int32)
    y = m.empty(64, np.int32)
    mod.kernel("tile_shuffle_in_branch").launch(1, 64, (m.array(x), y))
    expect(y, np.where(x > 0, x + np.repeat(x[::16], 16), x))

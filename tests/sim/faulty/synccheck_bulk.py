"""Bulk copies that are not waited for, or are waited for in vain."""

from __future__ import annotations

from typing import Any

import numpy as np
from sim.faulty.fault import IN_VAIN, expect, fault

from mlgpu import sim

SOURCE = "synccheck_bulk.cu"
X = np.arange(640, dtype=np.float32)


@fault(SOURCE, since="sm_90")
def bulk_load_without_wait(m: sim.Machine, mod: Any) -> None:
    y = m.empty(128, np.float32)
    mod.kernel("bulk_load_without_wait").launch(1, 128, (m.array(X[:128]), y))
    expect(y, X[:128] + 1)


@fault(SOURCE, since="sm_90", tools=IN_VAIN)
def more_bytes_announced(m: sim.Machine, mod: Any) -> None:
    y = m.empty(128, np.float32)
    mod.kernel("more_bytes_announced").launch(1, 128, (m.array(X[:128]), y))
    expect(y, X[:128] + 1)


@fault(SOURCE, since="sm_90")
def tile_under_way_rewritten(m: sim.Machine, mod: Any) -> None:
    y = m.empty(640, np.float32)
    mod.kernel("tile_under_way_rewritten").launch(1, 128, (m.array(X), y, np.int32(5)))
    expect(y, 2 * X)


@fault(SOURCE, since="sm_90")
def one_store_too_many(m: sim.Machine, mod: Any) -> None:
    y = m.empty(640, np.float32)
    mod.kernel("one_store_too_many").launch(1, 128, (m.array(X), y, np.int32(5)))
    expect(y, X - 1)

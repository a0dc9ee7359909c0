"""Bulk copies of a wrong size or from a wrong place."""

from __future__ import annotations

from typing import Any

import numpy as np
from sim.faulty.fault import expect, fault

from mlgpu import sim

SOURCE = "memcheck_bulk.cu"
X = np.arange(1000, dtype=np.float32)


@fault(SOURCE, since="sm_90")
def bulk_tail(m: sim.Machine, mod: Any) -> None:
    y = m.empty(1000, np.float32)
    mod.kernel("bulk_tail").launch(8, 128, (m.array(X), y, np.int32(1000)))
    expect(y, 2 * X)


@fault(SOURCE, since="sm_90")
def bulk_past_the_tile(m: sim.Machine, mod: Any) -> None:
    y = m.empty(128, np.float32)
    mod.kernel("bulk_past_the_tile").launch(1, 128, (m.array(X[:128]), y))
    expect(y, X[:128] % 64 + 1)


@fault(SOURCE, since="sm_90")
def bulk_misaligned(m: sim.Machine, mod: Any) -> None:
    y = m.empty(128, np.float32)
    mod.kernel("bulk_misaligned").launch(1, 128, (m.array(X), y, np.int32(50)))
    expect(y, X[50:178] + 1)


@fault(SOURCE, since="sm_90")
def bulk_store_tail(m: sim.Machine, mod: Any) -> None:
    y = m.empty(1000, np.float32)
    mod.kernel("bulk_store_tail").launch(8, 128, (m.array(X), y, np.int32(1000)))
    expect(y, 3 * X)

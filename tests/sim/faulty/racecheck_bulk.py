"""Races between threads and the engine that does bulk copies."""

from __future__ import annotations

from typing import Any

import numpy as np
from sim.faulty.fault import expect, fault

from mlgpu import sim

SOURCE = "racecheck_bulk.cu"
X = np.arange(640, dtype=np.float32)


@fault(SOURCE, since="sm_90")
def no_proxy_fence(m: sim.Machine, mod: Any) -> None:
    y = m.empty(256, np.float32)
    mod.kernel("no_proxy_fence").launch(2, 128, (m.array(X[:256]), y))
    expect(y, 2 * X[:256])


@fault(SOURCE, since="sm_90")
def bulk_store_too_early(m: sim.Machine, mod: Any) -> None:
    y = m.empty(256, np.float32)
    mod.kernel("bulk_store_too_early").launch(2, 128, (m.array(X[:256]), y))
    expect(y, 2 * X[:256])


@fault(SOURCE, since="sm_90")
def bulk_load_too_early(m: sim.Machine, mod: Any) -> None:
    y = m.empty(128, np.float32)
    mod.kernel("bulk_load_too_early").launch(1, 128, (m.array(X), y, np.int32(5)))
    expect(y, X.reshape(5, 128).sum(0)[::-1])

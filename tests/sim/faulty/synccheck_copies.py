"""Memory that asynchronous copies still read or write is used by their own thread."""

from __future__ import annotations

from typing import Any

import numpy as np
from sim.faulty.fault import expect, fault

from mlgpu import sim

SOURCE = "synccheck_copies.cu"
X = np.arange(320, dtype=np.float32)


@fault(SOURCE, since="sm_90")
def block_ends_too_early(m: sim.Machine, mod: Any) -> None:
    y = m.empty(256, np.float32)
    mod.kernel("block_ends_too_early").launch(2, 128, (m.array(X[:256]), y))
    expect(y, 2 * X[:256].reshape(2, 128)[:, ::-1])


@fault(SOURCE, since="sm_90")
def arrival_alone(m: sim.Machine, mod: Any) -> None:
    y = m.empty(64, np.float32)
    mod.kernel("arrival_alone").launch(1, 64, (m.array(X), y, np.int32(5)))
    expect(y, X.reshape(5, 64).sum(0))


@fault(SOURCE, since="sm_90")
def copied_over_defaults(m: sim.Machine, mod: Any) -> None:
    x, y = X[:256].reshape(64, 4), m.empty((64, 4), np.float32)
    given = np.arange(64, dtype=np.int32) % 3
    args = (m.array(-x), m.array(given), m.array(x), y)
    mod.kernel("copied_over_defaults").launch(1, 64, args)
    expect(y, np.where(given[:, None] > 0, x, -x)[::-1])


@fault(SOURCE, since="sm_90")
def tail_under_copy(m: sim.Machine, mod: Any) -> None:
    x, sums = X[:150] + 1, m.empty(3, np.float32)
    mod.kernel("tail_under_copy").launch(3, 64, (m.array(x), sums, np.int32(150)))
    expect(sums, [x[:64].sum(), x[64:128].sum(), x[128:].sum()])


@fault(SOURCE, since="sm_90")
def stages_touch(m: sim.Machine, mod: Any) -> None:
    x, y = X[:256].reshape(2, 128), m.empty(128, np.float32)
    mod.kernel("stages_touch").launch(1, 128, (m.array(x), y))
    expect(y, x.sum(0)[::-1])


@fault(SOURCE, since="sm_90")
def record_reused(m: sim.Machine, mod: Any) -> None:
    x = np.random.default_rng(0).integers(-99, 99, (10, 32)).astype(np.float32)
    log = m.empty((10, 32, 4), np.float32)
    mod.kernel("record_reused").launch(1, 32, (m.array(x), log, np.int32(10)))
    low, high = np.minimum.accumulate(x), np.maximum.accumulate(x)
    expect(log, np.stack([low, high, x.cumsum(0), x], axis=-1))


@fault(SOURCE, since="sm_90")
def diagonal_under_store(m: sim.Machine, mod: Any) -> None:
    x, y = X[:64] + 2, m.empty((64, 64), np.float32)
    mod.kernel("diagonal_under_store").launch(64, 64, (m.array(x), y))
    wanted = np.outer(x, x)
    np.fill_diagonal(wanted, 1)
    expect(y, wanted)


@fault(SOURCE, since="sm_90")
def result_not_arrived(m: sim.Machine, mod: Any) -> None:
    x, scratch, y = X[:256], m.empty(256, np.float32), m.empty(256, np.float32)
    mod.kernel("result_not_arrived").launch(2, 128, (m.array(x), scratch, y))
    expect(y, x.reshape(2, 128)[:, ::-1] + 1)

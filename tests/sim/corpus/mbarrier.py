"""Barrier objects in shared memory: phases, counts, producers and consumers."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.testing import assert_allclose, assert_array_equal
from sim.corpus.program import program

from mlgpu import sim


@program("mbarrier.cu", since="sm_80")
def scan_by_phases(m: sim.Machine, mod: Any) -> None:
    x = np.random.default_rng(0).integers(-99, 99, 300, np.int32)
    y = m.empty(300, np.int32)
    mod.kernel("scan_by_phases").launch(3, 128, (m.array(x), y, np.int32(300)))
    assert_array_equal(y.numpy(), np.concatenate([np.cumsum(x[i:i + 128]) for i in (0, 128, 256)]))


@program("mbarrier.cu", since="sm_80")
def split_arrive_and_wait(m: sim.Machine, mod: Any) -> None:
    x = np.random.default_rng(1).standard_normal(150, np.float32)
    y = m.empty(150, np.float32)
    mod.kernel("neighbours").launch(2, 96, (m.array(x), y, np.int32(150)))
    rows = np.pad(x, (0, 42)).reshape(2, 96).astype(np.float64)
    exact = np.sqrt(np.abs(rows)) + np.roll(rows, 1, 1) + np.roll(rows, -1, 1)
    assert_allclose(y.numpy(), exact.ravel()[:150], rtol=1e-6, atol=1e-6)


@program("mbarrier.cu", since="sm_80")
def producers_and_consumers(m: sim.Machine, mod: Any) -> None:
    x = np.random.default_rng(2).standard_normal((2, 7, 64), np.float32)
    sums = m.empty((2, 64), np.float32)
    mod.kernel("specialised").launch(2, 128, (m.array(x), sums, np.int32(7)))
    exact = (x.astype(np.float64) * x[:, :, ::-1]).sum(1)
    assert_allclose(sums.numpy(), exact, rtol=1e-5, atol=1e-6)


@program("mbarrier.cu", since="sm_80")
def dropping_out(m: sim.Machine, mod: Any) -> None:
    rounds = np.random.default_rng(3).integers(0, 5, 50, np.int32)
    rounds[0] = 4
    last = m.empty(50, np.int32)
    mod.kernel("dropping_out").launch(1, 64, (m.array(rounds), last, np.int32(50)))
    arrived = np.cumsum([(rounds > r).sum() for r in range(5)])
    exact = np.where(rounds > 0, arrived[rounds - 1], 0)
    assert_array_equal(last.numpy(), exact)


@program("mbarrier.cu", since="sm_80")
def pending_counts(m: sim.Machine, mod: Any) -> None:
    counts = m.empty(4, np.uint32)
    mod.kernel("pending").launch(1, 32, (counts,))
    # The state is that before the arrival: 7, then 1 and 2 less.
    assert_array_equal(counts.numpy(), [7, 6, 4, 5])

"""Loops that never end."""

from __future__ import annotations

from typing import Any

import numpy as np
from sim.faulty.fault import expect, fault

from mlgpu import sim

SOURCE = "watchdog.cu"


@fault(SOURCE)
def index_not_advanced(m: sim.Machine, mod: Any) -> None:
    x = np.where(np.arange(100) % 7 == 3, -1, np.arange(100)).astype(np.float32)
    y = m.empty(100, np.float32)
    mod.kernel("index_not_advanced").launch(1, 32, (m.array(x), y, np.int32(100)))
    expect(y, np.maximum(x, 0))


@fault(SOURCE)
def unsigned_countdown(m: sim.Machine, mod: Any) -> None:
    x = np.random.default_rng(0).integers(0, 2**32, 32, np.uint32)
    bits = m.empty((32, 32), np.uint8)
    mod.kernel("unsigned_countdown").launch(1, 32, (m.array(x), bits))
    expect(bits, x[:, None] >> np.arange(32) & 1)


@fault(SOURCE)
def flag_never_set(m: sim.Machine, mod: Any) -> None:
    flags, y = m.zeros(2, np.int32), m.empty(2, np.float32)
    mod.kernel("flag_never_set").launch(2, 1, (flags, y), cooperative=True)
    expect(y, [1, 2])


@fault(SOURCE)
def lock_not_given_back(m: sim.Machine, mod: Any) -> None:
    x = np.random.default_rng(0).integers(-99, 99, 32, np.int32)
    lock, most = m.zeros(1, np.int32), m.array(np.array([-100], np.int32))
    mod.kernel("lock_not_given_back").launch(1, 32, (lock, most, m.array(x)))
    expect(most, [x.max()])


@fault(SOURCE)
def full_hash_table(m: sim.Machine, mod: Any) -> None:
    keys, dropped = np.arange(5, 25, dtype=np.int32) * 3, m.zeros(1, np.int32)
    table = m.array(np.full(16, -1, np.int32))
    args = (m.array(keys), table, np.int32(16), dropped)
    mod.kernel("full_hash_table").launch(1, 20, args)
    expect(dropped, [4])
    expect(np.isin(table.numpy(), keys), np.full(16, True))


@fault(SOURCE)
def search_by_halving(m: sim.Machine, mod: Any) -> None:
    values = np.arange(0, 90, 3, dtype=np.int32)
    wanted, at = np.arange(32, dtype=np.int32) * 3 - 1, m.empty(32, np.int32)
    args = (m.array(values), np.int32(30), m.array(wanted), at)
    mod.kernel("search_by_halving").launch(1, 32, args)
    expect(at, np.searchsorted(values, wanted))


@fault(SOURCE)
def list_became_a_ring(m: sim.Machine, mod: Any) -> None:
    following, length = np.array([3, -2, 1, 2, -2], np.int32), m.empty(1, np.int32)
    following[1] = -1  # 0 -> 3 -> 2 -> 1; place 4 is in use
    mod.kernel("list_became_a_ring").launch(1, 1, (m.array(following), np.int32(2), length))
    expect(length, [3])

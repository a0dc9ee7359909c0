"""Races between blocks that go by flags, locks and tickets."""

from __future__ import annotations

from typing import Any

import numpy as np
from sim.faulty.fault import expect, fault

from mlgpu import sim

SOURCE = "racecheck_flags.cu"
X = np.arange(512, dtype=np.float32)


@fault(SOURCE)
def last_block_without_fence(m: sim.Machine, mod: Any) -> None:
    partial, done, total = m.empty(8, np.float32), m.zeros(1, np.uint32), m.empty(1, np.float32)
    mod.kernel("last_block_without_fence").launch(8, 32, (m.array(X), partial, done, total))
    expect(total, [X.sum()])
    expect(done, [0])


def hand_over(m: sim.Machine, mod: Any, kernel: str, threads: int) -> None:
    """Two blocks: the first doubles the values and sets flags, the second adds one."""
    x, y = X[:threads], m.empty(threads, np.float32)
    data, flags = m.empty(threads, np.float32), m.zeros(threads, np.int32)
    mod.kernel(kernel).launch(2, threads, (m.array(x), data, flags, y), cooperative=True)
    expect(y, 2 * x + 1)


@fault(SOURCE)
def flag_without_fence(m: sim.Machine, mod: Any) -> None:
    hand_over(m, mod, "flag_without_fence", 128)


@fault(SOURCE)
def fence_after_flag(m: sim.Machine, mod: Any) -> None:
    hand_over(m, mod, "fence_after_flag", 64)


@fault(SOURCE)
def fence_of_the_block(m: sim.Machine, mod: Any) -> None:
    hand_over(m, mod, "fence_of_the_block", 64)


@fault(SOURCE)
def published_too_early(m: sim.Machine, mod: Any) -> None:
    hand_over(m, mod, "published_too_early", 128)


@fault(SOURCE)
def published_by_lane_0(m: sim.Machine, mod: Any) -> None:
    hand_over(m, mod, "published_by_lane_0", 32)


@fault(SOURCE)
def waited_for_alone(m: sim.Machine, mod: Any) -> None:
    hand_over(m, mod, "waited_for_alone", 128)


@fault(SOURCE)
def lock_without_fences(m: sim.Machine, mod: Any) -> None:
    lock, data = m.zeros(1, np.int32), m.zeros(2, np.int32)
    mod.kernel("lock_without_fences").launch(4, 32, (lock, data, np.int32(3)), cooperative=True)
    expect(data, [12, 78])


@fault(SOURCE)
def unlocked_too_early(m: sim.Machine, mod: Any) -> None:
    lock, data = m.zeros(1, np.int32), m.zeros(1, np.int32)
    mod.kernel("unlocked_too_early").launch(4, 32, (lock, data, np.int32(3)), cooperative=True)
    expect(data, [12])


@fault(SOURCE)
def unlocked_by_plain_store(m: sim.Machine, mod: Any) -> None:
    lock, data = m.zeros(1, np.int32), m.zeros(1, np.int32)
    mod.kernel("unlocked_by_plain_store").launch(4, 32, (lock, data, np.int32(3)),
                                                 cooperative=True)
    expect(data, [12])


@fault(SOURCE)
def look_back_without_fence(m: sim.Machine, mod: Any) -> None:
    x, y = np.arange(3, 163, dtype=np.int32), m.empty(160, np.int32)
    sums, state = m.empty(5, np.int32), m.zeros(5, np.int32)
    mod.kernel("look_back_without_fence").launch(5, 32, (m.array(x), sums, state, y))
    expect(y, x.cumsum())


@fault(SOURCE)
def queue_before_item(m: sim.Machine, mod: Any) -> None:
    x, y = np.arange(32, dtype=np.int32), m.empty(32, np.int32)
    items, taken, ready = m.empty(32, np.int32), m.zeros(1, np.int32), m.zeros(32, np.int32)
    args = (m.array(x), items, taken, ready, y)
    mod.kernel("queue_before_item").launch(2, 32, args, cooperative=True)
    expect(np.sort(y.numpy()), x + 100)


@fault(SOURCE)
def grid_barrier_without_fence(m: sim.Machine, mod: Any) -> None:
    data, y = m.empty(512, np.float32), m.empty(512, np.float32)
    args = (m.array(X), data, m.zeros(1, np.uint32), y)
    mod.kernel("grid_barrier_without_fence").launch(4, 128, args, cooperative=True)
    expect(y, 3 * X[::-1])


@fault(SOURCE)
def flag_is_relaxed(m: sim.Machine, mod: Any) -> None:
    x, y = np.arange(64, dtype=np.int32), m.empty(64, np.int32)
    data, flags = m.empty(64, np.int32), m.zeros(64, np.int32)
    args = (m.array(x), data, flags, y)
    mod.kernel("flag_is_relaxed").launch(2, 64, args, cooperative=True)
    expect(y, 5 * x)


@fault(SOURCE)
def barrier_for_fence(m: sim.Machine, mod: Any) -> None:
    hand_over(m, mod, "barrier_for_fence", 96)


@fault(SOURCE)
def ticket_for_fence(m: sim.Machine, mod: Any) -> None:
    partial, ticket, y = m.empty(64, np.float32), m.zeros(1, np.uint32), m.empty(64, np.float32)
    mod.kernel("ticket_for_fence").launch(32, 64, (m.array(X), partial, ticket, y))
    expect(y, 3 * X[:64])

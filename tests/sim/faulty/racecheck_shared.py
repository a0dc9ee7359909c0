"""Races of a block's threads in shared memory."""

from __future__ import annotations

from typing import Any

import numpy as np
from sim.faulty.fault import expect, fault

from mlgpu import sim

SOURCE = "racecheck_shared.cu"
X = np.arange(1024, dtype=np.float32)


@fault(SOURCE)
def no_barrier_after_load(m: sim.Machine, mod: Any) -> None:
    y = m.empty((4, 128), np.float32)
    mod.kernel("no_barrier_after_load").launch(4, 128, (m.array(X[:512]), y))
    expect(y, X[:512].reshape(4, 128)[:, ::-1])


@fault(SOURCE)
def no_barrier_before_reuse(m: sim.Machine, mod: Any) -> None:
    a, b = np.random.default_rng(0).integers(-8, 9, (2, 48, 48)).astype(np.float32)
    c = m.empty((48, 48), np.float32)
    args = (m.array(a), m.array(b), c, np.int32(48))
    mod.kernel("no_barrier_before_reuse").launch((3, 3), (16, 16), args)
    expect(c, a @ b)


@fault(SOURCE)
def reduction_without_barriers(m: sim.Machine, mod: Any) -> None:
    sums = m.empty(4, np.float32)
    mod.kernel("reduction_without_barriers").launch(4, 256, (m.array(X), sums))
    expect(sums, X.reshape(4, 256).sum(1))


@fault(SOURCE)
def scan_in_place(m: sim.Machine, mod: Any) -> None:
    x, y = np.arange(5, 133, dtype=np.int32), m.empty(128, np.int32)
    mod.kernel("scan_in_place").launch(1, 128, (m.array(x), y))
    expect(y, x.cumsum())


@fault(SOURCE)
def shared_histogram(m: sim.Machine, mod: Any) -> None:
    x, counts = np.random.default_rng(0).integers(0, 64, 1000, np.uint8), m.empty(64, np.uint32)
    mod.kernel("shared_histogram").launch(1, 128, (m.array(x), np.int32(1000), counts))
    expect(counts, np.bincount(x, minlength=64))


@fault(SOURCE)
def compaction_counter(m: sim.Machine, mod: Any) -> None:
    x = np.random.default_rng(0).integers(-50, 50, 128, np.int32)
    y, kept = m.zeros(128, np.int32), m.empty(1, np.int32)
    mod.kernel("compaction_counter").launch(1, 128, (m.array(x), y, kept))
    expect(kept, [(x > 0).sum()])
    expect(np.sort(y.numpy()[:(x > 0).sum()]), np.sort(x[x > 0]))


@fault(SOURCE)
def broadcast_overwritten(m: sim.Machine, mod: Any) -> None:
    x = np.random.default_rng(0).integers(-99, 99, (5, 64)).astype(np.float32)
    y = m.empty((5, 64), np.float32)
    mod.kernel("broadcast_overwritten").launch(1, 64, (m.array(x), y, np.int32(5)))
    expect(y, x - x.max(1, keepdims=True))


@fault(SOURCE)
def double_buffer_index(m: sim.Machine, mod: Any) -> None:
    x, y = X[:768].reshape(6, 128), m.empty(128, np.float32)
    mod.kernel("double_buffer_index").launch(1, 128, (m.array(x), y, np.int32(6)))
    expect(y, x.sum(0)[::-1])


@fault(SOURCE)
def warp_sums_too_early(m: sim.Machine, mod: Any) -> None:
    sums = m.empty(4, np.float32)
    mod.kernel("warp_sums_too_early").launch(4, 256, (m.array(X), sums))
    expect(sums, X.reshape(4, 256).sum(1))


@fault(SOURCE)
def scratch_used_twice(m: sim.Machine, mod: Any) -> None:
    x = np.random.default_rng(0).standard_normal((3, 128), np.float32)
    y = m.empty((3, 128), np.float32)
    mod.kernel("scratch_used_twice").launch(3, 128, (m.array(x), y))
    expect(y, (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 1e-5), rtol=1e-5)


@fault(SOURCE)
def overlapping_arrays(m: sim.Machine, mod: Any) -> None:
    x, w = np.random.default_rng(0).integers(-8, 9, (2, 128)).astype(np.float32)
    y = m.empty(128, np.float32)
    args = (m.array(x), m.array(w), y)
    mod.kernel("overlapping_arrays").launch(1, 128, args, shared_mem=1024)
    expect(y, [x @ np.roll(w, -t) for t in range(128)])


@fault(SOURCE)
def stencil_in_place(m: sim.Machine, mod: Any) -> None:
    x, y = X[:128] * 1024, m.empty(128, np.float32)
    mod.kernel("stencil_in_place").launch(1, 128, (m.array(x), y, np.int32(3)))
    u = x
    for _ in range(3):
        u = np.convolve(u, [0.25, 0.5, 0.25], "same")
    expect(y, u)


@fault(SOURCE)
def ticket_of_the_block(m: sim.Machine, mod: Any) -> None:
    x, following = m.zeros((9, 64), np.float32), m.zeros(1, np.int32)
    mod.kernel("ticket_of_the_block").launch(2, 64, (following, x, np.int32(9)))
    expect(x, np.repeat(np.arange(9), 64))

"""Overruns of shared and local memory."""

from __future__ import annotations

from typing import Any

import numpy as np
from sim.faulty.fault import expect, fault

from mlgpu import sim

SOURCE = "memcheck_shared.cu"
X = np.arange(1000, dtype=np.float32)


@fault(SOURCE)
def shared_one_past(m: sim.Machine, mod: Any) -> None:
    x, y = X[:128], m.empty(128, np.float32)
    mod.kernel("shared_one_past").launch(1, 128, (m.array(x), y))
    expect(y, x + np.concatenate([[0], x[:-1]]))


@fault(SOURCE)
def dynamic_too_small(m: sim.Machine, mod: Any) -> None:
    x, y = X[:512].reshape(4, 128), m.empty(4, np.float32)
    mod.kernel("dynamic_too_small").launch(4, 128, (m.array(x), y), shared_mem=16)
    expect(y, x.sum(1))


@fault(SOURCE)
def histogram_of_bytes(m: sim.Machine, mod: Any) -> None:
    x, counts = np.random.default_rng(0).integers(0, 256, 1000, np.uint8), m.empty(256, np.uint32)
    mod.kernel("histogram_of_bytes").launch(1, 128, (m.array(x), np.int32(1000), counts))
    expect(counts, np.bincount(x, minlength=256))


@fault(SOURCE)
def tile_without_room(m: sim.Machine, mod: Any) -> None:
    x, y = X[:324].reshape(18, 18), m.empty((16, 16), np.float32)
    mod.kernel("tile_without_room").launch(1, (18, 18), (m.array(x), y))
    expect(y, x[:-2, 1:-1] + x[2:, 1:-1] + x[1:-1, :-2] + x[1:-1, 2:])


@fault(SOURCE)
def stack_overrun(m: sim.Machine, mod: Any) -> None:
    # Nodes 0 to 6 are leaves; a chain goes down from 7, each of its nodes with a leaf that waits.
    children = np.full((31, 2), -1, np.int32)
    children[7:19, 0] = np.arange(19, 31)
    children[7:18, 1] = np.arange(8, 19)
    value, sums = np.arange(31, dtype=np.int32), m.empty(8, np.int32)
    mod.kernel("stack_overrun").launch(1, 8, (m.array(children), m.array(value), sums))
    expect(sums, [0, 1, 2, 3, 4, 5, 6, value[7:].sum()])


@fault(SOURCE)
def top_k_overrun(m: sim.Machine, mod: Any) -> None:
    x = np.random.default_rng(0).permuted(np.tile(X[:20], (32, 1)), axis=1)
    best = m.empty((32, 4), np.float32)
    mod.kernel("top_k_overrun").launch(1, 32, (m.array(x), np.int32(20), best, np.int32(4)))
    expect(best, np.sort(x)[:, :4])


@fault(SOURCE)
def shared_double_misaligned(m: sim.Machine, mod: Any) -> None:
    sums = m.empty(64, np.float64)
    args = (m.array(X[:33]), sums, np.int32(33))
    mod.kernel("shared_double_misaligned").launch(1, 64, args, shared_mem=34 * 4 + 64 * 8)
    expect(sums, np.arange(64) % 33 + 1)

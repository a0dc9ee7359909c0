"""Memory that is read before anything was written to it."""

from __future__ import annotations

from typing import Any

import numpy as np
from sim.faulty.fault import expect, fault

from mlgpu import sim

SOURCE = "initcheck.cu"
X = np.arange(1000, dtype=np.float32)


@fault(SOURCE)
def gradient_not_zeroed(m: sim.Machine, mod: Any) -> None:
    grad = m.empty(1000, np.float32)
    mod.kernel("gradient_not_zeroed").launch(4, 256, (m.array(X), grad, np.int32(1000)))
    expect(grad, X)


@fault(SOURCE)
def beta_of_zero(m: sim.Machine, mod: Any) -> None:
    a, x, y = X[:640].reshape(32, 20), X[:20], m.empty(32, np.float32)
    args = (m.array(a), m.array(x), y, np.int32(20), np.float32(2), np.float32(0))
    mod.kernel("beta_of_zero").launch(1, 32, args)
    expect(y, 2 * (a @ x))


@fault(SOURCE)
def tile_partly_filled(m: sim.Machine, mod: Any) -> None:
    x, sums = X[:600].reshape(20, 30), m.zeros(20, np.float32)
    args = (m.array(x), sums, np.int32(20), np.int32(30))
    mod.kernel("tile_partly_filled").launch((2, 2), (16, 16), args)
    expect(sums, x.sum(1))


@fault(SOURCE)
def halo_not_loaded(m: sim.Machine, mod: Any) -> None:
    y = m.empty(1000, np.float32)
    mod.kernel("halo_not_loaded").launch(8, 128, (m.array(X), y, np.int32(1000)))
    expect(y, np.convolve(X, [1, 1, 1], "same"))


@fault(SOURCE)
def counter_not_zeroed(m: sim.Machine, mod: Any) -> None:
    x = np.random.default_rng(0).integers(-9, 9, 128, np.int32)
    count, copy = m.empty(1, np.int32), m.empty(1, np.int32)
    mod.kernel("counter_not_zeroed").launch(1, 128, (m.array(x), count, copy))
    expect(copy, [(x > 0).sum()])


@fault(SOURCE)
def padding_not_filled(m: sim.Machine, mod: Any) -> None:
    x = X[:250].reshape(5, 50)
    padded, sums = m.empty((5, 64), np.float32), m.empty(5, np.float32)
    mod.kernel("pad_rows").launch(5, 64, (m.array(x), padded, np.int32(50)))
    mod.kernel("padding_not_filled").launch(5, 32, (padded, sums, np.int32(64)))
    expect(sums, x.sum(1))


@fault(SOURCE)
def tail_of_the_workspace(m: sim.Machine, mod: Any) -> None:
    workspace, y = m.empty(8, np.float32), m.empty(1, np.float32)
    mod.kernel("leave_partial_sums").launch(8, 1, (m.array(X[:300]), workspace, np.int32(300)))
    mod.kernel("tail_of_the_workspace").launch(1, 1, (workspace, np.int32(8), y))
    expect(y, [X[:300].sum()])


@fault(SOURCE)
def bins_not_zeroed(m: sim.Machine, mod: Any) -> None:
    x, counts = np.random.default_rng(0).integers(0, 256, 1000, np.uint8), m.empty(256, np.uint32)
    mod.kernel("bins_not_zeroed").launch(1, 128, (m.array(x), np.int32(1000), counts))
    expect(counts, np.bincount(x, minlength=256))


@fault(SOURCE)
def tree_of_too_few(m: sim.Machine, mod: Any) -> None:
    y = m.empty(1, np.float32)
    mod.kernel("tree_of_too_few").launch(1, 192, (m.array(X[:192]), y))
    expect(y, [X[:192].sum()])


@fault(SOURCE)
def fourth_coordinate(m: sim.Machine, mod: Any) -> None:
    x = X[:96].reshape(32, 3)
    points, lengths = m.empty((32, 4), np.float32), m.empty(32, np.float32)
    mod.kernel("store_points").launch(1, 32, (m.array(x), points))
    mod.kernel("fourth_coordinate").launch(1, 32, (points, lengths))
    expect(lengths, np.sqrt((x.astype(np.float64) ** 2).sum(1)), rtol=1e-6)


@fault(SOURCE)
def misses_not_marked(m: sim.Machine, mod: Any) -> None:
    x, hit = m.array(X), m.empty(1000, np.uint8)
    mod.kernel("mark_hits").launch(8, 125, (x, hit, np.float32(300)))
    mod.kernel("misses_not_marked").launch(8, 125, (hit, x))
    expect(x, np.where(X > 300, 0, X))


@fault(SOURCE)
def dynamic_tail(m: sim.Machine, mod: Any) -> None:
    x, w, y = X[:30], X[:64], m.empty(64, np.float32)
    args = (m.array(x), m.array(w), y, np.int32(30))
    mod.kernel("dynamic_tail").launch(1, 64, args, shared_mem=128)
    expect(y, x.sum() * w)


@fault(SOURCE)
def flags_not_cleared(m: sim.Machine, mod: Any) -> None:
    x, y = X[1:5], m.empty(4, np.float32)
    mod.kernel("flags_not_cleared").launch(1, 128, (m.array(x), y))
    expect(y, np.cumsum(x))


@fault(SOURCE)
def stored_behind_the_ticket(m: sim.Machine, mod: Any) -> None:
    partial, ticket, total = m.empty(16, np.float32), m.zeros(1, np.uint32), m.empty(1, np.float32)
    mod.kernel("stored_behind_the_ticket").launch(16, 32, (m.array(X), partial, ticket, total))
    expect(total, [2 * X[:16].sum()])

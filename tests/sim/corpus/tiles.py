"""Cooperative groups: tiles, coalesced and labelled groups, the grid."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.testing import assert_allclose, assert_array_equal
from sim.corpus.program import program

from mlgpu import sim

NEEDED = ("nv/target",)


@program("tiles.cu", headers=NEEDED)
def reduce_tiles(m: sim.Machine, mod: Any) -> None:
    for n, grid, block in ((20, 1, 32), (1000, 3, 160)):
        x = np.random.default_rng(0).standard_normal(n, np.float32)
        out = m.zeros((), np.float32)
        mod.kernel("reduce_tiles").launch(grid, block, (out, m.array(x), np.int32(n)))
        assert_allclose(out.numpy(), x.sum(dtype=np.float64), rtol=1e-5, atol=1e-4)


@program("tiles.cu", headers=NEEDED)
def small_tiles(m: sim.Machine, mod: Any) -> None:
    x = np.random.default_rng(1).integers(-50, 50, (2, 12, 8), np.int32)
    out = m.empty((2, 12, 8, 6), np.int32)
    mod.kernel("small_tiles").launch(2, 96, (out, m.array(x)))
    found = out.numpy()
    assert_array_equal(found[..., 0], np.broadcast_to(x.min(-1, keepdims=True), x.shape))
    assert_array_equal(found[..., 1], np.broadcast_to(x.max(-1, keepdims=True), x.shape))
    assert_array_equal(found[..., 2], np.broadcast_to(x.sum(-1, keepdims=True), x.shape))
    assert_array_equal(found[..., :7, 3], x[..., 1:])
    votes = ((x > 0) << np.arange(8)).sum(-1, keepdims=True)
    assert_array_equal(found[..., 4], np.broadcast_to(votes, x.shape))
    assert_array_equal(found[..., 5], x.cumsum(-1) - x)


@program("tiles.cu", headers=NEEDED)
def compact(m: sim.Machine, mod: Any) -> None:
    for n in (1, 45, 250):
        x = np.random.default_rng(2).integers(0, 1000, n, np.int32)
        out, count = m.zeros(n, np.int32), m.zeros((), np.int32)
        mod.kernel("compact").launch(4, 64, (out, count, m.array(x), np.int32(n)))
        kept = x[x % 3 == 0]
        assert count.numpy() == kept.size
        assert_array_equal(np.sort(out.numpy()[:kept.size]), np.sort(kept))


@program("tiles.cu", headers=NEEDED)
def sum_by_key(m: sim.Machine, mod: Any) -> None:
    rng = np.random.default_rng(3)
    n = 150
    keys, x = rng.integers(0, 5, n, np.int32), rng.integers(-99, 99, n, np.int32)
    sums = m.zeros(5, np.int32)
    mod.kernel("sum_by_key").launch(3, 64, (sums, m.array(keys), m.array(x), np.int32(n)))
    assert_array_equal(sums.numpy(), np.bincount(keys, x, 5))


@program("tiles.cu", headers=NEEDED)
def grid_rotate(m: sim.Machine, mod: Any) -> None:
    n, rounds = 150, 3
    x = np.random.default_rng(4).standard_normal(n, np.float32)
    a, b = m.array(x), m.empty(n, np.float32)
    mod.kernel("grid_rotate").launch(3, 32, (a, b, np.int32(n), np.int32(rounds)),
                                     cooperative=True)
    expected = x.copy()
    for _ in range(rounds):
        mixed = np.float32(0.5) * (expected + np.roll(expected, -41))
        expected = np.roll(mixed, 41)
    assert_array_equal(a.numpy(), expected)

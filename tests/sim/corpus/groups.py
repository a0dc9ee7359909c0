"""Cooperative groups: tiles, coalesced threads, partitions, collectives, the grid, copies."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.testing import assert_allclose, assert_array_equal
from sim.corpus.program import program

from mlgpu import sim

HEADERS = ("nv/target", "cuda/barrier")


@program("groups.cu", headers=HEADERS)
def block_sum(m: sim.Machine, mod: Any) -> None:
    x = np.random.default_rng(0).integers(-99, 99, 500).astype(np.float32)
    y = m.empty(4, np.float32)
    mod.kernel("block_sum").launch(4, 160, (m.array(x), y, np.int32(500)))
    assert_array_equal(y.numpy(), np.pad(x, (0, 140)).reshape(4, 160).sum(1))


@program("groups.cu", headers=HEADERS)
def collectives_of_tiles(m: sim.Machine, mod: Any) -> None:
    x = np.random.default_rng(1).integers(-20, 100, 192, np.int32)
    sums, tops, inclusive, exclusive = (m.empty(192, np.int32) for _ in range(4))
    mod.kernel("tiles").launch(2, 96, (m.array(x), sums, tops, inclusive, exclusive))
    half, eighth, quad = (x.reshape(-1, size) for size in (16, 8, 4))
    assert_array_equal(sums.numpy(), half.sum(1).repeat(16))
    assert_array_equal(tops.numpy(), eighth.max(1).repeat(8))
    assert_array_equal(inclusive.numpy(), half.cumsum(1).ravel())
    before = (quad.cumsum(1) - quad).ravel()
    flags = 1000 * (half > 90).any(1).repeat(16) + 10000 * (quad > 0).all(1).repeat(4)
    assert_array_equal(exclusive.numpy(), before + flags)


@program("groups.cu", headers=HEADERS)
def aggregated_filter(m: sim.Machine, mod: Any) -> None:
    x = np.random.default_rng(2).integers(-99, 99, 250, np.int32)
    y, count = m.array(np.zeros(250, np.int32)), m.zeros(1, np.int32)
    mod.kernel("filter").launch(3, 96, (m.array(x), y, count, np.int32(250)))
    kept = x[x > 0]
    assert count.numpy()[0] == len(kept)
    assert_array_equal(np.sort(y.numpy()[:len(kept)]), np.sort(kept))
    assert_array_equal(y.numpy()[len(kept):], np.zeros(250 - len(kept)))


@program("groups.cu", headers=HEADERS)
def labelled_partition(m: sim.Machine, mod: Any) -> None:
    rng = np.random.default_rng(3)
    labels, x = rng.integers(0, 5, 150, np.int32), rng.integers(-9, 9, 150).astype(np.float32)
    sums, counts = m.zeros(5, np.float32), m.zeros(5, np.int32)
    args = m.array(labels), m.array(x), sums, counts, np.int32(150)
    mod.kernel("labelled").launch(3, 64, args)
    assert_array_equal(sums.numpy(), np.bincount(labels, x))
    assert_array_equal(counts.numpy(), np.bincount(labels))


@program("groups.cu", headers=HEADERS)
def binary_partition(m: sim.Machine, mod: Any) -> None:
    x = np.random.default_rng(4).integers(0, 99, (4, 32), np.int32)
    y = m.empty(x.shape, np.int32)
    mod.kernel("split").launch(2, 64, (m.array(x), y))
    order = np.argsort(x % 2, axis=1, kind="stable")
    assert_array_equal(y.numpy(), np.take_along_axis(x, order, 1))


@program("groups.cu", headers=HEADERS)
def divergent_tiles(m: sim.Machine, mod: Any) -> None:
    x = np.random.default_rng(5).integers(-99, 99, (4, 2, 2, 8), np.int32)
    y = m.empty(x.shape, np.int32)
    mod.kernel("divergent_tiles").launch(2, 64, (m.array(x.reshape(2, 64)), y))
    tiles = x.reshape(-1, 2, 8)
    sums = np.repeat(tiles[:, 1].sum(1, keepdims=True), 8, 1)
    values = np.stack([tiles[:, 0, ::-1], sums], 1)
    assert_array_equal(y.numpy().reshape(-1, 2, 8), values[..., np.arange(8) ^ 1])


@program("groups.cu", headers=HEADERS)
def grid_of_blocks(m: sim.Machine, mod: Any) -> None:
    x = np.random.default_rng(6).standard_normal(300, np.float32)
    buffer, partials = m.array(x), m.empty(3, np.float32)
    args = buffer, partials, np.int32(300), np.int32(3)
    mod.kernel("normalise").launch(3, 64, args, cooperative=True)
    exact = x.astype(np.float64)
    for _ in range(3):
        exact = exact / np.sqrt((exact**2).sum()) + 0.5
    assert_allclose(buffer.numpy(), exact, rtol=1e-5, atol=1e-6)


@program("groups.cu", headers=HEADERS)
def copies(m: sim.Machine, mod: Any) -> None:
    x = np.random.default_rng(7).integers(-99, 99, 270, np.int32)
    y = m.empty(270, np.int32)
    mod.kernel("copied").launch(3, 64, (m.array(x), y, np.int32(270)), shared_mem=400)
    expected = np.concatenate([x[:100][::-1], x[100:200][::-1], x[200:][::-1]])
    assert_array_equal(y.numpy(), expected)


@program("groups.cu", headers=HEADERS)
def copies_in_stages(m: sim.Machine, mod: Any) -> None:
    x = np.random.default_rng(8).integers(-99, 99, (2, 5, 32, 4), np.int32)
    y = m.empty(x.shape, np.int32)
    mod.kernel("copied_in_stages").launch(2, 32, (m.array(x), y, np.int32(5)))
    assert_array_equal(y.numpy(), x[:, :, ::-1, ::-1])

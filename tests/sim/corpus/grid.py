"""Blocks of one launch that work together: grid barriers, flags, queues, locks, rings."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.testing import assert_allclose, assert_array_equal
from sim.corpus.program import program

from mlgpu import sim


def normal(seed: int, *shape: int) -> Any:
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


@program("grid.cu")
def diffusion(m: sim.Machine, mod: Any) -> None:
    x = normal(0, 150)
    a, b, count = m.array(x), m.empty(150, np.float32), m.zeros(1, np.uint32)
    mod.kernel("diffuse").launch(3, 32, (a, b, count, np.int32(150), np.int32(5)))
    exact = x.astype(np.float64)
    for _ in range(5):
        exact = 0.5 * exact + 0.25 * (np.roll(exact, 1) + np.roll(exact, -1))
    assert_allclose(b.numpy(), exact, rtol=1e-5, atol=1e-6)
    assert count.numpy()[0] == 15


@program("grid.cu")
def breadth_first_search(m: sim.Machine, mod: Any) -> None:
    n = 600
    rng = np.random.default_rng(1)
    near = np.zeros((n, n), bool)
    near[rng.integers(0, n, 700), rng.integers(0, n, 700)] = True
    near |= near.T
    offsets = np.concatenate([[0], near.sum(1).cumsum()]).astype(np.int32)
    edges = np.nonzero(near)[1].astype(np.int32)
    level = np.full(n, -1, np.int32)
    source = int(near.sum(1).argmax())
    level[source] = 0
    queue, sizes = np.zeros((2, n), np.int32), np.zeros(n + 1, np.uint32)
    queue[0, 0], sizes[0] = source, 1
    levels = m.array(level)
    args = (m.array(offsets), m.array(edges), levels, m.array(queue), m.array(sizes),
            m.zeros(1, np.uint32), np.int32(n))
    mod.kernel("search").launch(3, 32, args)
    expected, frontier, depth = level.copy(), np.arange(n) == source, 0
    while frontier.any():
        depth += 1
        frontier = near[frontier].any(0) & (expected < 0)
        expected[frontier] = depth
    assert_array_equal(levels.numpy(), expected)
    assert depth > 4  # some levels were passed, and some nodes are out of reach
    assert (expected < 0).any()


@program("grid.cu")
def pairs_of_blocks(m: sim.Machine, mod: Any) -> None:
    x = normal(2, 4, 64)
    for name, flags in (("pairs", 4), ("pairs_volatile", 4), ("pairs_relaxed", 256)):
        between, y = m.empty(x.shape, np.float32), m.empty(x.shape, np.float32)
        args = m.array(x), between, y, m.zeros(flags, np.uint32)
        mod.kernel(name).launch(8, 64, args)
        assert_array_equal(y.numpy(), np.roll(x * x, -1, 1) + np.float32(1))


@program("grid.cu")
def two_layers(m: sim.Machine, mod: Any) -> None:
    rows, inner, mid, out = 12, 20, 64, 10
    x, w1, w2 = normal(3, rows, inner), normal(4, inner, mid), normal(5, mid, out)
    hidden, y = m.empty((rows, mid), np.float32), m.empty((rows, out), np.float32)
    args = (*map(m.array, (x, w1, w2)), hidden, y, m.zeros(3, np.uint32),
            *map(np.int32, (rows, inner, mid, out)))
    mod.kernel("two_layers").launch(3 * 2 + 3, 128, args)
    exact = np.maximum(x.astype(np.float64) @ w1, 0) @ w2
    assert_allclose(y.numpy(), exact, rtol=1e-5, atol=3e-5)


@program("grid.cu")
def sum_by_last_block(m: sim.Machine, mod: Any) -> None:
    done = m.zeros(1, np.uint32)
    for n in (1000, 7):
        x, total = normal(6, n), m.empty(1, np.float32)
        partials = m.empty((5, 64), np.float32)
        mod.kernel("sum_last_block").launch(5, 64, (m.array(x), partials, total, done, np.int32(n)))
        assert_allclose(total.numpy()[0], x.sum(dtype=np.float64), rtol=1e-5, atol=2e-5)
        assert done.numpy()[0] == 0


@program("grid.cu")
def work_queue(m: sim.Machine, mod: Any) -> None:
    x = np.random.default_rng(7).integers(-9, 10, (19, 32)).astype(np.float32)
    y, counter = m.empty(x.shape, np.float32), m.zeros(1, np.uint32)
    mod.kernel("triangular").launch(4, 32, (m.array(x), y, counter, np.int32(19)))
    assert_array_equal(y.numpy(), x.cumsum(0))
    assert counter.numpy()[0] == 19 + 4  # each block drew once in vain


@program("grid.cu")
def chained_scan(m: sim.Machine, mod: Any) -> None:
    x = np.random.default_rng(8).integers(-99, 99, 700, np.int32)
    y = m.empty(700, np.int32)
    args = (m.array(x), y, m.empty(6, np.int32), m.zeros(6, np.uint32), m.zeros(1, np.uint32),
            np.int32(700))
    mod.kernel("chained_scan").launch(6, 128, args)
    assert_array_equal(y.numpy(), x.cumsum())


@program("grid.cu")
def largest_under_a_lock(m: sim.Machine, mod: Any) -> None:
    x = normal(9, 500)
    top, lock = m.array(np.full(3, -1e30, np.float32)), m.zeros(1, np.uint32)
    mod.kernel("largest").launch(8, 64, (m.array(x), top, lock, np.int32(500), np.int32(3)))
    best = np.sort([x[i:i + 64].max() for i in range(0, 500, 64)])
    assert_array_equal(top.numpy(), best[:-4:-1])
    assert lock.numpy()[0] == 0


@program("grid.cu")
def ring_reduce(m: sim.Machine, mod: Any) -> None:
    for blocks in (2, 5):
        values = np.random.default_rng(10).integers(-99, 99, (blocks, blocks, 32))
        x, mail = m.array(values.astype(np.float32)), m.empty((blocks, 32), np.float32)
        flags = m.zeros(blocks, np.uint32), m.zeros(blocks, np.uint32)
        mod.kernel("ring_reduce").launch(blocks, 32, (x, mail, *flags))
        assert_array_equal(x.numpy(), np.broadcast_to(values.sum(0), values.shape))

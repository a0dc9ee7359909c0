"""Barriers of a block: voting, named, counted, unaligned; flags and queues between warps."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.testing import assert_allclose, assert_array_equal
from sim.corpus.program import program

from mlgpu import sim


@program("barriers.cu")
def votes(m: sim.Machine, mod: Any) -> None:
    x = np.random.default_rng(0).integers(-5, 6, 170, np.int32)
    x[:64], x[64:128] = np.abs(x[:64]) + 1, -np.abs(x[64:128])  # all, none, and a mixed tail
    outs = [m.empty(170, np.int32) for _ in range(3)]
    mod.kernel("votes").launch(3, 64, (m.array(x), *outs, np.int32(170)))
    for first in (0, 64, 128):
        rows = np.s_[first:first + 64]
        positive = x[rows] > 0
        for out, value in zip(outs, (positive.sum(), positive.all(), positive.any()), strict=True):
            assert_array_equal(out.numpy()[rows], np.full(len(positive), value))


@program("barriers.cu")
def votes_of_halves(m: sim.Machine, mod: Any) -> None:
    x = np.random.default_rng(1).integers(-9, 10, (2, 2, 64), np.int32)
    x[1, 0, 5] = 60
    counts = m.empty(x.shape, np.int32)
    mod.kernel("votes_of_halves").launch(2, 128, (m.array(x), counts))
    count = (x > 0).sum(2, keepdims=True) * np.where((x > 50).any(2, keepdims=True), 1, -1)
    assert_array_equal(counts.numpy(), np.broadcast_to(count, x.shape))


@program("barriers.cu")
def until_all_done(m: sim.Machine, mod: Any) -> None:
    x = np.arange(1, 101, dtype=np.uint32)
    steps, rounds = m.empty(100, np.uint32), m.empty(4, np.int32)
    mod.kernel("until_all_done").launch(4, 32, (m.array(x), steps, rounds, np.int32(100)))
    expected = []
    for value in x.tolist():
        count = 0
        while value != 1:
            value = 3 * value + 1 if value % 2 else value // 2
            count += 1
        expected.append(count)
    assert_array_equal(steps.numpy(), expected)
    longest = [max(expected[i:i + 32]) for i in range(0, 100, 32)]
    assert_array_equal(rounds.numpy(), [-(-count // 8) for count in longest])


@program("barriers.cu")
def sort_groups(m: sim.Machine, mod: Any) -> None:
    x = np.random.default_rng(2).integers(0, 50, (2, 128), np.int32)
    y = m.empty(x.shape, np.int32)
    mod.kernel("sort_groups").launch(2, 128, (m.array(x), y))
    assert_array_equal(y.numpy(), np.sort(x, 1))


@program("barriers.cu")
def hand_over(m: sim.Machine, mod: Any) -> None:
    for chunks in (1, 2, 7):
        x = np.random.default_rng(3).standard_normal((2, chunks, 32), np.float32)
        y = m.empty(x.shape, np.float32)
        mod.kernel("hand_over").launch(2, 64, (m.array(x), y, np.int32(chunks)))
        assert_array_equal(y.numpy(), 2 * x[:, :, ::-1])


@program("barriers.cu")
def subset_of_warps(m: sim.Machine, mod: Any) -> None:
    x = np.random.default_rng(4).uniform(1, 2, (2, 96)).astype(np.float32)
    y = m.empty((2, 128), np.float32)
    mod.kernel("subset").launch(2, 128, (m.array(x), y))
    assert_allclose(y.numpy()[:, :96], x / x.sum(1, dtype=np.float64, keepdims=True), rtol=1e-6)
    assert_allclose(y.numpy()[:, 96:], np.tile(1 / np.arange(1.0, 33), (2, 1)), rtol=1e-6)


@program("barriers.cu")
def divergent(m: sim.Machine, mod: Any) -> None:
    x = np.random.default_rng(5).integers(-99, 99, (2, 32, 2), np.int32)
    y = m.empty(x.shape, np.int32)
    mod.kernel("divergent").launch(2, 64, (m.array(x), y))
    assert_array_equal(y.numpy(), np.stack([x[..., 1] + 100, x[..., 0] * 2], 2))


@program("barriers.cu")
def divergent_arrival(m: sim.Machine, mod: Any) -> None:
    x = np.random.default_rng(6).integers(-9, 10, (3, 32), np.int32)
    y = m.empty(x.shape, np.int32)
    mod.kernel("divergent_arrival").launch(3, 64, (m.array(x), y))
    assert_array_equal(y.numpy(), np.where(x < 0, -x, 7)[:, ::-1])


@program("barriers.cu")
def chain_of_flags(m: sim.Machine, mod: Any) -> None:
    x = np.random.default_rng(7).integers(-99, 99, 200, np.int32)
    y = m.empty(200, np.int32)
    mod.kernel("chain").launch(2, 128, (m.array(x), y, np.int32(200)))
    assert_array_equal(y.numpy(), np.concatenate([np.cumsum(x[:128]), np.cumsum(x[128:])]))


@program("barriers.cu")
def ring_of_slots(m: sim.Machine, mod: Any) -> None:
    x = np.random.default_rng(8).standard_normal((11, 32), np.float32)
    y = m.empty(x.shape, np.float32)
    mod.kernel("ring").launch(1, 128, (m.array(x), y, np.int32(11)))
    assert_array_equal(y.numpy(), x * x)


@program("barriers.cu")
def locked_lists(m: sim.Machine, mod: Any) -> None:
    n = 50
    keys = np.random.default_rng(9).integers(0, 100, n, np.int32)
    heads, links = m.empty(8, np.int32), m.empty(128, np.int32)
    mod.kernel("locked_lists").launch(1, 128, (m.array(keys), heads, links, np.int32(n)))
    after = links.numpy()
    assert_array_equal(after[n:], np.full(128 - n, -2))
    for number, at in enumerate(heads.numpy().tolist()):
        members = []
        while at >= 0:
            members.append(at)
            at = int(after[at])
        assert sorted(members) == np.flatnonzero(keys % 8 == number).tolist()


@program("barriers.cu")
def last_warp(m: sim.Machine, mod: Any) -> None:
    x = np.random.default_rng(10).standard_normal((3, 160), np.float32)
    sums = m.empty(3, np.float32)
    mod.kernel("last_warp").launch(3, 160, (m.array(x), sums))
    assert_allclose(sums.numpy(), x.sum(1, dtype=np.float64), rtol=1e-5, atol=1e-5)

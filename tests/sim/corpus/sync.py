"""Locks, barriers, masks of lanes, votes, shuffles, atomics."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.testing import assert_allclose, assert_array_equal
from sim.corpus.program import program

from mlgpu import sim

Array = np.ndarray[Any, Any]


@program("sync.cu")
def spin_lock(m: sim.Machine, mod: Any) -> None:
    for blocks in (1, 9):
        lock, value, log = m.zeros((), np.int32), m.zeros((), np.int32), m.empty(blocks, np.int32)
        mod.kernel("spin_lock").launch(blocks, 32, (lock, value, log))
        assert value.numpy() == blocks
        assert_array_equal(np.sort(log.numpy()), np.arange(blocks))
        assert lock.numpy() == 0


@program("sync.cu")
def lock_by_lane(m: sim.Machine, mod: Any) -> None:
    lock, count = m.zeros((), np.int32), m.zeros((), np.int32)
    mod.kernel("lock_by_lane").launch(2, 34, (lock, count, np.int32(1)))
    assert count.numpy() == 68


@program("sync.cu")
def ticket_lock(m: sim.Machine, mod: Any) -> None:
    n = 7
    x = np.random.default_rng(0).standard_normal(n)
    next, serving, total = m.zeros((), np.uint32), m.zeros((), np.uint32), m.zeros((), np.float64)
    mod.kernel("ticket_lock").launch(n, 32, (next, serving, total, m.array(x)))
    expected = 0.0
    for value in x:  # in the order of the tickets, whichever blocks have them
        expected = expected * 0.5 + value
    assert_allclose(total.numpy(), expected, rtol=1e-15)
    assert serving.numpy() == n


@program("sync.cu")
def message(m: sim.Machine, mod: Any) -> None:
    n = 100
    data, flag, out = m.empty(n, np.int32), m.zeros((), np.int32), m.empty((2, n), np.int32)
    mod.kernel("message").launch(3, 64, (data, flag, out, np.int32(n)))
    assert_array_equal(out.numpy(), 3 * np.arange(n) + 1 + np.array([[1], [2]]))


@program("sync.cu")
def jacobi(m: sim.Machine, mod: Any) -> None:
    for n, blocks, sweeps in ((150, 3, 4), (30, 1, 3)):
        x = np.random.default_rng(1).standard_normal(n).astype(np.float32)
        a, b = m.array(x), m.empty(n, np.float32)
        args = a, b, np.int32(n), np.int32(sweeps), m.zeros((), np.uint32)
        mod.kernel("jacobi").launch(blocks, 32, args, cooperative=True)
        for _ in range(sweeps):
            padded = np.pad(x, 1)
            x = np.float32(0.5) * (padded[:-2] + padded[2:])
        assert_array_equal((b if sweeps % 2 else a).numpy(), x)


@program("sync.cu")
def early_exit(m: sim.Machine, mod: Any) -> None:
    n = 150
    x = np.random.default_rng(2).integers(0, 5, n, np.int32)
    x[32:64] = 0  # a warp that leaves whole
    x[64:96] = 0
    x[70] = 3  # and one of which a single lane stays
    out = m.array(np.full(n, -1, np.int32))
    mod.kernel("early_exit").launch(2, 96, (out, m.array(x), np.int32(n)))
    expected = np.full(n, -1)
    for start in range(0, n, 32):
        warp = x[start:start + 32]
        stay = np.flatnonzero(warp)
        for k, lane in enumerate(stay):
            following = warp[stay[(k + 1) % stay.size]]
            expected[start + lane] = 11 * following + 1000 * (warp > 2).sum()
    assert_array_equal(out.numpy(), expected)


@program("sync.cu")
def tail_sum(m: sim.Machine, mod: Any) -> None:
    for n in (1, 13, 31, 32):
        x = np.random.default_rng(3).integers(-99, 99, n, np.int32)
        out = m.empty((), np.int32)
        mod.kernel("tail_sum").launch(1, 32, (out, m.array(x), np.int32(n)))
        assert out.numpy() == x.sum()


@program("sync.cu")
def shuffles(m: sim.Machine, mod: Any) -> None:
    x = np.random.default_rng(4).integers(-99, 99, 64, np.int32)
    out = m.empty((64, 10), np.int32)
    mod.kernel("shuffles").launch(1, 64, (out, m.array(x)))
    t = np.arange(64)

    def take(source: Array, width: int) -> Array:
        """The value of the lane at that place, or the own one where it is outside the part."""
        return np.where(source // width == t // width, x[np.clip(source, 0, 63)], x)

    base8, base16 = t // 8 * 8, t // 16 * 16
    expected = [x[base8 + (t + 3) % 8], take(t - 3, 8), take(t + 3, 8), x[t ^ 5],
                x[base16 + t * 7 % 16], take(t - 9, 16), take(t + 9, 16), x[t ^ 17],
                (take(t - 1, 2) << 20) + np.trunc(1.5 * x[t ^ 2]).astype(np.int64), x[t ^ 2]]
    assert_array_equal(out.numpy(), np.stack(expected, 1))


@program("sync.cu")
def votes(m: sim.Machine, mod: Any) -> None:
    x = np.random.default_rng(5).integers(0, 10, (4, 32), np.int32)
    x[1] = 4
    x[2] += 95
    out = m.empty((4, 32, 7), np.uint32)
    mod.kernel("votes").launch(2, 64, (out, m.array(x)))
    bit = np.uint32(1) << np.arange(32, dtype=np.uint32)
    for v, found in zip(x, out.numpy(), strict=True):
        same = [int(bit[v == value].sum()) for value in v]
        alike = (v // 100 == v[0] // 100).all()
        odd = v & 1 == 1
        last = np.where(odd, int(bit[odd & (v > 4)].sum()), same)
        expected = [[(v == 3).any()] * 32, [(v < 9).all()] * 32, [bit[odd].sum()] * 32, same,
                    [alike * 0xFFFFFFFF] * 32, [alike] * 32, last]
        assert_array_equal(found.T, np.array(expected, np.uint32))


@program("sync.cu")
def swap_loops(m: sim.Machine, mod: Any) -> None:
    n = 70
    x = np.random.default_rng(6).standard_normal(n).astype(np.float32)
    most, product = m.array(np.float32(-1e30)), m.array(np.float64(3))
    mask, signs = m.zeros(2, np.uint16), m.array(np.full(2, -np.inf, np.float32))
    mod.kernel("swap_loops").launch(3, 32, (most, product, mask.ptr + 2, signs, m.array(x),
                                            np.int32(n)))
    assert most.numpy() == x.max()
    assert product.numpy() == 3 * 2.0 ** np.where(x > 0, 1, -1).sum()
    assert mask.numpy().tolist() == [0, 0xFFFF]
    assert_array_equal(signs.numpy(), [x[::2].max(), (x[1::2] - np.float32(100)).max()])


@program("sync.cu")
def add_halves(m: sim.Machine, mod: Any) -> None:
    n = 50
    x = np.random.default_rng(11).integers(-20, 20, n).astype(np.float32)  # exact in any order
    sums = m.array(np.array([0, 1, 2, 77], np.float16))
    mod.kernel("add_halves").launch(2, 32, (sums, m.array(x), np.int32(n)))
    assert_array_equal(sums.numpy(), [*(k + x[k::3].sum() for k in range(3)), 77])


def _kinds(v: Array) -> list[int]:
    """What the first eight cells hold after `all_kinds`."""
    return [v.sum(), -v.sum(), min(v.min(), 0), max(v.max(), 0),
            np.bitwise_and.reduce(v | 0xFF00), np.bitwise_or.reduce(v), np.bitwise_xor.reduce(v), 5]


@program("sync.cu")
def atomic_kinds(m: sim.Machine, mod: Any) -> None:
    x = np.random.default_rng(7).integers(-2**16, 2**16, (3, 64), np.int32)
    first = np.zeros(9, np.int32)
    first[4] = -1
    cells, shared, wrapped = m.array(first), m.empty((3, 9), np.int32), m.zeros(7, np.uint32)
    mod.kernel("atomic_kinds").launch(3, 64, (cells, shared, wrapped, m.array(x)))
    assert_array_equal(cells.numpy()[:8], _kinds(x.ravel()))
    # Threads swap t for t + 1 in any order: the cell counts up as far as the order allows.
    assert 1 <= cells.numpy()[8] <= 192
    for v, found in zip(x, shared.numpy(), strict=True):
        assert_array_equal(found[:8], _kinds(v))
        assert 1 <= found[8] <= 64
    inc = dec = 0
    for _ in range(192):
        inc = 0 if inc >= 10 else inc + 1
        dec = 10 if dec == 0 or dec > 10 else dec - 1
    assert_array_equal(wrapped.numpy(), [inc, dec, 64, 64, 64, 0, 2 * 192])


@program("sync.cu")
def atomic_kinds_64(m: sim.Machine, mod: Any) -> None:
    x = np.random.default_rng(8).integers(-2**62, 2**62, 96)
    cells = m.array(np.array([0, 2**64 - 1, 2**64 - 1, 0, 0], np.uint64))
    signed = m.zeros(2, np.int64)
    mod.kernel("atomic_kinds_64").launch(3, 32, (cells, signed, m.array(x)))
    bits = x.view(np.uint64)
    assert_array_equal(cells.numpy(), [bits.sum(), bits.min(), np.bitwise_and.reduce(bits),
                                       np.bitwise_or.reduce(bits), np.bitwise_xor.reduce(bits)])
    assert_array_equal(signed.numpy(), [x.max(), x.min()])


@program("sync.cu")
def named_barriers(m: sim.Machine, mod: Any) -> None:
    for tiles in (1, 2, 5, 10):
        x = np.random.default_rng(9).integers(-99, 99, (tiles, 32), np.int32)
        out = m.empty((tiles, 32), np.int32)
        mod.kernel("named_barriers").launch(1, 64, (out, m.array(x), np.int32(tiles)))
        assert_array_equal(out.numpy(), 2 * x[:, ::-1])


@program("sync.cu")
def work_queue(m: sim.Machine, mod: Any) -> None:
    for pieces in (1, 30):
        out, counter = m.empty(pieces, np.int32), m.zeros((), np.int32)
        mod.kernel("work_queue").launch(2, 64, (out, counter, np.int32(pieces)))
        assert_array_equal(out.numpy(), np.arange(pieces) * (np.arange(pieces) + 1) // 2)


@program("sync.cu")
def warp_exchange(m: sim.Machine, mod: Any) -> None:
    x = np.random.default_rng(10).standard_normal((6, 32)).astype(np.float32)
    out = m.empty(x.shape, np.float32)
    mod.kernel("warp_exchange").launch(2, 96, (out, m.array(x)))
    mean = x.mean(1, keepdims=True, dtype=np.float64)
    assert_allclose(out.numpy(), np.broadcast_to(mean, x.shape), rtol=1e-5, atol=1e-6)


@program("sync.cu")
def uniform_branches(m: sim.Machine, mod: Any) -> None:
    for rounds, mode in ((1, 0), (4, 1), (5, 0), (11, 1)):
        out = m.empty((3, 64), np.int32)
        mod.kernel("uniform_branches").launch(3, 64, (out, np.int32(rounds), np.int32(mode)))
        for block, found in enumerate(out.numpy()):
            cell = np.arange(64)
            for r in range(rounds):
                cell = np.roll(cell, -1) if (mode + r) & 1 else cell + block % 2
            assert_array_equal(found, cell[::-1])

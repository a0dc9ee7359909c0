"""Philox and what is made of it, xorshift, sampling."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.testing import assert_allclose, assert_array_equal
from sim.corpus.program import program

from mlgpu import sim

Array = np.ndarray[Any, Any]
SEED = 0x1234_5678_9ABC_DEF1


def _philox(counters: Array, keys: Array) -> Array:
    """Philox 4x32-10 of rows of four and two words."""
    c = [counters[..., i].astype(np.uint64) for i in range(4)]
    k = [keys[..., i].astype(np.uint64) for i in range(2)]
    low = np.uint64(0xFFFFFFFF)
    for _ in range(10):
        a, b = c[0] * np.uint64(0xD2511F53), c[2] * np.uint64(0xCD9E8D57)
        c = [(b >> np.uint64(32)) ^ c[1] ^ k[0], b & low,
             (a >> np.uint64(32)) ^ c[3] ^ k[1], a & low]
        k = [(k[0] + np.uint64(0x9E3779B9)) & low, (k[1] + np.uint64(0xBB67AE85)) & low]
    return np.stack(c, -1).astype(np.uint32)


def _draw(offset: int, n: int) -> Array:
    counters = np.zeros((n, 4), np.uint32)
    counters[:, 0], counters[:, 2] = offset, np.arange(n)
    return _philox(counters, np.array([SEED & 0xFFFFFFFF, SEED >> 32], np.uint64))


def _unit(bits: Array) -> Array:
    return (bits >> 8).astype(np.float32) * np.float32(2**-24)


@program("philox.cu")
def philox_blocks(m: sim.Machine, mod: Any) -> None:
    # The three answers that the authors of Philox published, then random ones.
    known = [((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
             ((2**32 - 1,) * 4, (2**32 - 1,) * 2,
              (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
             ((0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344), (0xA4093822, 0x299F31D0),
              (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1))]
    rng = np.random.default_rng(0)
    counters, keys = (rng.integers(0, 2**32, (50, k), np.uint32) for k in (4, 2))
    counters[:3], keys[:3] = [c for c, _, _ in known], [k for _, k, _ in known]
    out = m.empty((50, 4), np.uint32)
    mod.kernel("philox_blocks").launch(2, 32, (out, m.array(counters), m.array(keys), np.int32(50)))
    assert_array_equal(out.numpy()[:3], [answer for _, _, answer in known])
    assert_array_equal(out.numpy(), _philox(counters, keys))


@program("philox.cu")
def uniform(m: sim.Machine, mod: Any) -> None:
    for quads in (3, 70):
        out = m.empty((quads, 4), np.float32)
        args = out, np.int32(quads), np.uint64(SEED), np.uint64(9)
        mod.kernel("uniform").launch(3, 32, args)
        assert_array_equal(out.numpy(), _unit(_draw(9, quads)))


@program("philox.cu")
def normal(m: sim.Machine, mod: Any) -> None:
    for n in (1, 151):
        out = m.empty(n, np.float32)
        mod.kernel("normal").launch(2, 32, (out, np.int32(n), np.uint64(SEED)))
        u = _unit(_draw(0, (n + 1) // 2)).astype(np.float64)
        radius = np.sqrt(-2 * np.log(1 - u[:, 0]))
        turn = 2 * np.pi * u[:, 1]
        expected = (radius * np.stack([np.cos(turn), np.sin(turn)])).T.reshape(-1)[:n]
        assert_allclose(out.numpy(), expected, rtol=1e-5, atol=1e-6)


@program("philox.cu")
def dropout(m: sim.Machine, mod: Any) -> None:
    keep = np.float32(0.75)
    for n in (64, 150):
        x = np.random.default_rng(1).standard_normal(n).astype(np.float32)
        words = -(-n // 32)
        y, mask = m.empty(n, np.float32), m.empty(words, np.uint32)
        args = y, mask, m.array(x), np.int32(n), keep, np.uint64(SEED)
        mod.kernel("dropout").launch(-(-n // 64), 64, args)
        kept = _unit(_draw(1, n)[:, 0]) < keep
        assert 0.5 < kept.mean() < 0.95
        assert_allclose(y.numpy(), np.where(kept, x / keep, 0), rtol=1e-6)
        padded = np.zeros(32 * words, np.uint8)
        padded[:n] = kept
        bits = np.packbits(padded, bitorder="little").view(np.uint32)
        assert_array_equal(mask.numpy(), bits)

        dy = np.random.default_rng(2).standard_normal(n).astype(np.float16)
        dx = m.empty(n, np.float16)
        args = dx, m.array(dy), mask, np.int32(n // 2), keep
        mod.kernel("dropout_backward").launch(-(-n // 64), 32, args)
        exact = np.where(kept, dy / np.float64(keep), 0)
        assert_allclose(dx.numpy().astype(np.float64), exact, rtol=2**-10)


@program("philox.cu")
def xorshift(m: sim.Machine, mod: Any) -> None:
    threads, steps = 96, 6
    state = np.random.default_rng(3).integers(1, 2**32, (threads, 4), np.uint32)
    states = m.array(state)
    x, y, z, w = state.T.copy()
    for _ in range(2):  # the second launch goes on where the first stopped
        out = m.empty((steps, threads), np.uint32)
        mod.kernel("xorshift").launch(3, 32, (out, states, np.int32(steps)))
        for row in out.numpy():
            v = x ^ (x << np.uint32(11))
            x, y, z = y, z, w
            w = w ^ (w >> np.uint32(19)) ^ v ^ (v >> np.uint32(8))
            assert_array_equal(row, w)
    assert_array_equal(states.numpy(), np.stack([x, y, z, w], 1))


@program("philox.cu")
def sample_rows(m: sim.Machine, mod: Any) -> None:
    rows = 40
    for n in (5, 100):
        p = np.random.default_rng(4).random((rows, n))
        p = (p / p.sum(1, keepdims=True)).astype(np.float32)
        out = m.empty(rows, np.int32)
        mod.kernel("sample_rows").launch(rows, 32, (out, m.array(p), np.int32(n), np.uint64(SEED)))
        target = _unit(_draw(2, rows)[:, 0]).astype(np.float64)
        total = p.cumsum(1, dtype=np.float64)
        row, found = np.arange(rows), out.numpy()
        # The sums are rounded: the chosen one may be off by one where the target is that close.
        assert (total[row, found] > target - 1e-6).all()
        assert ((total - p)[row, found] <= target + 1e-6).all()
        assert len(set(found)) > n // 5

"""Prefix sums of warps, blocks and grids."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.testing import assert_allclose, assert_array_equal
from sim.corpus.program import program

from mlgpu import sim

Array = np.ndarray[Any, Any]


def _integers(seed: int, *shape: int) -> Array:
    return np.random.default_rng(seed).integers(-100, 100, shape, np.int32)


@program("scan.cu")
def hillis_steele(m: sim.Machine, mod: Any) -> None:
    for n, block in ((5, 32), (64, 64), (90, 96)):
        x = _integers(0, 2, n)
        out = m.empty((2, n), np.int32)
        mod.kernel("hillis_steele").launch(2, block, (out, m.array(x), np.int32(n)),
                                           shared_mem=8 * block)
        assert_array_equal(out.numpy(), x.cumsum(1))


@program("scan.cu")
def hillis_steele_in_place(m: sim.Machine, mod: Any) -> None:
    x = np.random.default_rng(1).standard_normal(96, np.float32)
    out = m.empty(96, np.float32)
    mod.kernel("hillis_steele_in_place").launch(1, 96, (out, m.array(x)))
    assert_allclose(out.numpy(), x.cumsum(dtype=np.float64), rtol=1e-5, atol=1e-5)


@program("scan.cu")
def blelloch(m: sim.Machine, mod: Any) -> None:
    for n in (1, 130, 256):
        x = _integers(2, n)
        out = m.empty(n, np.int32)
        mod.kernel("blelloch").launch(1, 128, (out, m.array(x), np.int32(n)))
        assert_array_equal(out.numpy(), x.cumsum() - x)


@program("scan.cu")
def cumsum_rows(m: sim.Machine, mod: Any) -> None:
    for n, block in ((30, 32), (170, 64)):
        x = np.random.default_rng(3).standard_normal((2, n))
        out = m.empty((2, n), np.float64)
        mod.kernel("cumsum_rows").launch(2, block, (out, m.array(x), np.int32(n)))
        assert_allclose(out.numpy(), x.cumsum(1), rtol=1e-12, atol=1e-12)


@program("scan.cu")
def scan_three_launches(m: sim.Machine, mod: Any) -> None:
    n, block = 1000, 96
    blocks = -(-n // block)
    x = _integers(4, n)
    out, totals, top = (m.empty(s, np.int32) for s in (n, blocks, 1))
    tiles = mod.kernel("scan_tiles")
    tiles.launch(blocks, block, (out, totals, m.array(x), np.int32(n)))
    tiles.launch(1, block, (totals, top, totals, np.int32(blocks)))  # in place
    mod.kernel("scan_add").launch(blocks, block, (out, totals, np.int32(n)))
    assert_array_equal(out.numpy(), x.cumsum())
    assert top.numpy().item() == x.sum()


@program("scan.cu")
def scan_lookback_fence(m: sim.Machine, mod: Any) -> None:
    for n, block in ((40, 64), (500, 64), (333, 32), (40_000, 1024)):
        blocks = -(-n // block)  # of the last, the first 32 have their sums when others begin
        x = _integers(5, n)
        out = m.empty(n, np.int32)
        tiles, status = m.empty((blocks, 2), np.int32), m.zeros(blocks, np.int32)
        args = out, m.array(x), np.int32(n), tiles, status, m.zeros((), np.uint32)
        mod.kernel("scan_lookback_fence").launch(blocks, block, args)
        assert_array_equal(out.numpy(), x.cumsum())
        assert_array_equal(status.numpy(), 2)


@program("scan.cu")
def scan_lookback_acquire(m: sim.Machine, mod: Any) -> None:
    for n, block in ((20, 32), (450, 64), (1300, 32), (40_000, 1024)):
        blocks = -(-n // block)
        x = _integers(6, n).view(np.uint32)
        out = m.empty(n, np.uint32)
        words = m.zeros(blocks, np.uint64)
        args = out, m.array(x), np.int32(n), words, m.zeros((), np.uint32)
        mod.kernel("scan_lookback_acquire").launch(blocks, block, args)
        assert_array_equal(out.numpy(), x.cumsum(dtype=np.uint32))


@program("scan.cu")
def segmented(m: sim.Machine, mod: Any) -> None:
    rng = np.random.default_rng(7)
    for n, density in ((128, 0.05), (100, 0.3), (60, 0.0)):
        x = rng.standard_normal(n).astype(np.float32)
        heads = (rng.random(n) < density).astype(np.uint8)
        out = m.empty(n, np.float32)
        mod.kernel("segmented").launch(1, 128, (out, m.array(x), m.array(heads), np.int32(n)))
        running, expected = 0.0, []
        for value, head in zip(x.astype(np.float64), heads, strict=True):
            running = value if head else running + value
            expected.append(running)
        assert_allclose(out.numpy(), expected, rtol=1e-5, atol=1e-5)


@program("scan.cu")
def partition_even(m: sim.Machine, mod: Any) -> None:
    for n in (10, 300):
        x = _integers(8, n)
        out, count = m.zeros(n, np.int32), m.zeros((), np.int32)
        mod.kernel("partition_even").launch(4, 96, (out, count, m.array(x), np.int32(n)))
        kept = x[x % 2 == 0]
        assert count.numpy() == kept.size
        assert_array_equal(np.sort(out.numpy()[:kept.size]), np.sort(kept))

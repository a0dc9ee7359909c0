"""Cache hints, prefetches, wide atomics, large and carved shared memory."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
from numpy.testing import assert_allclose, assert_array_equal
from sim.corpus.program import program

from mlgpu import sim


@program("hints.cu")
def cached_copies(m: sim.Machine, mod: Any) -> None:
    x = np.random.default_rng(0).integers(-99, 99, (6, 77)).astype(np.float32)
    y = m.empty((4, 77), np.float32)
    mod.kernel("cached_copies").launch(2, 64, (m.array(x), y, np.int32(77)))
    assert_array_equal(y.numpy(), x.sum(0) * np.arange(1, 5, dtype=np.float32)[:, None])


@program("hints.cu")
def read_only(m: sim.Machine, mod: Any) -> None:
    rng = np.random.default_rng(1)
    a, b = rng.integers(-99, 99, (70, 2)).astype(float), rng.integers(0, 2**32, (70, 4), np.uint32)
    c, d = rng.integers(-2**15, 2**15, (70, 2), np.int16), rng.integers(0, 256, (70, 4), np.uint8)
    b >>= 2  # their sum as unsigned numbers does not wrap
    y = m.empty(70, np.float64)
    mod.kernel("read_only").launch(2, 64, (*map(m.array, (a, b, c, d)), y, np.int32(70)))
    assert_array_equal(y.numpy(), sum(x.astype(np.int64).sum(1) for x in (a, b, c, d)))


@program("hints.cu")
def prefetched_sum(m: sim.Machine, mod: Any) -> None:
    x = np.random.default_rng(2).integers(-9, 9, 500).astype(np.float32)
    y = m.empty(64, np.float32)
    mod.kernel("prefetched_sum").launch(2, 32, (m.array(x), y, np.int32(500), np.int32(64)))
    assert_array_equal(y.numpy(), np.pad(x, (0, 12)).reshape(8, 64).sum(0))


@program("hints.cu", since="sm_80")
def eviction_policies(m: sim.Machine, mod: Any) -> None:
    rng = np.random.default_rng(3)
    x, w = rng.standard_normal((100, 4), np.float32), rng.standard_normal((7, 4), np.float32)
    y = m.empty(x.shape, np.float32)
    mod.kernel("policies").launch(2, 32, (m.array(x), m.array(w), y, np.int32(100), np.int32(7)))
    assert_array_equal(y.numpy(), x * w[np.arange(100) % 7])


@program("hints.cu", since="sm_80")
def redux(m: sim.Machine, mod: Any) -> None:
    x = np.random.default_rng(4).integers(-2**31, 2**31, (3, 32), np.int32)
    x[1] = np.abs(x[1]) | 3
    y = m.empty((3, 8), np.int32)
    mod.kernel("redux").launch(3, 32, (m.array(x), y))
    bits = x.view(np.uint32)
    expected = [x.sum(1, dtype=np.int32), x.min(1), x.max(1), bits.min(1).view(np.int32),
                np.bitwise_and.reduce(x, 1), np.bitwise_or.reduce(x, 1),
                np.bitwise_xor.reduce(x, 1), x[:, :12].sum(1, dtype=np.int32)]
    assert_array_equal(y.numpy(), np.stack(expected, 1))


def judge_packed(m: sim.Machine, kernel: Any, dtype: Any) -> None:
    """The first value of every pair is 1, so what odd places held before is their own count."""
    rng = np.random.default_rng(5)
    index = rng.integers(0, 6, 150, np.int32)
    x = np.stack([np.ones(150), rng.integers(-4, 5, 150)], 1).astype(dtype)
    sums, before = m.zeros((6, 2), dtype), m.empty((150, 2), dtype)
    kernel.launch(3, 64, (m.array(x), m.array(index), sums, before, np.int32(150)))
    expected = np.zeros((6, 2))
    np.add.at(expected, index, x.astype(np.float64))
    assert_array_equal(sums.numpy().astype(np.float64), expected)
    for place in (1, 3, 5):
        counts = np.sort(before.numpy()[index == place, 0].astype(np.float64))
        assert_array_equal(counts, np.arange(len(counts)))


@program("hints.cu")
def packed_half(m: sim.Machine, mod: Any) -> None:
    judge_packed(m, mod.kernel("packed_half"), np.float16)


@program("hints.cu", since="sm_90")
def packed_bfloat16(m: sim.Machine, mod: Any) -> None:
    judge_packed(m, mod.kernel("packed_bfloat16"), ml_dtypes.bfloat16)


@program("hints.cu", since="sm_90")
def vector_reductions(m: sim.Machine, mod: Any) -> None:
    rng = np.random.default_rng(6)
    x, tokens = rng.standard_normal((21, 44), np.float32), rng.integers(0, 5, 21, np.int32)
    table = m.zeros((5, 44), np.float32)
    args = m.array(x), m.array(tokens), table, np.int32(21), np.int32(44)
    mod.kernel("vector_reductions").launch(6, (8, 4), args)
    expected = np.zeros((5, 44))
    np.add.at(expected, tokens, x.astype(np.float64))
    assert_allclose(table.numpy(), expected, rtol=1e-5, atol=1e-6)

    pairs = rng.integers(-9, 9, (100, 2)).astype(np.float32)
    index = rng.integers(0, 8, 100, np.int32)
    sums, before = m.zeros((16, 2), np.float32), m.empty((100, 2), np.float32)
    args = m.array(pairs), m.array(index), sums, before, np.int32(100)
    mod.kernel("vector_atomics").launch(2, 64, args)
    expected = np.zeros((16, 2))
    np.add.at(expected, index, pairs)
    expected[8:] = np.bincount(index, minlength=8)[:, None] * [1, -1]
    assert_array_equal(sums.numpy(), expected)
    for place in range(8):
        old = before.numpy()[index == place]
        assert_array_equal(np.sort(old[:, 0]), np.arange(len(old)))
        assert_array_equal(old[:, 1], -old[:, 0])


@program("hints.cu", since="sm_90")
def elected_leader(m: sim.Machine, mod: Any) -> None:
    x = np.random.default_rng(7).integers(-999, 999, 300, np.int32)
    y = m.zeros(1, np.int32)
    mod.kernel("elected").launch(4, 96, (m.array(x), y, np.int32(300)))
    assert y.numpy()[0] == x.sum()


@program("hints.cu")
def large_shared_memory(m: sim.Machine, mod: Any) -> None:
    rng = np.random.default_rng(8)
    bins = 15000
    x = rng.integers(0, 4 * bins, 3000, np.uint16)
    x[::100] = 4 * 1234 + rng.integers(0, 4, 30)
    most = m.empty(1, np.uint32)
    args = m.array(x), most, np.int32(3000)
    mod.kernel("large_shared").launch(1, 256, args, shared_mem=4 * bins)
    counts = np.bincount(x // 4)
    assert most.numpy()[0] == counts.max() << 14 | (bins - counts.argmax())


@program("hints.cu")
def carved_shared_memory(m: sim.Machine, mod: Any) -> None:
    rng = np.random.default_rng(9)
    d, f, c = rng.standard_normal(75), rng.standard_normal(75, np.float32), rng.integers(-9, 9, 75)
    y = m.empty(2, np.float64)
    args = m.array(d), m.array(f), m.array(c.astype(np.int8)), y, np.int32(75)
    mod.kernel("carved").launch(2, 64, args, shared_mem=75 * (8 + 4 + 1))
    assert_allclose(y.numpy(), np.full(2, d[::-1] @ f.astype(np.float64) + c.sum()), rtol=1e-12)


@program("hints.cu")
def full_block(m: sim.Machine, mod: Any) -> None:
    for block in (1024, (37, 9, 3), (1, 1, 33)):
        size = int(np.prod(block))
        x = np.random.default_rng(size).integers(-99, 99, size, np.int32)
        y = m.empty(1, np.int32)
        mod.kernel("full_block").launch(1, block, (m.array(x), y))
        assert y.numpy()[0] == x.sum()

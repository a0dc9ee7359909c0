"""Sorting networks, radix sort, selection, merging."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.testing import assert_array_equal
from sim.corpus.program import program

from mlgpu import sim


@program("sort.cu")
def bitonic_pairs(m: sim.Machine, mod: Any) -> None:
    for n in (128, 90, 1):
        x = np.random.default_rng(0).standard_normal((2, n)).astype(np.float32)
        keys = m.array(x)
        values = m.array(np.broadcast_to(np.arange(n, dtype=np.int32), (2, n)).copy())
        mod.kernel("bitonic_pairs").launch(2, 128, (keys, values, np.int32(n)))
        assert_array_equal(keys.numpy(), np.sort(x, 1))
        assert_array_equal(values.numpy(), np.argsort(x, 1))


@program("sort.cu")
def bitonic_warp(m: sim.Machine, mod: Any) -> None:
    x = np.random.default_rng(1).integers(-99, 99, (6, 32), np.int32)
    out = m.array(x)
    mod.kernel("bitonic_warp").launch(2, 96, (out,))
    assert_array_equal(out.numpy(), np.sort(x, 1))


@program("sort.cu")
def odd_even(m: sim.Machine, mod: Any) -> None:
    for n in (64, 38):
        x = np.random.default_rng(2).integers(-999, 999, (2, n), np.int16)
        x[1] = np.arange(n)[::-1]  # needs every round
        out = m.array(x)
        mod.kernel("odd_even").launch(2, 32, (out, np.int32(n)), shared_mem=2 * n)
        assert_array_equal(out.numpy(), np.sort(x, 1))


@program("sort.cu")
def radix_sort(m: sim.Machine, mod: Any) -> None:
    n, block = 400, 96
    blocks = -(-n // block)
    x = np.random.default_rng(3).integers(0, 2**12, n).astype(np.uint32)
    source, target = m.array(x), m.empty(n, np.uint32)
    counts = m.empty(16 * blocks, np.uint32)
    for shift in (0, 4, 8):
        size, by = np.int32(n), np.int32(shift)
        mod.kernel("radix_count").launch(blocks, block, (counts, source, size, by))
        mod.kernel("radix_offsets").launch(1, 16, (counts, np.int32(blocks)))
        mod.kernel("radix_scatter").launch(blocks, block, (target, source, counts, size, by))
        source, target = target, source
    assert_array_equal(source.numpy(), np.sort(x))


@program("sort.cu")
def radix_scatter_is_stable(m: sim.Machine, mod: Any) -> None:
    n, block = 200, 64
    blocks = -(-n // block)
    digit = np.random.default_rng(4).integers(0, 16, n)
    x = (digit | np.arange(n) << 4).astype(np.uint32)
    source, target, counts = m.array(x), m.empty(n, np.uint32), m.empty(16 * blocks, np.uint32)
    mod.kernel("radix_count").launch(blocks, block, (counts, source, np.int32(n), np.int32(0)))
    mod.kernel("radix_offsets").launch(1, 16, (counts, np.int32(blocks)))
    args = target, source, counts, np.int32(n), np.int32(0)
    mod.kernel("radix_scatter").launch(blocks, block, args)
    assert_array_equal(target.numpy(), x[np.argsort(digit, kind="stable")])


@program("sort.cu")
def top_k(m: sim.Machine, mod: Any) -> None:
    for n, k in ((100, 5), (33, 4), (3, 3)):
        x = np.random.default_rng(5).standard_normal((2, n)).astype(np.float32)
        x[:, n // 2] = x[:, 0]  # of equal values the first comes first
        values, indices = m.empty((2, k), np.float32), m.empty((2, k), np.int32)
        args = values, indices, m.array(x), np.int32(n), np.int32(k)
        mod.kernel("top_k").launch(2, 32, args, shared_mem=4 * n)
        order = np.argsort(-x, 1, kind="stable")[:, :k]
        assert_array_equal(indices.numpy(), order)
        assert_array_equal(values.numpy(), np.take_along_axis(x, order, 1))


@program("sort.cu")
def kth_smallest(m: sim.Machine, mod: Any) -> None:
    x = np.random.default_rng(6).integers(0, 2**32, 150, np.uint32)
    x[40:90] = x[40]
    for k in (0, 77, 149):
        out = m.empty((), np.uint32)
        mod.kernel("kth_smallest").launch(1, 96, (out, m.array(x), np.int32(x.size), np.int32(k)))
        assert out.numpy() == np.sort(x)[k]


@program("sort.cu")
def merge_sorted(m: sim.Machine, mod: Any) -> None:
    rng = np.random.default_rng(7)
    for na, nb in ((100, 57), (0, 12), (31, 1)):
        a, b = (np.sort(rng.integers(0, 60, n, np.int32)) for n in (na, nb))
        out = m.empty(na + nb, np.int32)
        padded = [m.array(np.append(v, np.int32(0))) for v in (a, b)]  # no empty buffers
        args = out, padded[0], np.int32(na), padded[1], np.int32(nb)
        mod.kernel("merge_sorted").launch(2, 32, args)
        assert_array_equal(out.numpy(), np.sort(np.concatenate([a, b])))

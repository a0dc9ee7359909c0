"""Reductions of warps, blocks and grids."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.testing import assert_allclose, assert_array_equal
from sim.corpus.program import program

from mlgpu import sim

Array = np.ndarray[Any, Any]


def _values(seed: int, *shape: int) -> Array:
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


@program("reduction.cu")
def block_sum(m: sim.Machine, mod: Any) -> None:
    for n, grid, block in ((1, 1, 32), (200, 2, 128), (150, 3, 64)):
        x = _values(0, n)
        out = m.empty(grid, np.float32)
        mod.kernel("block_sum").launch(grid, block, (out, m.array(x), np.int32(n)),
                                       shared_mem=4 * block)
        padded = np.zeros(grid * block)
        padded[:n] = x
        assert_allclose(out.numpy(), padded.reshape(grid, block).sum(1), rtol=1e-5, atol=1e-5)


@program("reduction.cu")
def block_sum_unrolled(m: sim.Machine, mod: Any) -> None:
    for n, grid in ((90, 1), (700, 2), (1111, 3)):
        x = _values(1, n)
        out = m.empty(grid, np.float32)
        mod.kernel("block_sum_unrolled").launch(grid, 128, (out, m.array(x), np.int32(n)))
        chunk = np.arange(n) // 256 % grid
        expected = np.bincount(chunk, x.astype(np.float64), grid)
        assert_allclose(out.numpy(), expected, rtol=1e-5, atol=2e-5)


@program("reduction.cu")
def normalise_by_sum(m: sim.Machine, mod: Any) -> None:
    for rows, n, block in ((2, 33, 32), (3, 301, 96), (1, 10, 128)):
        x = np.abs(_values(2, rows, n))
        out = m.empty((rows, n), np.float32)
        mod.kernel("normalise_by_sum").launch(rows, block, (out, m.array(x), np.int32(n)))
        expected = x / x.sum(1, keepdims=True, dtype=np.float64)
        assert_allclose(out.numpy(), expected, rtol=2e-6)


@program("reduction.cu")
def two_stage_sum(m: sim.Machine, mod: Any) -> None:
    n, grid = 2500, 40
    x = _values(3, n)
    partial, out = m.empty(grid, np.float32), m.empty((), np.float32)
    mod.kernel("block_sum").launch(grid, 64, (partial, m.array(x), np.int32(n)), shared_mem=256)
    mod.kernel("final_sum").launch(1, 32, (out, partial, np.int32(grid)))
    assert_allclose(out.numpy(), x.sum(dtype=np.float64), rtol=1e-5, atol=1e-4)


@program("reduction.cu")
def sum_last_block(m: sim.Machine, mod: Any) -> None:
    kernel = mod.kernel("sum_last_block")
    for n, grid in ((50, 1), (3000, 7), (999, 5)):  # the counter starts at zero each time
        x = _values(4, n)
        out, partial = m.empty((), np.float32), m.empty(grid, np.float32)
        found = []
        for _ in range(2):
            kernel.launch(grid, 128, (out, partial, m.array(x), np.int32(n)))
            found.append(float(out.numpy()))
        assert_allclose(found[0], x.sum(dtype=np.float64), rtol=1e-5, atol=1e-4)
        assert found[0] == found[1]
        assert int(mod.symbol("finished").numpy().item()) == 0


@program("reduction.cu")
def sum_last_block_volatile(m: sim.Machine, mod: Any) -> None:
    ticket = m.zeros((), np.uint32)
    for n, grid in ((500, 4), (130, 3)):
        x = _values(5, n)
        out, partial = m.empty((), np.float32), m.empty(grid, np.float32)
        args = partial, m.array(x), np.int32(n), ticket, out
        mod.kernel("sum_last_block_volatile").launch(grid, 64, args)
        assert_allclose(out.numpy(), x.sum(dtype=np.float64), rtol=1e-5, atol=1e-4)
        assert ticket.numpy() == 0


@program("reduction.cu")
def sum_atomic(m: sim.Machine, mod: Any) -> None:
    for n in (31, 1500):
        x = _values(6, n)
        out = m.zeros((), np.float64)
        mod.kernel("sum_atomic").launch(4, 96, (out, m.array(x), np.int32(n)))
        assert_allclose(out.numpy(), x.sum(dtype=np.float64), rtol=1e-12, atol=1e-12)


@program("reduction.cu")
def argmax(m: sim.Machine, mod: Any) -> None:
    ties = np.array([-2, 5, 1, 5, 5, -7], np.float32)
    negative = -np.abs(_values(7, 400)) - 1
    for x in (ties, negative, _values(8, 777), np.array([-np.inf, -0.0, 0.0], np.float32)):
        best = m.zeros((), np.uint64)
        mod.kernel("argmax").launch(3, 64, (best, m.array(x), np.int32(x.size)))
        index = 0xFFFFFFFF - (int(best.numpy()) & 0xFFFFFFFF)
        # In this order of bits -0 comes before 0, unlike in NumPy's.
        expected = 2 if np.isinf(x[0]) else int(x.argmax())
        assert index == expected


@program("reduction.cu")
def welford(m: sim.Machine, mod: Any) -> None:
    # A mean far from zero: the textbook's E[x²] - E[x]² would lose all digits.
    for n in (3, 128, 513):
        x = (_values(9, 2, n) + 1000).astype(np.float32)
        mean, variance = m.empty(2, np.float32), m.empty(2, np.float32)
        mod.kernel("welford").launch(2, 96, (mean, variance, m.array(x), np.int32(n)))
        wide = x.astype(np.float64)
        assert_allclose(mean.numpy(), wide.mean(1), rtol=1e-6)
        assert_allclose(variance.numpy(), wide.var(1), rtol=1e-3)


@program("reduction.cu")
def column_sum(m: sim.Machine, mod: Any) -> None:
    for rows, columns in ((5, 33), (37, 20), (64, 70)):
        x = _values(10, rows, columns)
        out = m.empty(columns, np.float32)
        grid = -(-columns // 32)
        args = out, m.array(x), np.int32(rows), np.int32(columns)
        mod.kernel("column_sum").launch(grid, (32, 8), args)
        assert_allclose(out.numpy(), x.sum(0, dtype=np.float64), rtol=1e-5, atol=1e-5)


FUNCTORS = {"reduce_rows<int, Max>": (np.int32, np.max, -(2**31)),
            "reduce_rows<double, Max>": (np.float64, np.max, -1e300),
            "reduce_rows<float, Product>": (np.float32, np.prod, 1),
            "reduce_rows<unsigned long long, Product>": (np.uint64, np.prod, 1)}


@program("reduction.cu", names=tuple(FUNCTORS))
def reduce_rows(m: sim.Machine, mod: Any) -> None:
    rng = np.random.default_rng(11)
    for name, (dtype, operation, start) in FUNCTORS.items():
        for n, block in ((40, 32), (150, 64)):
            x = rng.uniform(0.5, 1.6, (3, n)) if dtype == np.float32 else \
                rng.integers(1, 1000, (3, n)).astype(dtype)
            if dtype == np.uint64:
                x = x.astype(dtype) | dtype(1)  # an even product of so many would be 0
            x = x.astype(dtype)
            out = m.empty(3, dtype)
            mod.kernel(name).launch(3, block, (out, m.array(x), np.int32(n), dtype(start)))
            wide = x.astype(np.float64) if dtype == np.float32 else x
            assert_allclose(out.numpy(), operation(wide, axis=1), rtol=1e-4
                            if dtype == np.float32 else 0)


@program("reduction.cu", since="sm_80")
def warp_redux(m: sim.Machine, mod: Any) -> None:
    x = np.random.default_rng(12).integers(-2**31, 2**31, (4, 32), np.int32)
    x[1, 5] |= 7
    out = m.empty((4, 32), np.int32)
    mod.kernel("warp_redux").launch(2, 64, (out, m.array(x)))
    bits = x.view(np.uint32)
    expected = np.empty((4, 32), np.uint32)
    expected[:, :12] = bits[:, :12].sum(1, keepdims=True, dtype=np.uint32)
    expected[:, 12:] = bits[:, 12:].sum(1, keepdims=True, dtype=np.uint32)
    expected[:, 0] = bits.sum(1, dtype=np.uint32)
    expected[:, 1] = x.min(1).view(np.uint32)
    expected[:, 2] = bits.max(1)
    expected[:, 3] = np.bitwise_and.reduce(bits, 1)
    expected[:, 4] = np.bitwise_or.reduce(bits, 1)
    expected[:, 5] = np.bitwise_xor.reduce(bits, 1)
    assert_array_equal(out.numpy().view(np.uint32), expected)

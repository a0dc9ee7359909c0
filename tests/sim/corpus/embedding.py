"""Gathering rows by index and adding them back."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
from numpy.testing import assert_allclose, assert_array_equal
from sim.corpus.program import program

from mlgpu import sim

Array = np.ndarray[Any, Any]
BF16 = ml_dtypes.bfloat16


def _added(shape: tuple[int, ...], indices: Array, values: Array) -> Array:
    total = np.zeros(shape)
    np.add.at(total, indices, values.astype(np.float64))
    return total


@program("embedding.cu")
def gather_rows(m: sim.Machine, mod: Any) -> None:
    rng = np.random.default_rng(0)
    for tokens, width in ((7, 20), (5, 160)):
        table = rng.standard_normal((10, width)).astype(np.float32)
        indices = rng.integers(0, 10, tokens)
        indices[1], indices[2] = -1, 10
        out = m.empty((tokens, width), np.float32)
        sizes = np.int32(tokens), np.int32(10), np.int32(width // 4)
        mod.kernel("gather_rows").launch(-(-tokens // 4), (32, 4), (
            out, m.array(table), m.array(indices.astype(np.int64)), *sizes))
        expected = table[np.clip(indices, 0, 9)]
        expected[1:3] = 0
        assert_array_equal(out.numpy(), expected)


@program("embedding.cu")
def scatter_add(m: sim.Machine, mod: Any) -> None:
    rng = np.random.default_rng(1)
    tokens, width = 30, 9
    dy = rng.standard_normal((tokens, width)).astype(np.float32)
    indices = rng.integers(0, 4, tokens, np.int32)
    grad = m.zeros((5, width), np.float32)
    args = grad, m.array(dy), m.array(indices), np.int32(tokens), np.int32(width)
    mod.kernel("scatter_add").launch(2, 64, args)
    assert_allclose(grad.numpy(), _added((5, width), indices, dy), rtol=1e-5, atol=1e-5)


# Small integers: every order of additions gives the same sum, in eight bits too.
def _integers(rng: np.random.Generator, shape: tuple[int, ...], dtype: Any) -> Array:
    return rng.integers(-3, 4, shape).astype(dtype)


@program("embedding.cu")
def scatter_add_half2(m: sim.Machine, mod: Any) -> None:
    rng = np.random.default_rng(2)
    tokens, pairs = 20, 5
    dy = _integers(rng, (tokens, 2 * pairs), np.float16)
    indices = rng.integers(0, 4, tokens, np.int32)
    grad = m.zeros((4, 2 * pairs), np.float16)
    args = grad, m.array(dy), m.array(indices), np.int32(tokens), np.int32(pairs)
    mod.kernel("scatter_add_half2").launch(2, 64, args)
    assert_array_equal(grad.numpy(), _added((4, 2 * pairs), indices, dy))


@program("embedding.cu")
def scatter_add_half(m: sim.Machine, mod: Any) -> None:
    rng = np.random.default_rng(3)
    n = 75
    dy = _integers(rng, (n,), np.float16)
    indices = rng.integers(0, 7, n, np.int32)
    grad = m.zeros(8, np.float16)
    mod.kernel("scatter_add_half").launch(3, 32, (grad, m.array(dy), m.array(indices), np.int32(n)))
    assert_array_equal(grad.numpy(), _added((8,), indices, dy))


@program("embedding.cu")
def scatter_add_bfloat(m: sim.Machine, mod: Any) -> None:
    rng = np.random.default_rng(4)
    n = 75
    dy = _integers(rng, (n,), BF16)
    indices = rng.integers(0, 7, n, np.int32)
    grad = m.zeros(8, BF16)
    args = grad, m.array(dy), m.array(indices), np.int32(n)
    mod.kernel("scatter_add_bfloat").launch(3, 32, args)
    assert_array_equal(grad.numpy().astype(np.float64), _added((8,), indices, dy))


@program("embedding.cu")
def scatter_add_bfloat2(m: sim.Machine, mod: Any) -> None:
    rng = np.random.default_rng(5)
    tokens, pairs = 15, 3
    dy = _integers(rng, (tokens, 2 * pairs), BF16)
    indices = rng.integers(0, 4, tokens, np.int32)
    grad = m.zeros((4, 2 * pairs), BF16)
    args = grad, m.array(dy), m.array(indices), np.int32(tokens), np.int32(pairs)
    mod.kernel("scatter_add_bfloat2").launch(1, 64, args)
    assert_array_equal(grad.numpy().astype(np.float64), _added((4, 2 * pairs), indices, dy))


@program("embedding.cu")
def accumulate_double(m: sim.Machine, mod: Any) -> None:
    rng = np.random.default_rng(6)
    n = 50
    x = rng.integers(1, 100, n).astype(np.float64)
    indices = rng.integers(0, 3, n, np.int32)
    sums, before = m.zeros(3, np.float64), m.empty(n, np.float64)
    args = sums, before, m.array(x), m.array(indices), np.int32(n)
    mod.kernel("accumulate_double").launch(2, 32, args)
    assert_array_equal(sums.numpy(), np.bincount(indices, x, 3))
    for bin in range(3):  # the adders of a bin form a chain from zero to the sum
        mine, old = x[indices == bin], before.numpy()[indices == bin]
        order = np.argsort(old)
        assert_array_equal(old[order], np.concatenate([[0], mine[order].cumsum()[:-1]]))


@program("embedding.cu", since="sm_90")
def scatter_add_float4(m: sim.Machine, mod: Any) -> None:
    rng = np.random.default_rng(7)
    tokens, quads = 12, 4
    dy = _integers(rng, (tokens, 4 * quads), np.float32)
    indices = rng.integers(0, 3, tokens, np.int32)
    grad = m.zeros((3, 4 * quads), np.float32)
    args = grad, m.array(dy), m.array(indices), np.int32(tokens), np.int32(quads)
    mod.kernel("scatter_add_float4").launch(2, 32, args)
    assert_array_equal(grad.numpy(), _added((3, 4 * quads), indices, dy))


@program("embedding.cu")
def bag_mean(m: sim.Machine, mod: Any) -> None:
    rng = np.random.default_rng(8)
    width = 40
    table = rng.standard_normal((9, width)).astype(np.float32)
    offsets = np.array([0, 4, 4, 5, 13], np.int32)  # the second bag is empty
    indices = rng.integers(0, 9, offsets[-1], np.int32)
    out = m.empty((4, width), np.float32)
    args = out, m.array(table), m.array(indices), m.array(offsets), np.int32(width)
    mod.kernel("bag_mean").launch(4, 32, args)
    expected = np.zeros((4, width))
    for b in (0, 2, 3):
        rows = indices[offsets[b]:offsets[b + 1]]
        expected[b] = table[rows].mean(0, dtype=np.float64)
    assert_allclose(out.numpy(), expected, rtol=1e-5, atol=1e-6)


@program("embedding.cu")
def scatter_add_sorted(m: sim.Machine, mod: Any) -> None:
    rng = np.random.default_rng(9)
    tokens, width = 21, 36
    dy = rng.standard_normal((tokens, width)).astype(np.float32)
    indices = rng.integers(0, 6, tokens, np.int32)
    order = np.argsort(indices, kind="stable").astype(np.int32)
    grad = m.zeros((6, width), np.float32)
    sizes = np.int32(tokens), np.int32(width)
    args = grad, m.array(dy), m.array(indices[order]), m.array(order), *sizes
    mod.kernel("scatter_add_sorted").launch(6, 128, args)
    expected = np.zeros((6, width), np.float32)
    for row, index in enumerate(indices):  # the same order: the same roundings
        expected[index] += dy[row]
    assert_array_equal(grad.numpy(), expected)


@program("embedding.cu")
def gather_axis0(m: sim.Machine, mod: Any) -> None:
    rng = np.random.default_rng(10)
    length, rows, columns = 6, 9, 7
    x = rng.integers(-999, 999, (length, columns), np.int16)
    index = rng.integers(-length, length, (rows, columns), np.int8)
    out = m.empty((rows, columns), np.int16)
    sizes = np.int32(rows), np.int32(columns), np.int32(length)
    mod.kernel("gather_axis0").launch(2, 32, (out, m.array(x), m.array(index), *sizes))
    assert_array_equal(out.numpy(), np.take_along_axis(x, index.astype(np.intp), 0))

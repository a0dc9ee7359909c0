"""Transposes and permutations."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.testing import assert_array_equal
from sim.corpus.program import program

from mlgpu import sim

Array = np.ndarray[Any, Any]


def _matrix(rows: int, columns: int) -> Array:
    return np.arange(rows * columns, dtype=np.float32).reshape(rows, columns)


@program("transpose.cu")
def transpose_naive(m: sim.Machine, mod: Any) -> None:
    for rows, columns, block in ((5, 40, (32, 4)), (33, 17, (8, 8))):
        x = _matrix(rows, columns)
        out = m.empty((columns, rows), np.float32)
        grid = -(-columns // block[0]), -(-rows // block[1])
        args = out, m.array(x), np.int32(rows), np.int32(columns)
        mod.kernel("transpose_naive").launch(grid, block, args)
        assert_array_equal(out.numpy(), x.T)


@program("transpose.cu")
def transpose_padded(m: sim.Machine, mod: Any) -> None:
    for rows, columns in ((32, 32), (40, 67), (3, 5)):
        x = _matrix(rows, columns)
        out = m.empty((columns, rows), np.float32)
        grid = -(-columns // 32), -(-rows // 32)
        args = out, m.array(x), np.int32(rows), np.int32(columns)
        mod.kernel("transpose_padded").launch(grid, (32, 8), args)
        assert_array_equal(out.numpy(), x.T)


@program("transpose.cu")
def transpose_swizzled(m: sim.Machine, mod: Any) -> None:
    for n in (32, 96):
        x = _matrix(n, n).astype(np.int32)
        out = m.empty((n, n), np.int32)
        mod.kernel("transpose_swizzled").launch((n // 32, n // 32), (32, 8),
                                                (out, m.array(x), np.int32(n)))
        assert_array_equal(out.numpy(), x.T)


@program("transpose.cu")
def transpose_in_place(m: sim.Machine, mod: Any) -> None:
    for n in (16, 41):
        x = _matrix(n, n).astype(np.float64)
        out = m.array(x)
        tiles = -(-n // 16)
        grid = tiles * (tiles + 1) // 2
        mod.kernel("transpose_in_place").launch(grid, (16, 16), (out, np.int32(n)))
        assert_array_equal(out.numpy(), x.T)


@program("transpose.cu")
def transpose_registers(m: sim.Machine, mod: Any) -> None:
    x = np.random.default_rng(0).standard_normal((48, 4, 4), np.float32)
    out = m.empty(x.shape, np.float32)
    mod.kernel("transpose_registers").launch(2, 96, (out, m.array(x)))
    assert_array_equal(out.numpy(), x.transpose(0, 2, 1))


@program("transpose.cu")
def permute(m: sim.Machine, mod: Any) -> None:
    layout = np.dtype([("rank", np.int32), ("shape", np.int32, 5), ("stride", np.int32, 5)])
    for shape, axes in (((3, 5), (1, 0)), ((2, 3, 4, 5), (3, 1, 0, 2)), ((2, 3, 2, 3, 4),
                                                                         (4, 2, 0, 3, 1))):
        x = np.arange(np.prod(shape), dtype=np.uint16).reshape(shape)
        view = x.transpose(axes)
        record = np.zeros((), layout)
        record["rank"] = len(shape)
        record["shape"][:len(shape)] = view.shape
        record["stride"][:len(shape)] = np.array(view.strides) // 2
        out = m.empty(view.shape, np.uint16)
        args = out, m.array(x), record[()], np.int32(x.size)
        mod.kernel("permute").launch(3, 64, args)
        assert_array_equal(out.numpy(), view)

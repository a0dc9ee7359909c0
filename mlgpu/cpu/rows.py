"""Work along one axis of an array in blocks of rows that stay in cache.

Softmax, normalisations and class losses share it: an array is laid out as (rows, n), or as
(rows, n, columns) where the axis is not the last, and always reduced along axis 1.  Half types are
widened to float32 block by block and rounded once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from mlgpu.cpu.gemm import contiguous
from mlgpu.cpu.runtime import empty

Array = np.ndarray[Any, Any]
Place = tuple[slice, ...]

# Elements of a block: with 64K to 256K the operands of a pass stay in the level-2 and level-3
# caches; measured on softmax and layer norm, where smaller and larger ones are slower.
BLOCK = 1 << 17


def wide(dtype: Any) -> Any:
    """The NumPy dtype that arithmetic on `dtype` runs in: float32 for the half types."""
    return np.dtype(np.float32) if dtype.itemsize == 2 and dtype.kind in "fV" else dtype


def layout(shape: tuple[int, ...], dim: int) -> tuple[int, ...]:
    """The shape in which axis `dim` is axis 1: (rows, n), or (rows, n, columns)."""
    rows = math.prod(shape[:dim])
    columns = math.prod(shape[dim + 1:])
    return (rows, shape[dim]) if columns == 1 else (rows, shape[dim], columns)


def as_rows(x: Array, dim: int) -> Array:
    """`x` with axis `dim` as axis 1; a view where `x` is C-contiguous."""
    return contiguous(x).reshape(layout(x.shape, dim) if x.ndim else (1, 1))


def kept(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of one value per row."""
    return (shape[0], 1, *shape[2:])


def blocks(shape: tuple[int, ...]) -> Iterator[Place]:
    """Places of cache-sized blocks that hold whole rows along axis 1."""
    rows, n, *rest = shape
    columns = rest[0] if rest else 1
    step = max(1, BLOCK // max(1, n * columns))
    if rest and n * columns > BLOCK:
        width = max(16, BLOCK // n)
        for row in range(rows):
            for column in range(0, columns, width):
                yield slice(row, row + 1), slice(None), slice(column, column + width)
        return
    for row in range(0, rows, step):
        yield (slice(row, row + step),)


def block_size(shape: tuple[int, ...]) -> int:
    """Elements of the largest of `blocks(shape)`."""
    rows, n, *rest = shape
    columns = rest[0] if rest else 1
    if rest and n * columns > BLOCK:
        return n * min(columns, max(16, BLOCK // n))
    return min(rows, max(1, BLOCK // max(1, n * columns))) * n * columns


class Scratch:
    """One accounted buffer, seen in the shape of whichever block is at hand."""

    def __init__(self, shape: tuple[int, ...], dtype: Any) -> None:
        self.flat = empty((block_size(shape),), dtype)

    def like(self, block: Array) -> Array:
        return self.flat[:block.size].reshape(block.shape)


def each_block(function: Callable[..., None], out: Array, *inputs: Array) -> None:
    """`function(out, *inputs)` block by block, every array in its compute dtype.

    All arrays have `out`'s layout or one value per row.  Inputs that are not of a half type are
    passed as they are, so a function may also write one value per row into them.
    """
    compute = wide(out.dtype)
    result = None if out.dtype == compute else Scratch(out.shape, compute)

    def rounded(target: Array, *blocks: Array) -> None:
        block = target if result is None else result.like(target)
        function(block, *blocks)
        if result is not None:
            np.copyto(target, block, casting="unsafe")

    _each(rounded, out.shape, (out,), inputs)


def read_blocks(function: Callable[..., None], *inputs: Array) -> None:
    """`function(*inputs)` block by block, as `each_block` without an output of full size."""
    _each(function, inputs[0].shape, (), inputs)


def _each(function: Callable[..., None], shape: tuple[int, ...], outs: tuple[Array, ...],
          inputs: tuple[Array, ...]) -> None:
    wides = [None if x.dtype == wide(x.dtype) else Scratch(shape, wide(x.dtype)) for x in inputs]
    for place in blocks(shape):
        function(*[out[place] for out in outs],
                 *[x[place] if s is None else _widened(x[place], s)
                   for x, s in zip(inputs, wides, strict=True)])


def _widened(x: Array, scratch: Scratch) -> Array:
    block = scratch.like(x)
    np.copyto(block, x, casting="unsafe")
    return block


def sums(x: Array) -> Array:
    """The sum of each row, one value per row; as a product with ones, the fastest way to add."""
    if x.ndim == 2:
        return x @ np.ones((x.shape[1], 1), x.dtype)
    return np.ones((1, x.shape[1]), x.dtype) @ x


def dots(a: Array, b: Array, scratch: Scratch) -> Array:
    """The inner product of each pair of rows, one value per row."""
    if a.ndim == 2:
        return np.vecdot(a, b)[:, None]  # type: ignore[no-any-return]
    return sums(np.multiply(a, b, out=scratch.like(a)))

"""Work along one axis of an array in blocks of rows that stay in cache, on several threads.

Softmax, normalisations and class losses share it: an array is laid out as (rows, n), or as
(rows, n, columns) where the axis is not the last, and always reduced along axis 1.  Half types are
widened to float32 block by block and rounded once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from mlgpu.cpu.gemm import contiguous
from mlgpu.cpu.runtime import empty, zeros
from mlgpu.cpu.threads import parallel

Array = np.ndarray[Any, Any]
Place = tuple[slice, ...]

# Elements of a block: with 64K to 256K the operands of a pass stay in the level-2 and level-3
# caches; measured on softmax and layer norm, where smaller and larger ones are slower.
BLOCK = 1 << 17

# Partial sums over rows, at most: enough to share out, few enough to hold.
GROUPS = 16


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


def each_block(function: Callable[..., None], out: Array, *inputs: Array, scratch: int = 0,
               parts: Sequence[Array] = ()) -> None:
    """`function(out, *inputs, *scratch, *parts)` block by block, on several threads.

    All arrays have `out`'s layout or one value per row, and come in their compute dtypes.  Inputs
    that are not of a half type are passed as they are, so a function may also write one value per
    row into them.  `scratch` is how many workspaces of the block's shape it gets; to the `parts`,
    made by `partial_sums`, it adds.
    """
    _each(function, out.shape, out, inputs, scratch, parts)


def read_blocks(function: Callable[..., None], *inputs: Array, scratch: int = 0,
                parts: Sequence[Array] = ()) -> None:
    """`function(*inputs, ...)` block by block, as `each_block` without an output of full size."""
    _each(function, inputs[0].shape, None, inputs, scratch, parts)


def partial_sums(shape: tuple[int, ...], sums: tuple[int, ...], dtype: Any) -> Array:
    """Zeros of shape (groups, *sums): one summand for each group of blocks of `shape`.

    The groups are a matter of shape alone, so that a sum over them never depends on threads.
    """
    return zeros((_groups(sum(1 for _ in blocks(shape))), *sums), dtype)


def _groups(count: int) -> int:
    return min(count, GROUPS, max(2, count // 2))


def _each(function: Callable[..., None], shape: tuple[int, ...], out: Array | None,
          inputs: tuple[Array, ...], scratch: int, parts: Sequence[Array]) -> None:
    places = list(blocks(shape))
    tasks = _groups(len(places)) if parts else len(places)
    compute = wide((inputs[0] if out is None else out).dtype)

    def start() -> Callable[[int], None]:
        result = None if out is None or out.dtype == compute else Scratch(shape, compute)
        wides = [None if x.dtype == wide(x.dtype) else Scratch(shape, wide(x.dtype))
                 for x in inputs]
        spare = [Scratch(shape, compute) for _ in range(scratch)]

        def body(task: int) -> None:
            own = [part[task] for part in parts]
            for place in places[len(places) * task // tasks:len(places) * (task + 1) // tasks]:
                blocks = [x[place] if s is None else _widened(x[place], s)
                          for x, s in zip(inputs, wides, strict=True)]
                target = None if out is None else out[place]
                shaped = blocks[0] if target is None else target
                free = [s.like(shaped) for s in spare]
                if target is None:
                    function(*blocks, *free, *own)
                elif result is None:
                    function(target, *blocks, *free, *own)
                else:
                    function(result.like(target), *blocks, *free, *own)
                    np.copyto(target, result.like(target), casting="unsafe")
        return body

    parallel(tasks, start, math.prod(shape))


def _widened(x: Array, scratch: Scratch) -> Array:
    block = scratch.like(x)
    np.copyto(block, x, casting="unsafe")
    return block


def sums(x: Array) -> Array:
    """The sum of each row, one value per row; as a product with ones, the fastest way to add."""
    if x.ndim == 3:
        return np.ones((1, x.shape[1]), x.dtype) @ x
    if x.shape[1] < 64:
        return x @ np.ones((x.shape[1], 1), x.dtype)
    return np.vecdot(x, np.ones(x.shape[1], x.dtype))[:, None]  # type: ignore[no-any-return]


def dots(a: Array, b: Array, scratch: Array) -> Array:
    """The inner product of each pair of rows, one value per row."""
    if a.ndim == 2:
        return np.vecdot(a, b)[:, None]  # type: ignore[no-any-return]
    return sums(np.multiply(a, b, out=scratch))


def within(x: Array, least: float, most: float) -> bool:
    """Whether all numbers lie between these two, which NaN does not."""
    return bool(np.minimum.reduce(x, None) >= least and np.maximum.reduce(x, None) <= most)

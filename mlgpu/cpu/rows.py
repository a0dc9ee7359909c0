"""Work along one axis of an array in blocks of rows that stay in cache, on several threads.

Softmax, normalisations and class losses share it: an array is laid out as (rows, n), or as
(rows, n, columns) where the axis is not the last, and always reduced along axis 1.  Half types are
widened to float32 block by block and rounded once.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import lru_cache
from typing import Any

import numpy as np

from mlgpu.cpu.gemm import contiguous
from mlgpu.cpu.runtime import empty, zeros
from mlgpu.cpu.threads import get_num_threads, parallel

Array = np.ndarray[Any, Any]
Place = tuple[slice, ...]

# Elements of a block: the operands of a pass stay in the level-2 and level-3 caches.
BLOCK = 1 << 17

# Of blocks that threads share: of smaller ones they spend the time in waiting for the interpreter's
# lock; measured on softmax, layer norm and cross entropy.  Of less work the blocks are smaller, for
# every thread to have some.
LARGEST, SMALLEST = 1 << 19, 1 << 18

# From this length on, rows need no copy of what is broadcast along them or from row to row.  NumPy
# makes it, at the cost of the operation itself, of all that is shorter than its buffer; and with
# shorter rows than this the calls of its loop would cost more than that.
LONG = 512

# Tasks of a compiled loop, at least where there are as many blocks, and elements of one: small
# enough for threads that do not get on equally to end together.
LOOPS, TASK = 8, 1 << 20

# Partial sums over rows, at most: enough to share out, few enough to hold.
GROUPS = 16


@contextmanager
def broadcasting(length: int) -> Iterator[None]:
    """Within the block NumPy takes numbers per row, and rows of this length, as they lie."""
    if length < LONG:
        yield
        return
    before = np.setbufsize(LONG)
    try:
        yield
    finally:
        np.setbufsize(before)


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


def _size(shape: tuple[int, ...]) -> int:
    return min(LARGEST, max(SMALLEST, math.prod(shape) // 8))


@lru_cache(maxsize=64)
def blocks(shape: tuple[int, ...]) -> tuple[Place, ...]:
    """Places of cache-sized blocks that hold whole rows along axis 1."""
    rows, n, *rest = shape
    columns = rest[0] if rest else 1
    size = _size(shape)
    if rest and n * columns > size:
        width = max(16, size // n)
        return tuple([(slice(row, row + 1), slice(None), slice(column, column + width))
                      for row in range(rows) for column in range(0, columns, width)])
    step = max(1, size // max(1, n * columns))
    return tuple([(slice(row, row + step),) for row in range(0, rows, step)])


def block_size(shape: tuple[int, ...]) -> int:
    """Elements of the largest of `blocks(shape)`."""
    rows, n, *rest = shape
    columns = rest[0] if rest else 1
    size = _size(shape)
    if rest and n * columns > size:
        return n * min(columns, max(16, size // n))
    return min(rows, max(1, size // max(1, n * columns))) * n * columns


class Scratch:
    """One accounted buffer, seen in the shape of whichever block is at hand."""

    def __init__(self, shape: tuple[int, ...], dtype: Any) -> None:
        self.flat = empty((block_size(shape),), dtype)

    def like(self, block: Array) -> Array:
        return self.flat[:block.size].reshape(block.shape)


def each_block(function: Callable[..., None], out: Array, *inputs: Array, scratch: int = 0,
               parts: Sequence[Array] = (), last_first: bool = False, loop: bool = False) -> None:
    """`function(out, *inputs, *scratch, *parts)` block by block, on several threads.

    All arrays have `out`'s layout or one value per row, and come in their compute dtypes.  Inputs
    that are not of a half type are passed as they are, so a function may also write one value per
    row into them.  `scratch` is how many workspaces of the block's shape it gets; to the `parts`,
    made by `partial_sums`, it adds.  `last_first` is for a backward pass: what the forward pass
    read last is likely still in cache.  A compiled `loop`, which goes through memory once, gets
    many blocks as one.
    """
    _each(function, out.shape, out, inputs, scratch, parts, last_first, loop)


def read_blocks(function: Callable[..., None], *inputs: Array, scratch: int = 0,
                parts: Sequence[Array] = (), loop: bool = False) -> None:
    """`function(*inputs, ...)` block by block, as `each_block` without an output of full size."""
    _each(function, inputs[0].shape, None, inputs, scratch, parts, loop=loop)


def with_more(function: Callable[..., None], *more: Any) -> Callable[..., None]:
    """`function` with these arguments after those of a block."""
    return lambda *blocks: function(*blocks, *more)


def partial_sums(shape: tuple[int, ...], sums: tuple[int, ...], dtype: Any) -> Array:
    """Zeros of shape (groups, *sums): one summand for each group of blocks of `shape`.

    The groups are a matter of shape alone, so that a sum over them never depends on threads.
    """
    return zeros((_groups(len(blocks(shape))), *sums), dtype)


def _groups(count: int) -> int:
    return min(count, GROUPS, max(2, count // 2))


def _each(function: Callable[..., None], shape: tuple[int, ...], out: Array | None,
          inputs: tuple[Array, ...], scratch: int, parts: Sequence[Array],
          last_first: bool = False, loop: bool = False) -> None:
    places: Sequence[Place] = blocks(shape)
    tasks = _groups(len(places)) if parts else len(places)
    compute = wide((inputs[0] if out is None else out).dtype)
    converted = (out is not None and out.dtype != compute) or any(
        x.dtype != wide(x.dtype) for x in inputs)
    if loop and not converted and len(places[-1]) == 1:
        if not parts:  # whose groups are a matter of shape alone
            tasks = min(tasks, max(LOOPS, 4 * get_num_threads(), math.prod(shape) // TASK))
        ends = [len(places) * task // tasks for task in range(tasks + 1)]
        places = [(slice(places[first][0].start, places[end - 1][0].stop),)
                  for first, end in itertools.pairwise(ends)]

    def start() -> Callable[[int], None]:
        result = None if out is None or out.dtype == compute else Scratch(shape, compute)
        wides = [None if x.dtype == wide(x.dtype) else Scratch(shape, wide(x.dtype))
                 for x in inputs]
        spare = [Scratch(shape, compute) for _ in range(scratch)]

        def body(task: int) -> None:
            if last_first:
                task = tasks - 1 - task
            with nullcontext() if loop else broadcasting(shape[-1]):
                for place in places[len(places) * task // tasks:len(places) * (task + 1) // tasks]:
                    each(place, [part[task] for part in parts])

        def each(place: Place, own: list[Array]) -> None:
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


# The sums of exp(x - shift) for which exp has neither overflown nor, where it counts, underflown;
# and, where x - shift is rounded, those for which that costs the largest powers no digits.
LEAST, MOST, MOST_SHIFTED = 2.0**-16, 2.0**120, 2.0**14


def powers(x: Array, out: Array) -> tuple[Any, Array]:
    """exp(x - shift) in `out`; a shift per row, or 0, that makes that safe, and the rows' sums.

    Any shift near enough to the maximum does, and 0 is one most of the time: two passes fewer.
    Only where the sums show that it was not is the maximum looked for.  What a row's shift is
    depends on this row alone, and so does its result.
    """
    shift = _shift(x)
    np.exp(x if shift is None else np.subtract(x, shift, out=out), out=out)
    total = sums(out)
    if shift is None and _within(total, LEAST, MOST):
        return 0, total
    if shift is None:
        shift = np.zeros(total.shape, x.dtype)
    most = np.where(shift == 0, MOST, MOST_SHIFTED)
    row, _, *column = np.nonzero(~((total >= LEAST) & (total <= most)))
    if row.size:
        at: Any = (row, slice(None), *column)
        one: Any = (row, 0, *column)
        far = x[at]
        best = np.maximum.reduce(far, 1)
        np.subtract(far, best[:, None], out=far)
        out[at] = np.exp(far, out=far)
        total[one] = sums(far)[:, 0]
        shift[one] = best
    return shift, total


def _shift(x: Array) -> Array | None:
    """For each row a number that its maximum is likely near to; None where that is 0 for all."""
    first = x[:, :1]
    if _within(first, -10, 32):
        return None
    best = np.maximum.reduce(x[:, :64], 1, keepdims=True)
    near = (first >= -10) & (first <= 32) | ~np.isfinite(best)
    return np.where(near, x.dtype.type(0), best)


def _within(x: Array, least: float, most: float) -> bool:
    """Whether all numbers lie between these two, which NaN does not."""
    return bool(np.minimum.reduce(x, None) >= least and np.maximum.reduce(x, None) <= most)

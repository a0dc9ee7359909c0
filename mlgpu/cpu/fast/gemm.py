"""Products of matrices where vectors have 512 bits: OpenBLAS leaves a fifth of such cores idle.

The scheme of Goto and van de Geijn, "Anatomy of high-performance matrix multiplication" (ACM TOMS
34, 2008), with the loops of its section 5.1 the other way round: a block of `b` is copied into
panels of two vectors' columns that stay in the second-level cache, and meets a few rows of `a`,
copied likewise, that stay in the first.  So the rows of the result are written as they lie, and not
one page after the other.

Every element is a sum in the order of the depth, `DEPTH` at a time, wherever it lies: how a result
is cut among threads does not show in it.
"""

from __future__ import annotations

from typing import Any

from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from mlgpu.cpu.fast.compiler import compiled, inlined
from mlgpu.cpu.fast.tile import ACROSS, ROWS, tile
from mlgpu.cpu.fast.vectors import VECTOR, Vectors, address, whole
from mlgpu.cpu.runtime import empty

__all__ = ["multiply", "workspaces"]

Array = Any

DEPTH = 384  # of a panel, a multiple of any vector's length
_BLOCK = 640 << 10  # bytes of a block of b: of a second-level cache of 1 MB


# --- copies --------------------------------------------------------------------------------------


@intrinsic  # type: ignore[untyped-decorator]
def _turn(typing: Any, like: Any, source: Any, stride: Any, lines: Any, depth: Any, target: Any,
          width: Any, kept: Any) -> Any:
    """Element k of each line, `stride` apart, to place `width` k + the line's number.

    Up to a vector's lanes of lines; the last one stands for those beyond, up to `kept`.
    """
    def code(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        write = Vectors(builder, like.dtype)
        _, source, stride, lines, depth, target, width, kept = given
        source, target = write.address(source), write.address(target)
        last, mask = builder.sub(lines, whole(1)), write.first(kept)
        begins = []
        for i in range(write.lanes):
            begins.append(write.after(source, builder.mul(stride, write.at_most(i, last))))
        step = whole(write.lanes)
        with cgutils.for_range_slice(builder, whole(0), depth, step, inc=True) as (k, _):
            left = write.first(builder.sub(depth, k))
            columns = write.transposed([write.load(write.after(begin, k), left)
                                        for begin in begins])
            for i, column in enumerate(columns):
                at = builder.add(k, whole(i))
                with builder.if_then(builder.icmp_signed("<", at, depth)):
                    write.store(column, write.after(target, builder.mul(at, width)), mask)
        return context.get_dummy_value()

    n = types.intp
    return types.void(like, n, n, n, n, n, n, n), code


@intrinsic  # type: ignore[untyped-decorator]
def _move(typing: Any, like: Any, source: Any, stride: Any, lines: Any, depth: Any, target: Any,
          width: Any, kept: Any) -> Any:
    """As `_turn`, where lines lie side by side and places of the depth are `stride` apart.

    Lines beyond, up to `kept`, are 0.
    """
    def code(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        write = Vectors(builder, like.dtype)
        _, source, stride, lines, depth, target, width, kept = given
        source, target = write.address(source), write.address(target)
        there, mask = write.first(lines), write.first(kept)
        with cgutils.for_range(builder, depth) as loop:
            value = write.load(write.after(source, builder.mul(loop.index, stride)), there)
            write.store(value, write.after(target, builder.mul(loop.index, width)), mask)
        return context.get_dummy_value()

    n = types.intp
    return types.void(like, n, n, n, n, n, n, n), code


@intrinsic  # type: ignore[untyped-decorator]
def _strew(typing: Any, like: Any, source: Any, stride: Any, columns: Any, depth: Any, target: Any
           ) -> Any:
    """Rows, each in one go, to panels of the depth's places one after the other.

    Columns that the last panel lacks are 0.
    """
    def code(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        write = Vectors(builder, like.dtype)
        _, source, stride, columns, depth, target = given
        source, target = write.address(source), write.address(target)
        width = ACROSS // write.item
        panel, step = builder.mul(depth, whole(width)), whole(width)
        with cgutils.for_range(builder, depth) as loop:
            row = write.after(source, builder.mul(loop.index, stride))
            place = write.after(target, builder.mul(loop.index, step))
            with cgutils.for_range_slice(builder, whole(0), columns, step, inc=True) as (j, n):
                left = builder.sub(columns, j)
                for lane in range(0, width, write.lanes):
                    value = write.load(write.after(write.after(row, j), lane),
                                       write.first(left, lane))
                    write.store(value, write.after(write.after(place, builder.mul(n, panel)), lane))
        return context.get_dummy_value()

    n = types.intp
    return types.void(like, n, n, n, n, n), code


# --- loops ---------------------------------------------------------------------------------------


@inlined
def _pack(like: Array, source: Any, line: Any, step: Any, lines: Any, depth: Any, width: Any,
          target: Any) -> None:
    """A panel of `lines` lines, for each place of the depth side by side, `width` wide.

    Lines are `line` elements apart and places `step`; one of both is 1.
    """
    lanes = VECTOR // like.itemsize
    for first in range(0, lines, lanes):
        some, kept = min(lanes, lines - first), min(lanes, width - first)
        origin, place = source + first * line * like.itemsize, target + first * like.itemsize
        if step == 1:
            _turn(like, origin, line, some, depth, place, width, kept)
        else:
            _move(like, origin, step, some, depth, place, width, kept)


@compiled
def _multiply(a: Any, a_row: Any, a_column: Any, b: Any, b_row: Any, b_column: Any, out: Any,
              out_row: Any, bias: Any, m: Any, n: Any, depth: Any, space: Array) -> None:
    """out = a @ b (+ bias) of (m, depth) and (depth, n), by addresses, and strides in bytes."""
    item = space.itemsize
    a_row, a_column, out_row = a_row // item, a_column // item, out_row // item
    b_row, b_column = b_row // item, b_column // item
    left, right = space[:ROWS * DEPTH], space[ROWS * DEPTH:]
    width = ACROSS // item
    parts = -(-depth // DEPTH)
    most = -(-depth // parts)
    most += -most % 16
    blocks = -(-n // (width * max(1, _BLOCK // (most * item * width))))
    broad = -(-n // blocks)
    broad += -broad % width
    starts = bias != 0
    for begin in range(0, depth, most):
        deep = min(most, depth - begin)
        for column in range(0, n, broad):
            columns = min(broad, n - column)
            source = b + (begin * b_row + column * b_column) * item
            if b_column == 1:
                _strew(right, source, b_row, columns, deep, address(right))
            else:
                for first in range(0, columns, width):
                    _pack(right, source + first * b_column * item, b_column, b_row,
                          min(width, columns - first), deep, width,
                          address(right) + first * deep * item)
            tiles = -(-m // ROWS)
            for number in range(tiles):
                top = m * number // tiles
                high = m * (number + 1) // tiles - top
                _pack(left, a + (top * a_row + begin * a_column) * item, a_row, a_column, high,
                      deep, high, address(left))
                for first in range(0, columns, width):
                    place = (column + first) * item
                    # Lanes that are left out take long where no memory is.
                    start = bias + place if starts else address(right)
                    tile(space, high, address(left), 1, high, address(right) + first * deep * item,
                         width, deep, out + top * out_row * item + place, out_row,
                         min(width, columns - first), start, starts and begin == 0, begin > 0)


@compiled
def _place(array: Any) -> Any:
    """Its address, in a quarter of the time that NumPy takes to tell it."""
    return address(array)


def workspaces(threads: int, n: int, depth: int, dtype: Any) -> Array:
    """What `multiply` needs for products of at most these sizes: a row for each thread."""
    deep, width = min(depth, DEPTH), ACROSS // dtype.itemsize
    columns = width + min(n, _BLOCK // (deep * dtype.itemsize))
    return empty((threads, ROWS * DEPTH + columns * deep), dtype)


def multiply(a: Array, b: Array, out: Array, bias: Array | None, space: Array) -> None:
    """out = a @ b (+ bias), of matrices (m, k) and (k, n); no size is 0.

    One axis of a and of b, and the rows of out, have their elements next to each other.
    """
    _multiply(_place(a), *a.strides, _place(b), *b.strides, _place(out), out.strides[0],
              0 if bias is None else _place(bias), *out.shape, a.shape[1], space)

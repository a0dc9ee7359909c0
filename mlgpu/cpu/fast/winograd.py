"""Compiled forms of the loops of `mlgpu.cpu.winograd`, which says what they compute.

One image row at a time is turned to channels last, so that every further loop is long and dense.
"""

from __future__ import annotations

from typing import Any

from numba import types
from numba.extending import intrinsic

from mlgpu.cpu.fast.compiler import compiled, inlined
from mlgpu.cpu.fast.tile import ACROSS, ROWS, tile
from mlgpu.cpu.fast.vectors import VECTOR, Made, Vectors, address, each, whole

__all__ = ["beyond", "multiply", "panels_of", "read", "spread", "weigh", "write"]

Array = Any


# --- rows of images, to and from channels last ---------------------------------------------------


@intrinsic  # type: ignore[untyped-decorator]
def _part(typing: Any, like: Any, source: Any, stride: Any, channels: Any, low: Any, high: Any,
          even: Any, odd: Any, step: Any, places: Any) -> Any:
    """Up to a vector's lanes of columns and channels of a row, turned.

    `source` is the address of the first column of the first channel, channels are `stride`
    elements apart; columns but those from `low` to `high` count as zero.  Even columns go to
    `even`, odd ones to `odd`, as many as there are `places`, `step` elements apart.
    """
    def code(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        write = Vectors(builder, like.dtype)
        _, source, stride, channels, low, high, even, odd, step, places = given
        source, even, odd = map(write.address, (source, even, odd))
        inside = builder.and_(builder.not_(write.first(low)), write.first(high))
        last, lines = builder.sub(channels, whole(1)), []
        for i in range(write.lanes):
            line = write.after(source, builder.mul(stride, write.at_most(i, last)))
            lines.append(write.load(line, inside))
        columns = write.transposed(lines)
        all_lanes = builder.icmp_signed("==", channels, whole(write.lanes))
        for mask in write.either(all_lanes, write.first(channels)):
            for i, column in enumerate(columns):
                with builder.if_then(builder.icmp_signed("<", whole(i // 2), places)):
                    place = builder.mul(step, whole(i // 2))
                    write.store(column, write.after(odd if i % 2 else even, place), mask)
        return context.get_dummy_value()

    n = types.intp
    return types.void(like, *[n] * 9), code


@inlined
def _turn(x: Array, image: int, row: int, first: int, count: int, even: Array, odd: Array) -> None:
    """even and odd (count, C) = every second element of a row of x, from `first` and the next.

    Zero outside of x (N, C, H, W).
    """
    channels, width, item = x.shape[1], x.shape[3], x.itemsize
    lanes, stride = VECTOR // item, x.shape[2] * width
    whole_parts = 2 * count // lanes
    if 2 * count % lanes > 4:  # of few columns a vector would be empty for the most part
        whole_parts += 1
    start = address(x) + ((image * channels * x.shape[2] + row) * width + first) * item
    for channel in range(0, channels, lanes):
        some, origin = min(lanes, channels - channel), start + channel * stride * item
        for part in range(whole_parts):
            column = part * lanes
            place = (column // 2 * channels + channel) * item
            _part(x, origin + column * item, stride, some, -(first + column),
                  width - (first + column), address(even) + place, address(odd) + place, channels,
                  count - column // 2)
    for place in range(whole_parts * lanes // 2, count):
        column = first + 2 * place
        for channel in range(channels):
            line, to = x[image, channel, row], place * channels + channel
            even[to] = line[column] if 0 <= column < width else 0
            odd[to] = line[column + 1] if 0 <= column + 1 < width else 0


@intrinsic  # type: ignore[untyped-decorator]
def _part_back(typing: Any, like: Any, even: Any, odd: Any, step: Any, places: Any, channels: Any,
               bias: Any, target: Any, stride: Any, columns: Any) -> Any:
    """As `_part`, the other way: columns of a row from places, plus each channel's bias."""
    def code(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        write = Vectors(builder, like.dtype)
        _, even, odd, step, places, channels, bias, target, stride, columns = given
        even, odd, bias, target = map(write.address, (even, odd, bias, target))
        there, last = write.first(channels), builder.sub(places, whole(1))
        more, lines = write.load(bias, there), []
        for i in range(write.lanes):
            place = builder.mul(step, write.at_most(i // 2, last))
            line = write.after(odd if i % 2 else even, place)
            lines.append(builder.fadd(write.load(line, there), more))
        rows = write.transposed(lines)
        all_lanes = builder.icmp_signed("==", columns, whole(write.lanes))
        for mask in write.either(all_lanes, write.first(columns)):
            for i, row in enumerate(rows):
                with builder.if_then(builder.icmp_signed("<", whole(i), channels)):
                    write.store(row, write.after(target, builder.mul(stride, whole(i))), mask)
        return context.get_dummy_value()

    n = types.intp
    return types.void(like, *[n] * 9), code


@inlined
def _turn_back(lines: Array, bias: Array, y: Array, image: int, row: int, first: int, count: int
               ) -> None:
    """A row of y (N, O, H, W) from column `first` on = lines (2, count O), its even and odd
    elements, + bias, as far as it reaches."""
    channels, width, item = y.shape[1], y.shape[3], y.itemsize
    lanes, stride, columns = VECTOR // item, y.shape[2] * width, min(2 * count, width - first)
    start = address(y) + ((image * channels * y.shape[2] + row) * width + first) * item
    for column in range(0, columns, lanes):
        for channel in range(0, channels, lanes):
            place = (column // 2 * channels + channel) * item
            _part_back(y, address(lines[0]) + place, address(lines[1]) + place, channels,
                       count - column // 2, min(lanes, channels - channel),
                       address(bias) + channel * item,
                       start + (channel * stride + column) * item, stride,
                       min(lanes, columns - column))


# --- transforms ----------------------------------------------------------------------------------


def _combined(write: Vectors, d0: Any, d1: Any, d2: Any, d3: Any) -> Made:
    return [write.sub(d0, d2), write.add(d1, d2), write.sub(d2, d1), write.sub(d1, d3)], []


def _gathered(write: Vectors, m0: Any, m1: Any, m2: Any, m3: Any) -> Made:
    return [write.add(write.add(m1, m2), m0), write.sub(write.sub(m1, m2), m3)], []


def _scattered(write: Vectors, g0: Any, g1: Any) -> Made:
    return [g0, write.add(g0, g1), write.sub(g0, g1), write.neg(g1)], []


_combine = each(_combined, 4, 4)  # B^T d along one axis
_gather = each(_gathered, 4, 2)  # A^T m
_scatter = each(_scattered, 2, 4)  # A g


@inlined
def _addresses(rows: Array) -> tuple[int, int, int, int]:
    return address(rows[0]), address(rows[1]), address(rows[2]), address(rows[3])


@compiled
def read(x: Array, top: int, left: int, planes: Array, phases: Array, ring: Array) -> None:
    """planes (4, 4, N, r, S, C) = B^T d B of the tiles of x (N, C, H, W).

    The first tile's corner is at (top, left) of x; what lies outside counts as zero.
    phases (2, (S + 1) C) and ring (4, 4, S C) are scratch.
    """
    height = x.shape[2]
    rows, columns, channels = planes.shape[3], planes.shape[4], planes.shape[5]
    length, item, none = columns * channels, x.itemsize, (x.dtype.type(0),)
    for image in range(planes.shape[2]):
        for row in range(2 * rows + 2):
            h = top + row
            slot = ring[row % 4]
            if h < 0 or h >= height:
                slot[:, :] = 0
            else:
                _turn(x, image, h, left, columns + 1, phases[0], phases[1])
                even, odd = address(phases[0]), address(phases[1])
                _combine(x, length, (even, odd, even + channels * item, odd + channels * item,
                                     *_addresses(slot)), none)
            if row % 2 and row > 2:
                at = row // 2 - 1
                for b in range(4):
                    _combine(x, length, (
                        address(ring[(row + 1) % 4, b]), address(ring[(row + 2) % 4, b]),
                        address(ring[(row + 3) % 4, b]), address(ring[row % 4, b]),
                        *_addresses(planes[:, b, image, at])), none)


@compiled
def write(planes: Array, bias: Array, y: Array, top: int, left: int, sums: Array,
          lines: Array) -> bool:
    """y (N, O, H, W) = A^T m A + bias from planes (4, 4, N, r, S, O), as far as y reaches.

    The first tile's corner is at (top, left) of y.  Whether all that was written is finite.
    sums (2, 4, S O) and lines (2, S O) are scratch.
    """
    height = y.shape[2]
    rows, columns, channels = planes.shape[3], planes.shape[4], planes.shape[5]
    length, none = columns * channels, (y.dtype.type(0),)
    spoilt = bias[0] - bias[0]  # 0 of the dtype
    for image in range(planes.shape[2]):
        for at in range(rows):
            for b in range(4):
                _gather(y, length, (*_addresses(planes[:, b, image, at]), address(sums[0, b]),
                                    address(sums[1, b])), none)
            for row in range(min(2, height - top - 2 * at)):
                _gather(y, length, (*_addresses(sums[row]), address(lines[0]), address(lines[1])),
                        none)
                for phase in range(2):
                    line = lines[phase]
                    for q in range(length):
                        spoilt += line[q] - line[q]
                _turn_back(lines, bias, y, image, top + 2 * at + row, left, columns)
    return bool(spoilt == 0)


@compiled
def spread(y: Array, top: int, left: int, planes: Array, lines: Array) -> None:
    """planes (4, 4, N, r, S, O) = A g A^T of the tiles of y (N, O, H, W); zero outside.

    The first tile's corner is at (top, left) of y; lines (2, 4, S O) is scratch.
    """
    height = y.shape[2]
    rows, columns, channels = planes.shape[3], planes.shape[4], planes.shape[5]
    length, none = columns * channels, (y.dtype.type(0),)
    for image in range(planes.shape[2]):
        for at in range(rows):
            for row in range(2):
                line, h = lines[row], top + 2 * at + row
                if h >= height:
                    line[:, :] = 0
                    continue
                _turn(y, image, h, left, columns, line[0], line[3])
                _scatter(y, length, (address(line[0]), address(line[3]), *_addresses(line)), none)
            for b in range(4):
                _scatter(y, length, (address(lines[0, b]), address(lines[1, b]),
                                     *_addresses(planes[:, b, image, at])), none)


# --- products ------------------------------------------------------------------------------------


def panels_of(channels: int, outputs: int, dtype: Any) -> tuple[int, int, int, int]:
    """The shape of a kernel's planes (16, C, O) as panels, as many columns each as a tile has."""
    wide = ACROSS // dtype.itemsize
    return 16, -(-outputs // wide), channels, wide


def beyond(dtype: Any) -> int:
    """Elements after the last plane of gradients that `weigh` may read."""
    return ACROSS // int(dtype.itemsize)


@compiled
def multiply(seen: Array, panels: Array, made: Array) -> None:
    """made (16, tiles, O) = seen (16, tiles, C) @ the kernel of which these are the panels."""
    _, count, channels, wide = panels.shape
    length, outputs, item = made.shape[1], made.shape[2], made.itemsize
    parts = -(-length // ROWS)
    for plane in range(16):
        for part in range(parts):
            top = length * part // parts
            rows = length * (part + 1) // parts - top
            for panel in range(count):
                weights = address(panels) + (plane * count + panel) * channels * wide * item
                column = panel * wide
                tile(made, rows, address(seen) + (plane * length + top) * channels * item,
                     channels, 1, weights, wide, channels,
                     address(made) + ((plane * length + top) * outputs + column) * item, outputs,
                     min(wide, outputs - column), weights, False, False)


@compiled
def weigh(seen: Array, given: Array, totals: Array) -> None:
    """totals (16, C, O) += seen^T @ given, of planes (16, tiles, C) and (16, tiles, O).

    After the last element of `given` there is memory for a tile's columns.
    """
    length, channels, outputs = seen.shape[1], seen.shape[2], given.shape[2]
    item, parts = totals.itemsize, -(-channels // ROWS)
    wide = ACROSS // item
    for plane in range(16):
        for part in range(parts):
            top = channels * part // parts
            rows = channels * (part + 1) // parts - top
            for column in range(0, outputs, wide):
                right = address(given) + (plane * length * outputs + column) * item
                tile(totals, rows, address(seen) + (plane * length * channels + top) * item,
                     1, channels, right, outputs, length,
                     address(totals) + ((plane * channels + top) * outputs + column) * item,
                     outputs, min(wide, outputs - column), right, False, True)

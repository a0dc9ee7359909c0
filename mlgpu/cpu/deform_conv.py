"""Convolution whose taps lie where offsets say, on the CPU: blocks of sampled columns, multiplied.

Images have their channels last, so that what a tap takes from is four rows of a table, whose last
row is the zero outside.  Backward makes the columns again.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from mlgpu.cpu import segment
from mlgpu.cpu.gemm import cast, contiguous, gemm, widen
from mlgpu.cpu.rows import BLOCK, wide
from mlgpu.cpu.runtime import empty, zeros
from mlgpu.ops.window import Deformed

Array = np.ndarray[Any, Any]


class Corners(NamedTuple):
    """The four elements between which each tap lies: (4, part, place, tap), or without the 4."""

    at: Array  # rows of the table
    weight: Array
    down: Array  # how far from the upper to the lower ones the tap lies, 0 to 1
    across: Array
    factor: Array  # the mask


def forward(x: Array, offset: Array, weight: Array, mask: Array | None, bias: Array | None,
            how: Deformed) -> Array:
    """The convolution of x (n, c, h, w)."""
    out = empty((len(x), len(weight), *how.windows.small), x.dtype)
    kernel = _packed(weight, how.groups)
    flat = out.reshape(len(x), len(weight), how.places)
    for n in range(len(x)):
        table = _table(x[n], how.parts)
        for places in _blocks(x, how):
            corners = _corners(offset[n], None if mask is None else mask[n], places, how)
            columns = _columns(table, corners, how.groups)
            product = gemm(kernel, columns.swapaxes(1, 2)).reshape(len(weight), columns.shape[1])
            flat[n, :, places] = product if bias is None else product + widen(bias)[:, None]
    return out


def backward(dy: Array, x: Array, offset: Array, weight: Array, mask: Array | None,
             how: Deformed, needs: tuple[bool, ...]) -> tuple[Array | None, ...]:
    """The gradients of x, offset, weight, mask and bias that are needed."""
    kernel = _packed(weight, how.groups)
    dkernel = zeros(kernel.shape, kernel.dtype)
    dx, doffset, dmask = (zeros(a.shape, a.dtype) if need and a is not None else None
                          for need, a in ((needs[0], x), (needs[1], offset), (needs[3], mask)))
    for n in range(len(x)):
        table = _table(x[n], how.parts)
        dtable = zeros(table.shape, table.dtype)
        for places in _blocks(x, how):
            corners = _corners(offset[n], None if mask is None else mask[n], places, how)
            slope = contiguous(dy[n].reshape(len(weight), how.places)[:, places])
            slope = widen(slope).reshape(*kernel.shape[:2], slope.shape[1])
            if needs[2]:
                dkernel += gemm(slope, _columns(table, corners, how.groups))
            if dx is None and doffset is None and dmask is None:
                continue
            dcolumns = _by_part(gemm(slope.swapaxes(1, 2), kernel), how)
            if dx is not None:
                _add(dtable, dcolumns, corners)
            if doffset is not None or dmask is not None:
                _moves(None if doffset is None else doffset[n],
                       None if dmask is None else dmask[n], table, dcolumns, corners, places)
        if dx is not None:
            planes = dtable[:, :-1].transpose(0, 2, 1)
            np.copyto(dx[n], planes.reshape(dx[n].shape), casting="unsafe")
    dweight = cast(_unpacked(dkernel, weight.shape), weight.dtype) if needs[2] else None
    dbias = cast(widen(dy).sum((0, 2, 3)), dy.dtype) if needs[4] else None
    return dx, doffset, dweight, dmask, dbias


def _blocks(x: Array, how: Deformed) -> Iterator[slice]:
    """Places whose columns stay in the caches."""
    step = max(1, 4 * BLOCK // max(1, how.taps * x.shape[1]))
    for first in range(0, how.places, step):
        yield slice(first, min(how.places, first + step))


def _table(image: Array, parts: int) -> Array:
    """(part, elements and a zero, channels), widened."""
    channels = len(image) // parts
    planes = image.reshape(parts, channels, -1)
    table = empty((parts, planes.shape[2] + 1, channels), wide(image.dtype))
    np.copyto(table[:, :-1], planes.transpose(0, 2, 1), casting="unsafe")
    table[:, -1] = 0
    return table


def _corners(offset: Array, mask: Array | None, places: slice, how: Deformed) -> Corners:
    """Where the taps of some places lie."""
    win, dtype = how.windows, wide(offset.dtype)
    number = np.arange(places.start, places.stop)
    taps = np.arange(how.taps)
    moved = offset.reshape(how.parts, how.taps, 2, -1)[..., places].astype(dtype)
    whole, part = [], []
    for axis, (of_place, of_tap) in enumerate(zip(
            np.divmod(number, win.small[1]), np.divmod(taps, win.kernel[1]), strict=True)):
        start = of_place * win.stride[axis] - win.before[axis]
        at = (start[:, None] + of_tap * win.dilation[axis]).astype(dtype)
        at = at + moved[:, :, axis].swapaxes(1, 2)
        # Neither NaN nor what is far outside has an element.
        at = np.where(np.abs(at) < 2**30, at, -100).astype(dtype)
        floor = np.floor(at)
        part.append(at - floor)
        near = floor.astype(np.int64) + np.array([0, 1])[:, None, None, None]
        # The upper ones or the lower ones along axis 0, the left ones or the right ones along 1.
        whole.append(np.repeat(near, 2, 0) if axis == 0 else np.tile(near, (2, 1, 1, 1)))
    (height, width), (down, across) = win.large, part
    inside = ((whole[0] >= 0) & (whole[0] < height) & (whole[1] >= 0) & (whole[1] < width))
    weight = np.stack([a * b for a in (1 - down, down) for b in (1 - across, across)])
    factor = np.ones((1, 1, 1), dtype) if mask is None else mask.reshape(
        how.parts, how.taps, -1)[..., places].swapaxes(1, 2).astype(dtype)
    return Corners(np.where(inside, whole[0] * width + whole[1], height * width), weight, down,
                   across, factor)


def _columns(table: Array, corners: Corners, groups: int) -> Array:
    """(group, place, tap and channel)."""
    parts, _, channels = table.shape
    _, _, places, taps = corners.at.shape
    columns = empty((places, taps, parts, channels), table.dtype)
    weight = corners.weight * corners.factor
    for part in range(parts):
        total = columns[:, :, part]
        for i in range(4):
            taken = table[part][corners.at[i, part]]
            np.multiply(taken, weight[i, part, ..., None], out=taken)
            if i:
                np.add(total, taken, out=total)
            else:
                total[...] = taken
    by_group = columns.reshape(places, taps, groups, -1).transpose(2, 0, 1, 3)
    return by_group.reshape(groups, places, -1)


def _by_part(dcolumns: Array, how: Deformed) -> Array:
    """(part, place, tap, channel), from the order of `_columns`."""
    groups, places, _ = dcolumns.shape
    each = dcolumns.reshape(groups, places, how.taps, -1).transpose(1, 2, 0, 3)
    return contiguous(each.reshape(places, how.taps, how.parts, -1).transpose(2, 0, 1, 3))


def _add(dtable: Array, dcolumns: Array, corners: Corners) -> None:
    """Add each tap's gradient to the four elements that it takes from."""
    weight = corners.weight * corners.factor
    for part, rows in enumerate(dcolumns.reshape(len(dcolumns), -1, dcolumns.shape[3])):
        dtable[part] += segment.add_rows(
            rows, corners.at[:, part].ravel(), dtable.shape[1], np.tile(np.arange(len(rows)), 4),
            weight[:, part].ravel())


def _moves(doffset: Array | None, dmask: Array | None, table: Array, dcolumns: Array,
           corners: Corners, places: slice) -> None:
    """Write the gradients of the offsets and masks of some places of an image."""
    parts, _, taps, _ = dcolumns.shape
    dots = np.stack([np.stack([
        np.einsum("ptc,ptc->pt", dcolumns[part], table[part][corners.at[i, part]])
        for part in range(parts)]) for i in range(4)])
    if dmask is not None:
        dmask.reshape(parts, taps, -1)[..., places] = (dots * corners.weight).sum(0).swapaxes(1, 2)
    if doffset is not None:
        lines = doffset.reshape(parts, taps, 2, -1)
        down, across, factor = corners.down, corners.across, corners.factor
        dy = (dots[2] - dots[0]) * (1 - across) + (dots[3] - dots[1]) * across
        dx = (dots[1] - dots[0]) * (1 - down) + (dots[3] - dots[2]) * down
        for axis, each in enumerate((dy, dx)):
            lines[:, :, axis, places] = (factor * each).swapaxes(1, 2)


def _packed(weight: Array, groups: int) -> Array:
    """(out, c / groups, kh, kw) as (groups, out / groups, taps * c / groups), widened."""
    out, channels, kh, kw = weight.shape
    lines = widen(contiguous(weight)).reshape(out, channels, kh * kw).transpose(0, 2, 1)
    return contiguous(lines).reshape(groups, out // groups, kh * kw * channels)


def _unpacked(kernel: Array, shape: tuple[int, ...]) -> Array:
    """The reverse."""
    lines = kernel.reshape(shape[0], shape[2] * shape[3], shape[1]).transpose(0, 2, 1)
    return contiguous(lines).reshape(shape)

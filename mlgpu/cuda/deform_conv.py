"""Convolution whose taps lie where offsets say, on the device: sampled columns, then products.

Columns of some images at a time are made, multiplied and forgotten; backward makes them again.  The
image's gradient is brought together by a sort, so all results repeat to the bit.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from mlgpu.cuda import rows, segment
from mlgpu.cuda.accumulate import add_into
from mlgpu.cuda.copy import copy_into
from mlgpu.cuda.gemm import gemm
from mlgpu.cuda.launch import blocks, launch
from mlgpu.cuda.reduce import reduce
from mlgpu.cuda.runtime import contiguous, copy, empty, zeros
from mlgpu.cuda.types import ctype
from mlgpu.ops.window import Deformed

CHUNK = 64 << 20  # bytes of columns at a time, or those of one image
_MAP = np.dtype([
    *[(name, "i4", 2) for name in ("size", "places", "taps", "stride", "before", "dilation")],
    *[(name, "i4") for name in ("images", "channels", "parts", "units", "unit", "per")]],
    align=True)


def forward(x: Any, offset: Any, weight: Any, mask: Any, bias: Any, how: Deformed) -> Any:
    """The convolution of x (n, c, h, w)."""
    count, groups = len(x), how.groups
    out = empty((count, len(weight), *how.windows.small), x.dtype)
    if not out.size:
        return out
    kernel = _packed(weight, groups)
    if bias is not None:
        bias = contiguous(bias).reshape(groups, -1, 1)
    result = out.reshape(count, groups, -1, how.places)
    for part in _chunks(x, how):
        columns = _columns(*_cut(part, x, offset, mask), how)
        gemm(kernel, columns.transpose(1, 0, 3, 2), result[part], bias=bias)
    return out


def backward(dy: Any, x: Any, offset: Any, weight: Any, mask: Any, how: Deformed,
             needs: tuple[bool, ...]) -> tuple[Any, ...]:
    """The gradients of x, offset, weight, mask and bias that are needed."""
    groups, dtype = how.groups, x.dtype
    dx, doffset, dmask = (None if not need or a is None else zeros(a.shape, dtype) for need, a in (
        (needs[0], x), (needs[1], offset), (needs[3], mask)))
    kernel = _packed(weight, groups)
    chunks = list(_chunks(x, how)) if dy.size else []
    dkernel = None
    if needs[2] and len(chunks) != 1:
        dkernel = zeros(kernel.shape, rows.wide(dtype))
    for part in chunks:
        image, moved, factor = _cut(part, x, offset, mask)
        # Rows of places: (groups, places of all images, outputs of a group).
        slope = copy(dy[part].reshape(len(image), groups, -1, how.places).transpose(1, 2, 0, 3))
        slope = slope.reshape(groups, -1, len(image) * how.places)
        if needs[2]:
            columns = _columns(image, moved, factor, how).reshape(groups, slope.shape[2], -1)
            if len(chunks) == 1:
                dkernel = gemm(slope, columns)
            else:
                add_into(dkernel, gemm(slope, columns))
            del columns
        if dx is None and doffset is None and dmask is None:
            continue
        dcolumns = gemm(slope.swapaxes(1, 2), kernel)
        if dx is not None:
            copy_into(dx[part], _image_gradient(dcolumns, image.shape, moved, factor, how))
        if doffset is not None or dmask is not None:
            _moves(None if doffset is None else doffset[part],
                   None if dmask is None else dmask[part], dcolumns, image, moved, factor, how)
    dweight = None if dkernel is None else _unpacked(dkernel, weight)
    dbias = reduce(dy, (0, 2, 3), "sum") if needs[4] else None
    return dx, doffset, dweight, dmask, dbias


def _cut(part: slice, x: Any, offset: Any, mask: Any) -> tuple[Any, Any, Any]:
    """Some images with their channels last, their offsets and masks."""
    image = copy(x[part].transpose(0, 2, 3, 1))
    return image, contiguous(offset[part]), None if mask is None else contiguous(mask[part])


def _chunks(x: Any, how: Deformed) -> Iterator[slice]:
    each = max(1, CHUNK // max(1, how.places * how.taps * x.shape[1] * x.itemsize))
    for first in range(0, len(x), each):
        yield slice(first, min(len(x), first + each))


def _packed(weight: Any, groups: int) -> Any:
    """(out, c / groups, kh, kw) as (groups, out / groups, taps * c / groups)."""
    out, channels, kh, kw = weight.shape
    lines = copy(weight.reshape(out, channels, kh * kw).transpose(0, 2, 1))
    return lines.reshape(groups, out // groups, kh * kw * channels)


def _unpacked(kernel: Any, weight: Any) -> Any:
    """The reverse, in the weight's dtype."""
    out, channels, kh, kw = weight.shape
    dweight = empty(weight.shape, weight.dtype)
    copy_into(dweight.reshape(out, channels, kh * kw),
              kernel.reshape(out, kh * kw, channels).transpose(0, 2, 1))
    return dweight


def _columns(image: Any, offset: Any, mask: Any, how: Deformed) -> Any:
    """(groups, images, places, taps * channels of a group)."""
    count, channels = len(image), image.shape[3]
    unit = how.unit(channels)
    columns = empty((how.groups, count, how.places, how.taps * channels // how.groups), image.dtype)
    kernel, grid, each = _of_rows("columns", count * how.places * how.taps * (channels // unit),
                                  unit, unit, image, columns)
    launch("deform_conv", kernel, grid, 256,
           (columns, image, offset, mask, each, _map(image.shape, how)))
    return columns


def _moves(doffset: Any, dmask: Any, dcolumns: Any, image: Any, offset: Any, mask: Any,
           how: Deformed) -> None:
    """Write the gradients of offsets and masks."""
    count, channels = len(image), image.shape[3]
    kernel, grid, each = _of_rows("moves", count * how.places * how.taps * how.parts,
                                  channels // how.parts, how.unit(channels), image, dcolumns)
    launch("deform_conv", kernel, grid, 256,
           (doffset, dmask, dcolumns, image, offset, mask, each, _map(image.shape, how)))


def _of_rows(name: str, count: int, channels: int, unit: int, *arrays: Any
             ) -> tuple[str, int, int]:
    """A kernel over `count` rows of channels, its grid and the count."""
    width = rows.vector(unit, *arrays)
    lanes = min(rows.WARP, rows.power(blocks(channels, width)))
    kernel = f"deform_{name}<{ctype(arrays[0].dtype)}, {width}, {lanes}>"
    return kernel, blocks(count * lanes, 256), count


def _image_gradient(dcolumns: Any, shape: tuple[int, ...], offset: Any, mask: Any, how: Deformed
                    ) -> Any:
    """(images, c, h, w): what each element was taken for, in an order that the offsets give."""
    count, height, width, channels = shape
    unit = how.unit(channels)
    units, plane, wide = channels // unit, height * width, rows.wide(dcolumns.dtype)
    # Where all channels have the same offsets they are sorted once, else for each unit.
    keyed = 1 if how.parts == 1 else units
    sites, bound = count * how.places * how.taps * keyed, keyed * count * plane
    key = segment.INT if bound < 2**31 - 1 else segment.LONG
    element, source, weight = (empty((4 * sites,), t) for t in (key, segment.LONG, wide))
    launch("deform_conv",
           f"deform_entries<{ctype(dcolumns.dtype)}, {ctype(wide)}, {ctype(key)}>",
           blocks(sites, 256), 256,
           (element, source, weight, offset, mask, sites, keyed, _map(shape, how)))
    out = zeros((units // keyed, bound, unit), dcolumns.dtype)
    segment.combine(out, dcolumns.reshape(units // keyed, -1, unit),
                    segment.sort(element, bound, None, skip=-1), source=source, scale=weight)
    moved = out.reshape(units, count, plane, unit).transpose(1, 0, 3, 2)
    return copy(moved).reshape(count, channels, height, width)


def _map(shape: tuple[int, ...], how: Deformed) -> Any:
    """What kernels are told, for images (count, height, width, channels)."""
    win, unit = how.windows, how.unit(shape[3])
    told = np.zeros(1, _MAP)
    for name, value in (("size", win.large), ("places", win.small), ("taps", win.kernel),
                        ("stride", win.stride), ("before", win.before),
                        ("dilation", win.dilation)):
        told[name][0] = value
    told["images"], told["channels"], told["parts"] = shape[0], shape[3], how.parts
    told["unit"], told["units"] = unit, shape[3] // unit
    told["per"] = shape[3] // how.groups // unit
    return told

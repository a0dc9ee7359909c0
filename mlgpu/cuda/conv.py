"""Convolutions on the device: which kernel, by the dtype and the number of channels.

With `Windows` for the geometry, `to_small` is the convolution, `to_large` its adjoint in the input
and `to_weight` the one in the weight.  How sums are split follows from shapes alone.
"""

from __future__ import annotations

import math
from typing import Any

from mlgpu.cuda import conv_mma, runtime
from mlgpu.cuda.conv_map import (
    Axis,
    backward_axes,
    conv_map,
    forward_axes,
    image_blocks,
    pack_map,
    positions,
)
from mlgpu.cuda.launch import blocks, launch
from mlgpu.cuda.types import ctype
from mlgpu.dtypes import compute_dtype, from_numpy
from mlgpu.ops.window import Windows

THREADS = 256
COLUMNS = 64  # of a tile
FEW = 8  # channels of a group below which no tile is worth its while
ENOUGH = 512  # blocks that keep any GPU busy
LONGEST = 7  # taps of a line in kernels/depthwise_rows.cu
LEAST = 8  # steps of a share of a sum
Axes = tuple[Axis, ...]


def to_small(x: Any, weight: Any, bias: Any, win: Windows, groups: int) -> Any:
    """y[n, o, p] = bias[o] + sum over c, tap of weight[o, c, tap] x[n, c, what p sees by tap]."""
    out = runtime.empty((len(x), len(weight), *win.small), x.dtype)
    if out.size:
        gather(x, weight, bias, out, (forward_axes(win),), groups, False, win)
    return out


def to_large(y: Any, weight: Any, bias: Any, win: Windows, groups: int) -> Any:
    """Each y[n, o, p] weight[o, c, tap], summed over o into what p sees by tap; plus bias[c]."""
    out = runtime.empty((len(y), weight.shape[1] * groups, *win.large), y.dtype)
    if out.size:
        gather(y, weight, bias, out, backward_axes(win), groups, True, win)
    return out


def gather(x: Any, weight: Any, bias: Any, out: Any, lattices: tuple[Axes, ...], groups: int,
           turned: bool, win: Windows) -> None:
    """All lattices of `out`; `turned`: the weight's first axis counts the channels of x."""
    if out.shape[1] > FEW * groups and conv_mma.serves(x.dtype):
        conv_mma.gather(x, weight, bias, out, lattices, groups, turned, win)
        return
    x, weight = runtime.contiguous(x), runtime.contiguous(weight)
    bias = None if bias is None else runtime.contiguous(bias)
    for axes in lattices:
        one_lattice(x, weight, bias, out, axes, groups, turned, win)


def one_lattice(x: Any, weight: Any, bias: Any, out: Any, axes: Axes, groups: int, turned: bool,
                win: Windows) -> None:
    channels, rows = x.shape[1] // groups, out.shape[1] // groups
    pitch = channels * math.prod(a.taps for a in axes)
    # With one channel on either side both orders of the weight are the same.
    if turned and (min(channels, rows) > 1 or any(
            a.taps != k or a.stride != 1 for a, k in zip(axes, win.kernel, strict=True))):
        weight = packed(weight, axes, groups, channels, rows, win)
    few = rows <= FEW
    for start, stop in image_blocks(axes, len(x)):
        part, target = x[start:stop], out[start:stop]
        one = conv_map(axes, stop - start, groups, channels, rows, pitch)
        if few and channels == 1 and (width := line_width(axes, part, target)):
            lines = as_lines(axes)
            vectors = positions(lines, 1) // width
            threads = min(THREADS, blocks(vectors, 32) * 32)
            name = f"depthwise_rows<{ctype(x.dtype)}, {lines[1].taps}, {width}>"
            launch("depthwise_rows", name,
                   (stop - start) * groups * rows * blocks(vectors, threads), threads,
                   (part, weight, bias, target,
                    conv_map(lines, stop - start, groups, channels, rows, pitch)))
        elif few:
            each = 4 if rows > 1 else 1
            plane = positions(axes, 1)
            threads = min(THREADS, blocks(plane, 32) * 32)
            planes = (stop - start) * groups * blocks(rows, each)
            launch("depthwise", f"depthwise_gather<{ctype(x.dtype)}, {len(axes)}, {each}>",
                   planes * blocks(plane, threads), threads, (part, weight, bias, target, one))
        else:
            tiled(part, weight, bias, target, one, axes)


def line_width(axes: Axes, x: Any, y: Any) -> int:
    """Elements of the vectors that kernels/depthwise_rows.cu takes; 0 where it does not fit."""
    last = axes[-1]
    half = last.taps // 2
    if (len(axes) > 2 or x.dtype.kind in "iuc" or last.taps % 2 == 0 or last.taps > LONGEST
            or last.scale != 1 or last.spread != 1 or abs(last.step) != 1
            or last.offset != -half * last.step
            or not last.source == last.places == last.target):
        return 0
    width: int = 16 // x.dtype.itemsize
    while width > 1 and (last.places % width or x.data.ptr % (width * x.dtype.itemsize)
                         or y.data.ptr % (width * x.dtype.itemsize)):
        width //= 2
    return width if width > 1 and width >= half else 0


def as_lines(axes: Axes) -> Axes:
    """Two axes, the first of which may have a single place."""
    return axes if len(axes) == 2 else (Axis(1, 1, 1, 1, 0, 1, 0, 1, 1, 0, 1), *axes)


def tiled(x: Any, weight: Any, bias: Any, out: Any, one: Any, axes: Axes) -> None:
    """A gather in tiles, whose sums are split where there are few."""
    groups, rows, channels = (int(one[name][0]) for name in ("groups", "rows", "channels"))
    taps = math.prod(a.taps for a in axes)
    wide = compute_dtype(from_numpy(x.dtype)).numpy
    high, depth = 16 * rows_each(x.dtype, rows), 8 if x.itemsize > 8 else 16
    tiles = blocks(positions(axes, len(x)), COLUMNS) * groups * blocks(rows, high)
    steps = blocks(channels * taps, depth)
    shares = min(blocks(ENOUGH, tiles), steps // LEAST) if 2 * tiles <= ENOUGH else 1
    share = max(1, blocks(steps, max(1, shares)))
    shares = max(1, blocks(steps, share))
    total = runtime.empty((shares, tiles, high, COLUMNS), wide) if shares > 1 else None
    kind = f"{ctype(x.dtype)}, {ctype(wide)}, {len(axes)}"
    launch("conv", f"conv_gather<{kind}, {high // 16}>", (tiles, shares), THREADS,
           (x, weight, bias, out, total, one, share))
    if total is not None:
        launch("conv", f"conv_finish<{kind}, {high}, {COLUMNS}>", tiles, THREADS,
               (total, bias, out, one, shares))


def rows_each(dtype: Any, rows: int) -> int:
    """How many rows of a tile a thread has: what the registers hold, and the rows fill."""
    if dtype.itemsize > 8 or rows <= 32:
        return 2
    return 4 if dtype.itemsize > 4 or rows <= 64 else 8


def packed(weight: Any, axes: Axes, groups: int, channels: int, rows: int, win: Windows) -> Any:
    """The weight, whose first axis counts channels, as rows of (channel, tap) for a lattice."""
    out = runtime.empty((groups, rows, channels * math.prod(a.taps for a in axes)), weight.dtype)
    launch("conv", f"conv_pack<{ctype(weight.dtype)}>", blocks(out.size, THREADS), THREADS,
           (weight, out, pack_map(axes, win.kernel, groups, channels, rows)))
    return out


def to_weight(x: Any, y: Any, win: Windows, groups: int) -> Any:
    """weight[o, c, tap] = sum over n, p of y[n, o, p] x[n, c, what p sees by tap]."""
    channels, rows = x.shape[1] // groups, y.shape[1] // groups
    shape = (y.shape[1], channels, *win.kernel)
    axes = forward_axes(win)
    if not len(x) or not math.prod(shape):
        return runtime.zeros(shape, x.dtype)
    if rows * channels > FEW * FEW and conv_mma.serves(x.dtype):
        return conv_mma.to_weight(x, y, win, groups)
    x, y = runtime.contiguous(x), runtime.contiguous(y)
    terms = channels * math.prod(win.kernel)
    wide = compute_dtype(from_numpy(x.dtype)).numpy
    images = list(image_blocks(axes, len(x)))
    kind = f"{ctype(x.dtype)}, {ctype(wide)}, {len(axes)}"
    counts = [positions(axes, stop - start) for start, stop in images]
    width = line_width(axes, x, y) if channels == 1 and rows <= FEW else 0
    if width and as_lines(axes)[0].taps <= LONGEST:
        axes = as_lines(axes)
        family = "depthwise_rows"
        name = (f"depthwise_rows_weight<{ctype(x.dtype)}, {ctype(wide)}, {axes[0].taps}, "
                f"{axes[1].taps}, {width}>")
        counts = [count // width for count in counts]
        grid, step = y.shape[1], 2 * THREADS
    elif rows * channels <= FEW * FEW:
        taps = 3 if terms <= 3 else 9
        family, name = "depthwise", f"depthwise_weight<{kind}, {taps}>"
        grid, step = y.shape[1] * blocks(terms, taps), 2 * THREADS
    else:
        family, name = "conv", f"conv_weight<{kind}>"
        tile = 32 if x.dtype.itemsize > 8 else 64
        grid, step = groups * blocks(rows, tile) * blocks(terms, COLUMNS), 256
    share = step * max(1, blocks(max(counts) * grid, step * ENOUGH))
    shares = [blocks(count, share) for count in counts]
    total = runtime.empty((sum(shares), *shape), wide)
    place = 0
    for (start, stop), parts in zip(images, shares, strict=True):
        one = conv_map(axes, stop - start, groups, channels, rows, 0)
        launch(family, name, (grid, parts), THREADS,
               (x[start:stop], y[start:stop], total[place:], one, share))
        place += parts
    if place == 1 and wide == x.dtype:
        return total[0]
    out = runtime.empty(shape, x.dtype)
    launch("conv", f"conv_combine<{ctype(x.dtype)}, {ctype(wide)}>", blocks(out.size, THREADS),
           THREADS, (total, out, place, out.size))
    return out

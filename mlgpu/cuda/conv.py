"""Convolutions on the device: which kernel, by the dtype and the number of channels.

With `Windows` for the geometry, `to_small` is the convolution, `to_large` its adjoint in the input
and `to_weight` the one in the weight.  How sums are split follows from shapes alone.
"""

from __future__ import annotations

import math
from typing import Any

from mlgpu.cuda import runtime
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
WIDE = 128  # columns of a tile of the tensor cores' kernels
COLUMNS = 64  # of the others
MASKED_TAPS = 31  # for which a position keeps a bit each
BLOCK = 32  # channels at one tap that stand side by side
COORDINATES, BITS, BLOCKS, RUNS = range(4)  # see kernels/conv_mma.cu
FEW = 8  # channels of a group below which no tile is worth its while
ENOUGH = 512  # blocks that keep any GPU busy
LONGEST = 7  # taps of a line in kernels/depthwise_rows.cu
LEAST = 8  # steps of a share of a sum
Axes = tuple[Axis, ...]


def to_small(x: Any, weight: Any, bias: Any, win: Windows, groups: int) -> Any:
    """y[n, o, p] = bias[o] + sum over c, tap of weight[o, c, tap] x[n, c, what p sees by tap]."""
    out = runtime.empty((len(x), len(weight), *win.small), x.dtype)
    if out.size:
        gather(runtime.contiguous(x), runtime.contiguous(weight), bias, out, forward_axes(win),
               groups, False, win)
    return out


def to_large(y: Any, weight: Any, bias: Any, win: Windows, groups: int) -> Any:
    """Each y[n, o, p] weight[o, c, tap], summed over o into what p sees by tap; plus bias[c]."""
    out = runtime.empty((len(y), weight.shape[1] * groups, *win.large), y.dtype)
    if out.size:
        y, weight = runtime.contiguous(y), runtime.contiguous(weight)
        for axes in backward_axes(win):
            gather(y, weight, bias, out, axes, groups, True, win)
    return out


def gather(x: Any, weight: Any, bias: Any, out: Any, axes: Axes, groups: int, turned: bool,
           win: Windows) -> None:
    """One lattice of `out`; `turned`: the weight's first axis counts the channels of x."""
    channels, rows = x.shape[1] // groups, out.shape[1] // groups
    bias = None if bias is None else runtime.contiguous(bias)
    tensor = x.dtype.itemsize == 2 and rows > FEW and x.dtype.kind not in "iu"
    terms = channels * math.prod(a.taps for a in axes)
    pitch = -(-terms // 8) * 8 if tensor else terms
    # With one channel on either side both orders of the weight are the same.
    moved = turned and (min(channels, rows) > 1 or any(
        a.taps != k or a.stride != 1 for a, k in zip(axes, win.kernel, strict=True)))
    feed = how_fed(x, axes, channels) if tensor else 0
    blocked = feed == BLOCKS and terms != channels
    if pitch != terms or moved or blocked or (tensor and weight.data.ptr % 16):
        weight = packed(weight, axes, groups, channels, rows, pitch, turned, blocked, win)
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
            tiled(part, weight, bias, target, one, axes, tensor, feed)


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


def how_fed(x: Any, axes: Axes, channels: int) -> int:
    """How conv_gather_mma fills its tiles."""
    if (positions(axes, 1) % 8 == 0 and x.data.ptr % 16 == 0 and all(
            a.taps == a.scale == 1 and a.offset == 0 and a.source == a.places for a in axes)):
        return RUNS
    if channels % BLOCK == 0:
        return BLOCKS
    return BITS if math.prod(a.taps for a in axes) <= MASKED_TAPS else COORDINATES


def tiled(x: Any, weight: Any, bias: Any, out: Any, one: Any, axes: Axes, tensor: bool, feed: int
          ) -> None:
    """A gather in tiles, whose sums are split where there are few."""
    groups, rows, channels = (int(one[name][0]) for name in ("groups", "rows", "channels"))
    taps = math.prod(a.taps for a in axes)
    wide = compute_dtype(from_numpy(x.dtype)).numpy
    high, columns, depth = 16 * rows_each(x.dtype, rows), COLUMNS, 8 if x.itemsize > 8 else 16
    if tensor:
        m = 1 if rows <= 32 else 2 if rows <= 64 or feed == COORDINATES else 4
        high, columns, depth = 32 * m, WIDE, 32
    tiles = blocks(positions(axes, len(x)), columns) * groups * blocks(rows, high)
    steps = blocks(channels * taps, depth)
    shares = min(blocks(ENOUGH, tiles), steps // LEAST) if 2 * tiles <= ENOUGH else 1
    share = max(1, blocks(steps, max(1, shares)))
    shares = max(1, blocks(steps, share))
    total = runtime.empty((shares, tiles, high, columns), wide) if shares > 1 else None
    if tensor:
        whole = (all(a.spread == 1 for a in axes) and positions(axes, 1) % 8 == 0
                 and out.data.ptr % 16 == 0)
        launch("conv_mma", f"conv_gather_mma<{ctype(x.dtype)}, {len(axes)}, {m}, {feed}>",
               (tiles, shares), THREADS, (x, weight, bias, out, total, one, share, whole))
    else:
        kind = f"{ctype(x.dtype)}, {ctype(wide)}, {len(axes)}, {high // 16}"
        launch("conv", f"conv_gather<{kind}>", (tiles, shares), THREADS,
               (x, weight, bias, out, total, one, share))
    if total is not None:
        kind = f"{ctype(x.dtype)}, {ctype(wide)}, {len(axes)}, {high}, {columns}"
        launch("conv", f"conv_finish<{kind}>", tiles, THREADS, (total, bias, out, one, shares))


def rows_each(dtype: Any, rows: int) -> int:
    """How many rows of a tile a thread has: what the registers hold, and the rows fill."""
    if dtype.itemsize > 8 or rows <= 32:
        return 2
    return 4 if dtype.itemsize > 4 or rows <= 64 else 8


def packed(weight: Any, axes: Axes, groups: int, channels: int, rows: int, pitch: int,
           turned: bool, blocked: bool, win: Windows) -> Any:
    """The weight as rows of (channel, tap) for a lattice, each padded with zeros to `pitch`."""
    out = runtime.empty((groups, rows, pitch), weight.dtype)
    launch("conv", f"conv_pack<{ctype(weight.dtype)}, {'true' if turned else 'false'}>",
           blocks(out.size, THREADS), THREADS,
           (weight, out, pack_map(axes, win.kernel, groups, channels, rows, pitch, blocked)))
    return out


def to_weight(x: Any, y: Any, win: Windows, groups: int) -> Any:
    """weight[o, c, tap] = sum over n, p of y[n, o, p] x[n, c, what p sees by tap]."""
    channels, rows = x.shape[1] // groups, y.shape[1] // groups
    shape = (y.shape[1], channels, *win.kernel)
    axes = forward_axes(win)
    if not len(x) or not math.prod(shape):
        return runtime.zeros(shape, x.dtype)
    x, y = runtime.contiguous(x), runtime.contiguous(y)
    terms = channels * math.prod(win.kernel)
    wide = compute_dtype(from_numpy(x.dtype)).numpy
    images = list(image_blocks(axes, len(x)))
    kind = f"{ctype(x.dtype)}, {ctype(wide)}, {len(axes)}"
    blocked = False
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
    elif x.dtype.itemsize == 2 and x.dtype.kind not in "iu":
        whole = positions(axes, 1) % 8 == 0 and y.data.ptr % 16 == 0
        m = 1 if rows <= 32 else 2 if rows <= 64 or not whole else 4
        blocked = channels % BLOCK == 0
        family = "conv_mma"
        name = (f"conv_weight_mma<{ctype(x.dtype)}, {len(axes)}, {m}, "
                f"{'true' if whole else 'false'}, {'true' if blocked else 'false'}>")
        grid, step = groups * blocks(rows, 32 * m) * blocks(terms, WIDE), 512
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
           THREADS, (total, out, place, out.size, channels, terms // channels if blocked else 0))
    return out

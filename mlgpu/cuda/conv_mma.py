"""Convolutions of halves on tensor cores: how operands are laid out, tiles chosen and sums split.

Kernels read 16 bytes of neighbouring channels at one position, so arrays in PyTorch's order are
laid out channels last first, and weights with them (kernels/conv_layout.cu); what lies so already,
by its strides, is taken as it is.  Where positions see just their own places and planes are whole
vectors, positions are as good neighbours, and nothing is laid out.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from mlgpu.cuda import runtime
from mlgpu.cuda.conv_map import (
    Axis,
    conv_map,
    forward_axes,
    image_blocks,
    positions,
    right_map,
)
from mlgpu.cuda.launch import blocks, launch
from mlgpu.cuda.types import ctype
from mlgpu.ops.window import Windows

THREADS = 128  # of the products
WIDE = 128  # columns of a tile
DEPTH = 32  # terms of a step
STAGES = 3
HELD = 16  # table entries of kernels/conv_mma.cu, of which there are two sets
OWN, BITS, COORDINATES = range(3)  # see there
MASKED_TAPS = 30  # of all axes together, for which a position keeps a bit each
FEW = 4  # channels up to which they are padded to as many
ENOUGH = 256  # blocks that keep any GPU busy
LEAST = 16  # steps of a share of a sum: fewer are done before the shares are added up
FULL = 64  # tiles of 128 rows, below which lower ones keep more of a GPU busy
SHARE = 512  # positions that a share of a weight's sums has at least
SUMS, BITS16 = np.dtype(np.float32), np.dtype(np.uint16)
RUN = 64 * 200  # elements of a tile of conv_lay_runs
LAYOUT = np.dtype([(name, "i4") for name in ("rows", "columns", "padded", "inner", "row_tiles",
                                             "column_tiles")], align=True)
Axes = tuple[Axis, ...]


def serves(dtype: Any) -> bool:
    """Whether this dtype's products are made here."""
    return bool(dtype.itemsize == 2 and dtype.kind not in "iu")


# --- how operands lie ----------------------------------------------------------------------------


def padded(channels: int) -> int:
    """The channels with those of zeros, so that whole pieces are copied."""
    return FEW if channels <= FEW else blocks(channels, 8) * 8


def channels_last(x: Any, groups: int, deep: int) -> Any:
    """(N, *sizes, groups, channels), of which there are `deep` with the padding."""
    lies = last(x, groups, deep)
    if lies is not None:
        return lies
    return laid_out(x, len(x) * groups, math.prod(x.shape[2:]), deep, groups)


def last(x: Any, groups: int, deep: int) -> Any:
    """The view of x with its second axis last where it lies so in memory; else None."""
    view = x.transpose(0, *range(2, x.ndim), 1)
    lies = view.flags.c_contiguous and x.shape[1] == groups * deep and x.data.ptr % 16 == 0
    return view if lies else None


def laid_out(x: Any, matrices: int, columns: int, deep: int, inner: int = 1) -> Any:
    """The matrices of x turned over, their rows last and padded with zeros; see conv_layout.cu."""
    x = runtime.contiguous(x)
    out = runtime.empty((matrices // inner, columns, inner, deep), x.dtype)
    how = laying(x.size // (matrices * columns), columns, deep, inner, x.data.ptr % 16)
    launch("conv_layout", how.name, matrices * how.tiles, how.threads,
           (x.view(BITS16), out.view(BITS16), how.struct, *how.more), how.shared)
    return out


class Laying(NamedTuple):
    """How matrices are turned over: `tiles` blocks for each."""

    name: str
    tiles: int
    threads: int
    struct: Any
    more: tuple[int, ...]
    shared: int


@lru_cache(maxsize=1024)
def laying(rows: int, columns: int, deep: int, inner: int, place: int) -> Laying:
    """`place`: of the first element within 16 bytes."""
    even = rows * columns % 2 == 0 and place % 4 == 0
    more: tuple[int, ...] = ()
    high, shared, threads = FEW, 0, 256
    if deep == FEW:
        each = 2 if columns % 2 == 0 and even else 1
        threads = min(256, blocks(columns, 32 * each) * 32)
        name, wide = f"conv_lay_few<{each}>", threads * each
    elif columns % 8 == 0 and place == 0:
        high = 8 if deep == 8 else next((h for h in (64, 32, 16) if deep % h == 0),
                                        64 if deep > 32 else 32)
        name, wide = f"conv_lay_wide<{high}>", 4096 // high
    else:
        high = next((h for h in (64, 32, 16) if h * columns <= RUN), 64)
        wide = columns if high * columns <= RUN else RUN // high
        each = 2 if even and (wide == columns or columns % 2 == 0) else 1
        step = 64 // high
        name, more = f"conv_lay_runs<{high}, {each}>", (wide,)
        shared = 2 * high * ((wide + step - 1) // (2 * step) * (2 * step) + step)
    one = np.zeros(1, LAYOUT)
    one["rows"], one["columns"], one["padded"], one["inner"] = rows, columns, deep, inner
    one["row_tiles"], one["column_tiles"] = blocks(deep, high), blocks(columns, wide)
    return Laying(name, blocks(deep, high) * blocks(columns, wide), threads, one, more, shared)


def weight_rows(weight: Any, groups: int, turned: bool, deep: int) -> Any:
    """[group, row][tap][channel] of a weight whose first axis counts rows, or, `turned`, channels
    of the sums."""
    taps = math.prod(weight.shape[2:])
    if turned:
        return laid_out(weight, groups, weight.shape[1] * taps, deep)
    lies = last(weight, 1, deep)
    return laid_out(weight, len(weight), taps, deep) if lies is None else lies


def sees_itself(axes: Axes) -> bool:
    """Whether each position sees just its own place, and planes are whole vectors."""
    return positions(axes, 1) % 8 == 0 and all(
        a.taps == a.scale == a.spread == 1 and a.offset == 0 and a.source == a.places == a.target
        for a in axes)


def in_planes(x: Any) -> Any:
    """x in PyTorch's order if it is that already and its vectors are aligned; else None."""
    return x if x.flags.c_contiguous and x.data.ptr % 16 == 0 else None


def height(rows: int, others: int = FULL) -> int:
    """Rows of a tile, where there are as many of them for each height of rows."""
    if rows <= 64 or others * blocks(rows, 128) < FULL:
        return 32 if rows <= 32 else 64
    return 128


def slots(high: int) -> int:
    """Bytes of shared memory for the operands."""
    return STAGES * (high + WIDE) * DEPTH * 2


# --- products ------------------------------------------------------------------------------------


def gather(x: Any, weight: Any, bias: Any, out: Any, lattices: tuple[Axes, ...], groups: int,
           turned: bool, win: Windows) -> None:
    """All lattices of `out`; `turned`: the weight's first axis counts the channels of x."""
    channels, rows = x.shape[1] // groups, out.shape[1] // groups
    bias = None if bias is None else runtime.contiguous(bias)
    deep = padded(channels)
    planes = in_planes(x) if channels > FEW and sees_itself(lattices[0]) else None
    source = channels_last(x, groups, deep) if planes is None else planes
    weight = weight_rows(weight, groups, turned, deep)
    pitch = deep * math.prod(win.kernel)

    def mapped(axes: Axes, images: int) -> Any:
        return conv_map(axes, images, groups, deep if planes is None else channels, rows, pitch,
                        win.kernel)

    for left, right in paired(lattices):
        for start, stop in image_blocks(left, len(x)):
            part, target = source[start:stop], out[start:stop]
            tiles = tiles_of(left, len(part), groups, rows, deep)[1]
            if right is not None and splits(tiles, steps_of(left, deep)) == 1:
                in_pairs(part, weight, bias, target, mapped(left, len(part)), left, right,
                         right_map(right, deep, win.kernel))
                continue
            for axes in (left, right):
                if axes is not None:
                    tiled(part, weight, bias, target, mapped(axes, len(part)), axes,
                          planes is not None)


def paired(lattices: tuple[Axes, ...]) -> Iterator[tuple[Axes, Axes | None]]:
    """Each lattice with the one whose targets lie beside its own along the last axis, of two."""
    if len(lattices) > 1 and lattices[0][-1].spread == 2 and lattices[1][-1].shift == 1:
        yield from zip(lattices[::2], lattices[1::2], strict=True)
    else:
        yield from ((axes, None) for axes in lattices)


def tiles_of(axes: Axes, images: int, groups: int, rows: int, channels: int) -> tuple[int, int]:
    """The height of a gather's tiles, and how many there are."""
    across = blocks(positions(axes, images), WIDE) * groups
    # A thread that copies a few channels looks after twice as many positions, in registers.
    high = height(min(rows, 64) if channels == FEW else rows, across)
    return high, across * blocks(rows, high)


def splits(tiles: int, steps: int) -> int:
    """Into how many shares the sums of a gather are cut, where there are few of them."""
    return max(1, min(blocks(ENOUGH, tiles), steps // LEAST)) if 2 * tiles <= ENOUGH else 1


def steps_of(axes: Axes, channels: int) -> int:
    return blocks(channels * math.prod(a.taps for a in axes), DEPTH)


def feed_of(axes: Axes) -> int:
    return BITS if sum(max(1, a.taps) for a in axes) <= MASKED_TAPS else COORDINATES


def shared_bytes(high: int, feed: int, axes: Axes) -> int:
    """What a gather keeps in shared memory: operands, the bias and the table of terms."""
    entry = 32 if feed == COORDINATES and len(axes) > 1 else 16
    return slots(high) + 4 * high + 2 * HELD * entry


def in_pairs(x: Any, weight: Any, bias: Any, out: Any, one: Any, left: Axes, right: Axes,
             other: Any) -> None:
    """Two lattices whose targets lie side by side."""
    groups, rows = int(one["groups"][0]), int(one["rows"][0])
    high = 32 if rows <= 32 else 64
    feed = max(feed_of(left), feed_of(right))
    each = FEW if weight.shape[-1] == FEW else 8
    tiles = blocks(positions(left, len(x)), WIDE) * groups * blocks(rows, high)
    whole = left[-1].target % 2 == 0 and out.data.ptr % 4 == 0
    launch("conv_pairs",
           f"conv_gather_pairs<{ctype(x.dtype)}, {len(left)}, {high}, {feed}, {each}>", tiles,
           THREADS, (x, weight, bias, out, one, other, whole), shared_bytes(high, feed, left))


def tiled(x: Any, weight: Any, bias: Any, out: Any, one: Any, axes: Axes, own: bool) -> None:
    """A gather in tiles, whose sums are split where there are few."""
    groups, rows, channels = (int(one[name][0]) for name in ("groups", "rows", "channels"))
    steps = steps_of(axes, channels)
    high, tiles = tiles_of(axes, len(x), groups, rows, channels)
    share = max(1, blocks(steps, splits(tiles, steps)))
    shares = max(1, blocks(steps, share))
    total = runtime.empty((shares, tiles, high, WIDE), SUMS) if shares > 1 else None
    whole = (all(a.spread == 1 for a in axes) and positions(axes, 1) % 8 == 0
             and out.data.ptr % 16 == 0)
    feed = OWN if own else feed_of(axes)
    each = FEW if channels == FEW and not own else 8
    launch("conv_mma", f"conv_gather_mma<{ctype(x.dtype)}, {len(axes)}, {high}, {feed}, {each}>",
           (tiles, shares), THREADS, (x, weight, bias, out, total, one, share, whole),
           shared_bytes(high, feed, axes))
    if total is not None:
        launch("conv", f"conv_finish<{ctype(x.dtype)}, float, {len(axes)}, {high}, {WIDE}>", tiles,
               256, (total, bias, out, one, shares))


def to_weight(x: Any, y: Any, win: Windows, groups: int) -> Any:
    """weight[o, c, tap] = sum over n, p of y[n, o, p] x[n, c, what p sees by tap]."""
    channels, rows = x.shape[1] // groups, y.shape[1] // groups
    axes, taps = forward_axes(win), math.prod(win.kernel)
    planes = in_planes(x) if sees_itself(axes) else None
    deep = padded(channels) if planes is None else channels
    large = channels_last(x, groups, deep) if planes is None else planes
    runs = in_planes(y) if positions(axes, 1) % 8 == 0 else None
    deep_small = blocks(rows, 8) * 8
    small = channels_last(y, groups, deep_small) if runs is None else runs
    pitch = blocks(deep * taps, 8) * 8  # whole sectors of floats
    high, each = height(rows), FEW if planes is None and deep == FEW else 8
    grid = groups * blocks(rows, high) * blocks(deep * taps, WIDE)
    images = list(image_blocks(axes, len(x)))
    counts = [positions(axes, stop - start) for start, stop in images]
    share = SHARE * max(1, blocks(max(counts) * grid, SHARE * ENOUGH))
    shares = [blocks(count, share) for count in counts]
    total = runtime.empty((sum(shares), groups * rows, pitch), SUMS)
    flags = ", ".join("true" if last else "false" for last in (runs is None, planes is None))
    name = f"conv_weight_mma<{ctype(x.dtype)}, {len(axes)}, {high}, {flags}, {each}>"
    place = 0
    for (start, stop), parts in zip(images, shares, strict=True):
        one = conv_map(axes, stop - start, groups, deep, rows, pitch, win.kernel)
        launch("conv_mma", name, (grid, parts), THREADS,
               (large[start:stop], small[start:stop], total[place:], one,
                deep_small, share), slots(high) + 2 * DEPTH * (16 if len(axes) < 3 else 32))
        place += parts
    out = runtime.empty((groups * rows, channels, *win.kernel), x.dtype)
    if taps == 1 and pitch == channels:
        launch("conv", f"conv_combine<{ctype(x.dtype)}, float>", blocks(out.size, 256), 256,
               (total, out, place, out.size))
    else:
        wide = 64 if taps <= 32 else 32
        launch("conv_layout", f"conv_combine_last<{ctype(x.dtype)}, {wide}>",
               len(out) * blocks(channels, wide) * blocks(taps, 2048 // wide), 256,
               (total, out, place, len(out), channels, taps, deep, pitch))
    return out

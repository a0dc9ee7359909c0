"""The geometry of sliding windows, shared by convolution, unfold and fold.

A window map relates a large grid (a convolution's input) to a small one (its output):
position p of the small grid sees `large[p * stride + tap * dilation - before]` for each tap of the
kernel, and zero where that lies outside.  Only the sizes of both grids count, so padding behind
the end is implied, may be asymmetric, and a transposed convolution has the same geometry.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import as_strided

from mlgpu.cpu.runtime import empty
from mlgpu.errors import ShapeError

Ints = tuple[int, ...]
Slices = tuple[slice, ...]
Size = int | Sequence[int]
Array = Any  # np.ndarray, whose stubs reject computed index tuples and casting ufuncs

# Columns and their products are made in blocks of about this many bytes: large enough for threaded
# GEMM (1 MB measured 20-40 % slower on two cores), small enough for a shared L3.
BLOCK_BYTES = 4 << 20
# Padded rows are unfolded as one run where that makes the GEMM at most this much longer.
MAX_WASTE = 1.5


def per_axis(name: str, what: str, value: Size, axes: int, least: int) -> Ints:
    """`value`, one int or one for each axis, as a tuple; each at least `least`."""
    values = (value,) if isinstance(value, int) else tuple(value)
    if len(values) == 1:
        values *= axes
    if len(values) != axes or any(v < least for v in values):
        raise ShapeError(f"{name}: {what} must be one or {axes} ints of at least {least}, "
                         f"got {value}")
    return values


class Windows(NamedTuple):
    """Which elements of the large grid each position of the small grid sees."""

    large: Ints
    small: Ints
    kernel: Ints
    stride: Ints
    dilation: Ints
    before: Ints

    @property
    def dense(self) -> bool:
        """Whether every stride is 1, so that the map read backwards is a window map too."""
        return all(s == 1 for s in self.stride)

    @property
    def pointwise(self) -> bool:
        """Whether each position sees just the element at its own place."""
        return (self.dense and self.large == self.small and not any(self.before)
                and all(k == 1 for k in self.kernel))

    def mirrored(self) -> Windows:
        """The same pairs of positions seen from the large grid, taps reversed; dense maps only."""
        reach = [d * (k - 1) for k, d in zip(self.kernel, self.dilation, strict=True)]
        before = tuple(r - b for r, b in zip(reach, self.before, strict=True))
        return Windows(self.small, self.large, self.kernel, self.stride, self.dilation, before)

    def taps(self) -> Iterator[Ints]:
        """All taps of the kernel in row-major order."""
        return itertools.product(*(range(k) for k in self.kernel))

    def tap_slices(self, tap: Ints, start: Ints, stop: Ints) -> tuple[Slices, Slices] | None:
        """Where positions start:stop see an element through `tap`: slices of (block, large).

        None where they all look outside.
        """
        seen, elements = [], []
        for axis, t in enumerate(tap):
            stride = self.stride[axis]
            offset = t * self.dilation[axis] - self.before[axis]
            low = max(start[axis], -(offset // stride))
            high = min(stop[axis], (self.large[axis] - 1 - offset) // stride + 1)
            if low >= high:
                return None
            seen.append(slice(low - start[axis], high - start[axis]))
            first = low * stride + offset
            elements.append(slice(first, first + (high - low - 1) * stride + 1, stride))
        return tuple(seen), tuple(elements)


class Block(NamedTuple):
    """A box of (image, *position): half-open ranges."""

    start: Ints
    stop: Ints

    @property
    def box(self) -> Slices:
        return tuple(slice(a, b) for a, b in zip(self.start, self.stop, strict=True))

    @property
    def in_channels(self) -> Slices:
        """The box in an array of shape (N, C, *small)."""
        image, *places = self.box
        return (image, slice(None), *places)

    @property
    def shape(self) -> Ints:
        return tuple(b - a for a, b in zip(self.start, self.stop, strict=True))


def blocks(sizes: Ints, bytes_per_position: int) -> Iterator[Block]:
    """Cut the box 0:sizes into boxes of about BLOCK_BYTES, last axes kept whole longest."""
    room = max(1, BLOCK_BYTES // max(1, bytes_per_position))
    steps = []
    for size in reversed(sizes):
        step = max(1, min(size, room))
        steps.append(max(1, math.ceil(size / math.ceil(size / step))) if size else 1)
        room = room // step if step == size else 1
    steps.reverse()
    for start in itertools.product(*(range(0, n, s) for n, s in zip(sizes, steps, strict=True))):
        ends = zip(start, steps, sizes, strict=True)
        yield Block(start, tuple(min(a + step, size) for a, step, size in ends))


class Workspace:
    """One growing buffer, lent as arrays of any shape; each loan ends when the next begins."""

    def __init__(self, dtype: np.dtype[Any]) -> None:
        self.buffer = empty((0,), dtype)

    def take(self, shape: Ints) -> Array:
        count = math.prod(shape)
        if count > self.buffer.size:
            self.buffer = empty((count,), self.buffer.dtype)
        return self.buffer[:count].reshape(shape)


class Columns:
    """Unfolds a large grid (N, C, *large) block by block into the columns of a GEMM (im2col).

    The columns of a block have shape (C, *kernel, images, *positions).  On dense maps the last
    axis may be longer than the block: whole padded rows are then copied as one contiguous run per
    tap, and each ends with a few columns that mean nothing, to be cropped from the product.
    """

    def __init__(self, large: Array, windows: Windows, dtype: np.dtype[Any]) -> None:
        self.large = large
        self.windows = windows
        self.columns = Workspace(dtype)
        self.slab = Workspace(dtype)
        self.cleared: tuple[Ints, Slices] | None = None

    def unfold(self, block: Block) -> Array:
        """The columns of one block, valid until the next call."""
        win = self.windows
        slab = self._slab(block)
        images, *positions = block.shape
        if win.pointwise:
            return slab.reshape(slab.shape[0], *win.kernel, *block.shape)
        row = self._row_length(positions)
        channel, image, *steps = slab.strides
        taps = [s * d for s, d in zip(steps, win.dilation, strict=True)]
        moves = [s * m for s, m in zip(steps, win.stride, strict=True)]
        shape = (slab.shape[0], *win.kernel, images, *positions[:-1], row)
        columns = self.columns.take(shape)
        if row > positions[-1]:
            # One axis of rows and columns: in the padded slab each row follows its predecessor.
            shape = (*shape[:-2], shape[-2] * row)
            del moves[-2]
        view = as_strided(slab, shape, (channel, *taps, image, *moves), writeable=False)
        np.copyto(columns.reshape(shape), view)
        return columns

    def _row_length(self, positions: list[int]) -> int:
        win, width = self.windows, positions[-1]
        if len(positions) < 2 or win.stride[-2:] != (1, 1):
            return width
        padded = width + win.dilation[-1] * (win.kernel[-1] - 1)
        return padded if padded <= MAX_WASTE * width else width

    def _slab(self, block: Block) -> Array:
        """What the block sees, as (C, images, *sizes) with its zero border."""
        win = self.windows
        sizes, inside, source = [], [], []
        for axis, count in enumerate(block.shape[1:]):
            reach = win.dilation[axis] * (win.kernel[axis] - 1)
            size = (count - 1) * win.stride[axis] + 1 + reach
            first = block.start[axis + 1] * win.stride[axis] - win.before[axis]
            low = min(max(0, -first), size)
            high = max(low, min(size, win.large[axis] - first))
            sizes.append(size)
            inside.append(slice(low, high))
            source.append(slice(first + low, first + high))
        shape = (self.large.shape[1], block.shape[0], *sizes)
        count = math.prod(shape)
        # The last tap's run over the last row reads `reach` elements past the end.
        buffer = self.slab.take((count + reach,))
        slab = buffer[:count].reshape(shape)
        # A block like the one before finds the border already zero.
        if self.cleared != (shape, tuple(inside)):
            buffer.fill(0)
            self.cleared = (shape, tuple(inside))
        np.copyto(slab[(slice(None), slice(None), *inside)],
                  self.large[(block.box[0], slice(None), *source)].swapaxes(0, 1),
                  casting="unsafe")
        return slab

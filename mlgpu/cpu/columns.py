"""Windows of images as the columns of a matrix (im2col), block by block."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided

from mlgpu.ops.window import Array, Block, Ints, Slices, Windows, Workspace

# Padded rows are unfolded as one run where that makes the GEMM at most this much longer.
MAX_WASTE = 1.5


class Columns:
    """Unfolds a large grid (N, C, *large) block by block into the columns of a GEMM (im2col).

    The columns of a block have shape (C, *kernel, images, *positions).  On dense maps the last
    axis may be longer than the block: whole padded rows are then copied as one contiguous run per
    tap, and each ends with a few columns that mean nothing, to be cropped from the product.
    """

    def __init__(self, large: Array, windows: Windows, dtype: np.dtype[Any], largest: Block
                 ) -> None:
        self.large = large
        self.windows = windows
        self.cleared: tuple[Ints, Slices] | None = None
        channels, (images, *positions) = large.shape[1], largest.shape
        row = positions[-1] if windows.pointwise else self._row_length(positions)
        self.positions = images * math.prod(positions[:-1]) * row  # columns of the largest block
        self.columns = Workspace(dtype, 0 if windows.pointwise else
                                 channels * math.prod(windows.kernel) * self.positions)
        sizes = self._sizes(largest)
        self.slab = Workspace(dtype, channels * images * math.prod(sizes) + self._reach)

    @property
    def _reach(self) -> int:
        """The last tap's run over the last row reads this many elements past the end."""
        return self.windows.dilation[-1] * (self.windows.kernel[-1] - 1)

    def _sizes(self, block: Block) -> Ints:
        """The sizes of what the block sees."""
        win = self.windows
        axes = zip(block.shape[1:], win.stride, win.dilation, win.kernel, strict=True)
        return tuple((count - 1) * s + 1 + d * (k - 1) for count, s, d, k in axes)

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
        padded = width + self._reach
        return padded if padded <= MAX_WASTE * width else width

    def _slab(self, block: Block) -> Array:
        """What the block sees, as (C, images, *sizes) with its zero border."""
        win = self.windows
        sizes = self._sizes(block)
        inside, source = [], []
        for axis, size in enumerate(sizes):
            first = block.start[axis + 1] * win.stride[axis] - win.before[axis]
            low = min(max(0, -first), size)
            high = max(low, min(size, win.large[axis] - first))
            inside.append(slice(low, high))
            source.append(slice(first + low, first + high))
        shape = (self.large.shape[1], block.shape[0], *sizes)
        count = math.prod(shape)
        buffer = self.slab.take((count + self._reach,))
        slab = buffer[:count].reshape(shape)
        # A block like the one before finds the border already zero.
        if self.cleared != (shape, tuple(inside)):
            buffer.fill(0)
            self.cleared = (shape, tuple(inside))
        np.copyto(slab[(slice(None), slice(None), *inside)],
                  self.large[(block.box[0], slice(None), *source)].swapaxes(0, 1),
                  casting="unsafe")
        return slab

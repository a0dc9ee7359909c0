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

from mlgpu.cpu.runtime import empty
from mlgpu.errors import ShapeError

Ints = tuple[int, ...]
Slices = tuple[slice, ...]
Size = int | Sequence[int]
Array = Any  # np.ndarray, whose stubs reject computed index tuples and casting ufuncs

# Columns and their products are made in blocks of about this many bytes: large enough for threaded
# GEMM (1 MB measured 20-40 % slower on two cores), small enough for a shared L3.
BLOCK_BYTES = 4 << 20


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


class Deformed(NamedTuple):
    """Windows whose taps offsets move, and which channels belong together."""

    windows: Windows
    groups: int  # of channels with weights of their own
    parts: int  # of channels with offsets of their own

    @property
    def taps(self) -> int:
        return math.prod(self.windows.kernel)

    @property
    def places(self) -> int:
        return math.prod(self.windows.small)

    def unit(self, channels: int) -> int:
        """Neighbouring channels that share offsets and weights."""
        return math.gcd(channels // self.groups, channels // self.parts)


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


def blocks(sizes: Ints, bytes_per_position: int, most: int = BLOCK_BYTES) -> Iterator[Block]:
    """Cut the box 0:sizes into boxes of about `most` bytes, last axes kept whole longest."""
    room = max(1, most // max(1, bytes_per_position))
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

    def __init__(self, dtype: np.dtype[Any], size: int = 0) -> None:
        self.buffer = empty((size,), dtype)

    def take(self, shape: Ints) -> Array:
        count = math.prod(shape)
        if count > self.buffer.size:
            self.buffer = empty((count,), self.buffer.dtype)
        return self.buffer[:count].reshape(shape)

"""Convolution with 3 x 3 kernels by Winograd's minimal filtering F(2 x 2, 3 x 3).

Lavin and Gray, "Fast algorithms for convolutional neural networks", 2015: with the tiles d of the
input (4 x 4, two apart), a tile of the output (2 x 2) is
    A^T [(G w G^T) * (B^T d B)] A
where the product in the middle is element by element, and for many channels 16 matrix products,
one per element ("plane"), of all tiles.  They take 4 / 9 of the multiplications of the direct
form, and every sum in the transforms is one of two or three terms, so that the result is about as
exact.  (F(4 x 4, 3 x 3) would take 1 / 4, but errs 20 times as much.)

Planes have the channels last: then the three products, for the output, for the gradient of the
input and for that of the weight, all have the layouts that BLAS is fastest with, and the
transforms are sums of long dense runs for any sizes.

A value that is not finite spreads through B^T d B as NaN where the direct form has infinities.
Whoever calls must then compute what it touched the direct way.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from mlgpu.cpu import blas, fast, threads
from mlgpu.cpu.runtime import empty, zeros
from mlgpu.ops.window import Array, Ints, Windows, Workspace

# Elements of one plane of a block.  Compiled, all planes of 8 K elements stay in a core's cache (a
# megabyte; 4 K to 8 K were fastest).  NumPy's calls must be long for two threads not to wait for
# the interpreter: with 8 K, 32 x 64 x 32 x 32 took 18 ms, with 16 K 14 ms, alone 25 ms.
PLANE = 1 << 14
COMPILED_PLANE = 1 << 13
# Channels on either side and tiles together from which the transforms are repaid.
CHANNELS = 16
LEAST_TILES = 256
# Bytes of the partial sums of a weight's gradient.
PARTIALS = 64 << 20

# G (x) G: a kernel's 9 taps to its 16 planes.
_G = np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]])
_KERNEL = np.kron(_G, _G)


class Block(NamedTuple):
    """A box of tiles: images, tile rows and tile columns."""

    image: int
    images: int
    row: int
    rows: int
    column: int
    columns: int


def suits(win: Windows, images: int, channels: int, outputs: int, groups: int,
          dtype: np.dtype[Any]) -> bool:
    """Whether this convolution is one that Winograd's form computes, and faster."""
    return (win.kernel == (3, 3) and win.stride == (1, 1) and win.dilation == (1, 1)
            and groups == 1 and dtype.char in "fd" and min(channels, outputs) >= CHANNELS
            and images * math.prod(_grid(win)) >= LEAST_TILES)


def _grid(win: Windows) -> Ints:
    """The rows and columns of tiles."""
    return -(-win.small[0] // 2), -(-win.small[1] // 2)


def cut(images: int, win: Windows, tiles: int) -> list[Block]:
    """All tiles in blocks of about so many, of equal shares where they can be."""
    rows, columns = _grid(win)
    wide = _share(columns, tiles)
    high = _share(rows, max(2, tiles // wide))
    deep = _share(images, max(1, tiles // (wide * high)))
    return [Block(n, min(deep, images - n), i, min(high, rows - i), j, min(wide, columns - j))
            for n, i, j in itertools.product(range(0, images, deep), range(0, rows, high),
                                             range(0, columns, wide))]


def _share(size: int, most: int) -> int:
    """The size of equal parts of at most `most`."""
    return -(-size // max(1, -(-size // most)))


def kernel_planes(weight: Array) -> Array:
    """G w G^T of the weight (O, C, 3, 3), as (16, C, O)."""
    outputs, channels = weight.shape[:2]
    taps: Array = empty((channels, 9, outputs), weight.dtype)
    np.copyto(taps, weight.reshape(outputs, channels, 9).transpose(1, 2, 0))
    planes: Array = empty((channels, 16, outputs), weight.dtype)
    _multiply(_KERNEL.astype(weight.dtype), taps, planes)
    return planes.swapaxes(0, 1)


def mirrored_planes(weight: Array) -> Array:
    """The planes of the weight (O, C, 3, 3) that leads from outputs back to inputs: (16, O, C)."""
    outputs, channels = weight.shape[:2]
    planes = empty((16, outputs * channels), weight.dtype)
    _multiply(_KERNEL[:, ::-1].astype(weight.dtype), weight.reshape(-1, 9).T, planes)
    return planes.reshape(16, outputs, channels)


def _multiply(a: Array, b: Array, out: Array) -> None:
    """a @ b by one thread: BLAS's own would wait for more for milliseconds, on the cores that the
    loop needs next."""
    with blas.one_thread():
        np.matmul(a, b, out=out)


def convolve(x: Array, kernel: Array, bias: Array | None, win: Windows, out: Array,
             direct: Callable[[Block], None]) -> None:
    """out (N, O, *small) = x (N, C, *large) with a kernel's planes (16, C, O), plus bias.

    `direct` computes a block whose result is not finite.
    """
    channels, outputs = kernel.shape[1:]
    work = out.size * channels // 8
    loops = fast.load("winograd", work)
    blocks = cut(len(x), win, _tiles_of_block(loops, channels, outputs))
    if bias is None:
        bias = zeros((outputs,), kernel.dtype)
    multiply = _product(kernel, loops)

    def start() -> Callable[[int], None]:
        form = _form(kernel.dtype, blocks[0], max(channels, outputs), loops)
        tiles, products = form.planes(channels), form.planes(outputs)

        def convolve_block(task: int) -> None:
            block = blocks[task]
            seen = tiles(block)
            form.read(x, win, block, seen)
            made = products(block)
            multiply(flat(seen), flat(made))
            if not form.write(made, bias, out, block):
                direct(block)

        return convolve_block

    threads.parallel(len(blocks), start, work)


def _product(kernel: Array, loops: ModuleType | None) -> Callable[[Array, Array], object]:
    """What multiplies planes (16, tiles, C) by a kernel's and writes the second argument."""
    if loops is None:
        return lambda seen, made: np.matmul(seen, kernel, out=made)
    channels, outputs = kernel.shape[1:]
    panels: Array = empty(loops.panels_of(channels, outputs, kernel.dtype), kernel.dtype)
    wide = panels.shape[3]
    full = outputs - outputs % wide
    np.copyto(panels[:, :full // wide],
              kernel[..., :full].reshape(16, channels, -1, wide).swapaxes(1, 2))
    if full < outputs:
        panels[:, -1, :, outputs - full:] = 0
        np.copyto(panels[:, -1, :, :outputs - full], kernel[..., full:])
    return lambda seen, made: loops.multiply(seen, panels, made)


def weigh(x: Array, y: Array, win: Windows, out: Array) -> Array:
    """Fill out (O, C, 3, 3), the sums over images and positions of y (N, O) x (N, C, seen).

    Returns the sums of y alone, (O,).
    """
    outputs, channels = out.shape[:2]
    work = y.size * channels // 8
    loops = fast.load("winograd", work)
    blocks = cut(len(x), win, _tiles_of_block(loops, channels, outputs))
    room = PARTIALS // (16 * channels * outputs * out.itemsize)
    parts = min(len(blocks), max(min(8, room), threads.get_num_threads()))
    totals = zeros((parts, 16, channels, outputs), out.dtype)
    sums = zeros((parts, outputs), out.dtype)

    def start() -> Callable[[int], None]:
        form = _form(out.dtype, blocks[0], max(channels, outputs), loops)
        tiles, spread = form.planes(channels), form.planes(outputs)
        ones = empty((1, _tiles(blocks[0])), out.dtype)
        ones.fill(1)
        term_sum = empty((1, outputs), out.dtype)

        def weigh_part(task: int) -> None:
            for block in blocks[task * len(blocks) // parts:(task + 1) * len(blocks) // parts]:
                seen, given = tiles(block), spread(block)
                form.read(x, win, block, seen)
                form.spread(y, block, given)
                right = flat(given)
                form.weigh(flat(seen), right, totals[task])
                # Plane (1, 1) holds the sum of each tile.
                np.matmul(ones[:, :_tiles(block)], right[5], out=term_sum)
                np.add(sums[task], term_sum[0], out=sums[task])

        return weigh_part

    threads.parallel(parts, start, work)
    for part in range(1, parts):
        np.add(totals[0], totals[part], out=totals[0])
        np.add(sums[0], sums[part], out=sums[0])
    taps = empty((9, channels * outputs), out.dtype)
    _multiply(_KERNEL.T.astype(out.dtype), totals[0].reshape(16, -1), taps)
    np.copyto(out.reshape(outputs, channels, 9),
              taps.reshape(9, channels, outputs).transpose(2, 1, 0))
    return sums[0]


def _tiles(block: Block) -> int:
    return block.images * block.rows * block.columns


def flat(planes: Array) -> Array:
    """(4, 4, N, r, S, C) as (16, tiles, C)."""
    return planes.reshape(16, -1, planes.shape[-1])


def _tiles_of_block(loops: ModuleType | None, channels: int, outputs: int) -> int:
    size = PLANE if loops is None else COMPILED_PLANE
    return max(16, size // max(channels, outputs))


def _form(dtype: np.dtype[Any], largest: Block, channels: int, loops: ModuleType | None) -> _Form:
    """The transforms with their scratch, for blocks up to the largest."""
    return (_Form(dtype, largest, channels) if loops is None
            else _Compiled(dtype, largest, channels, loops))


class _Form:
    """The transforms of blocks of tiles, in NumPy.

    What a block's calls read and write is the same for the next one: it is looked up once.  While
    one thread looks up, another waits for the interpreter.
    """

    beyond = 0  # elements after the planes that may be read

    def __init__(self, dtype: np.dtype[Any], largest: Block, channels: int) -> None:
        self.dtype = dtype
        self.largest = largest
        n, r, s = largest.images, largest.rows, largest.columns
        self.frame = _Frame(dtype, n * channels * (2 * r + 2) * (2 * s + 3))
        self.plain = _Frame(dtype)  # of gradients: the borders of the other stay as they are
        self.phases = Workspace(dtype, 4 * n * (r + 1) * (s + 1) * channels)
        self.half = Workspace(dtype, 8 * n * (r + 1) * s * channels)
        self.plans: dict[str, _Plan] = {}
        self.term = Workspace(dtype)

    def planes(self, channels: int) -> Callable[[Block], Array]:
        """A workspace for the planes of a block."""
        space = Workspace(self.dtype, 16 * _tiles(self.largest) * channels + self.beyond)
        lent: dict[Ints, Array] = {}

        def lend(block: Block) -> Array:
            shape = block.images, block.rows, block.columns
            if shape not in lent:
                lent[shape] = space.take((4, 4, *shape, channels))
            return lent[shape]

        return lend

    def read(self, x: Array, win: Windows, block: Block, planes: Array) -> None:
        """planes (4, 4, N, r, S, C) = B^T d B of the block's tiles."""
        top, left = 2 * block.row - win.before[0], 2 * block.column - win.before[1]
        n, rows, columns, channels = planes.shape[2:]

        def calls(phases: Array) -> Iterator[Call]:
            half = self.half.take((4, 2, n, rows + 1, columns, channels))
            yield from _combine(phases.swapaxes(0, 1), 3, half)
            yield from _combine(half.swapaxes(0, 1), 2, planes)

        self._transform(self.frame, x, block, top, left, 1, planes, calls)

    def spread(self, y: Array, block: Block, planes: Array) -> None:
        """planes (4, 4, N, r, S, O) = A g A^T of the block's tiles."""

        def calls(phases: Array) -> Iterator[Call]:
            half = self.half.take((4, 2, *phases.shape[2:]))
            yield from _scatter(phases.swapaxes(0, 1), half)
            yield from _scatter(half.swapaxes(0, 1), planes)

        self._transform(self.plain, y, block, 2 * block.row, 2 * block.column, 0, planes, calls)

    def write(self, planes: Array, bias: Array, out: Array, block: Block) -> bool:
        """out = A^T m A + bias at the block's place; whether all is finite."""
        shape = planes.shape[2:]
        images, high, wide, channels = shape
        plan = self.plans.get("write")
        if plan is None or plan.planes is not planes:
            rows = self.half.take((2, 4, *shape))
            line: Array = self.phases.take((2, *shape[:3], 2, shape[3]))
            plan = self.plans["write"] = _Plan(
                planes, line, line, (*_gather(planes, rows),
                                     *_gather(rows.swapaxes(0, 1), np.moveaxis(line, -2, 0))))
        planes[1, 1] += bias  # this element counts once in each of a tile's four
        plan.run()
        line = plan.phases
        target = _target(out, block)
        # (2, N, r, S, 2, O) as (N, O, r, 2, S 2).
        image = line.reshape(2, images, high, 2 * wide, channels).transpose(1, 4, 2, 0, 3)
        if target.shape[2] == 2 * high:
            into = target.reshape(images, channels, high, 2, -1)  # splits an axis: a view
            np.copyto(into, image[..., :into.shape[-1]], casting="unsafe")
        else:
            for row in range(2):
                to = target[:, :, row::2]
                np.copyto(to, image[:, :, :to.shape[2], row, :to.shape[3]], casting="unsafe")
        return bool(np.isfinite(np.add.reduce(line, None)))

    def weigh(self, seen: Array, given: Array, totals: Array) -> None:
        """totals (16, C, O) += seen^T @ given, of planes (16, tiles, C) and (16, tiles, O)."""
        _, channels, outputs = totals.shape
        step = max(1, min(16, (1 << 14) // (channels * outputs)))  # planes added in cache
        for plane in range(0, 16, step):
            some = slice(plane, plane + step)
            into = totals[some]
            term: Array = self.term.take(into.shape)
            np.matmul(seen[some].swapaxes(1, 2), given[some], out=term)
            np.add(into, term, out=into)

    def _transform(self, frame: _Frame, x: Array, block: Block, top: int, left: int, more: int,
                   planes: Array, calls: Callable[[Array], Iterator[Call]]) -> None:
        """Fill planes by calls on the block's elements by the parity of row and column.

        These are (2, 2, N, r + more, S + more, C), zero outside of x.
        """
        n, channels = block.images, x.shape[1]
        rows, columns = block.rows + more, block.columns + more
        # The odd length keeps neighbouring channels out of each other's way in the cache.
        slab = frame.take(x[block.image:block.image + n], top, left,
                          (n, channels, 2 * rows, 2 * columns + 1))
        name = "read" if more else "spread"
        plan = self.plans.get(name)
        if plan is None or plan.planes is not planes:
            phases = self.phases.take((2, 2, n, rows, columns, channels))
            pairs = slab[..., :2 * columns].reshape(n, channels, rows, 2, columns, 2)
            plan = self.plans[name] = _Plan(planes, phases, pairs.transpose(3, 5, 0, 2, 4, 1),
                                            tuple(calls(phases)))
        np.copyto(plan.phases, plan.elements)
        plan.run()


Call = tuple[np.ufunc, Array, Array, Array]


class _Plan(NamedTuple):
    """The calls of a transform and what they read, for the planes of one shape of block."""

    planes: Array
    phases: Array
    elements: Array
    calls: tuple[Call, ...]

    def run(self) -> None:
        for ufunc, first, second, out in self.calls:
            ufunc(first, second, out=out)


class _Frame:
    """A window of images with zeros around them."""

    def __init__(self, dtype: np.dtype[Any], size: int = 0) -> None:
        self.space = Workspace(dtype, size)
        self.place: tuple[Ints, int, int, Ints] | None = None
        self.out = self.inside = self.space.buffer
        self.source: tuple[slice, ...] = ()

    def take(self, x: Array, top: int, left: int, shape: Ints) -> Array:
        """x (N, C, H, W) from (top, left) on, zero outside, as (N, C, h, w); until the next call.

        A window as the one before it finds the border zero already.
        """
        place = shape, top, left, x.shape[2:]
        if place != self.place:
            self._move(place)
        np.copyto(self.inside, x[self.source], casting="unsafe")
        return self.out

    def _move(self, place: tuple[Ints, int, int, Ints]) -> None:
        """Find what is inside, and clear what is not."""
        shape, top, left, sizes = place
        inside, source = [], []
        for first, size, whole in ((top, shape[2], sizes[0]), (left, shape[3], sizes[1])):
            low = min(max(0, -first), size)
            high = max(low, min(size, whole - first))
            inside.append(slice(low, high))
            source.append(slice(first + low, first + high))
        rows, columns = inside
        if self.place is None or self.place[0] != shape:
            self.out = self.space.take(shape)
        out = self.out
        out[:, :, :rows.start] = 0
        out[:, :, rows.stop:] = 0
        out[:, :, rows, :columns.start] = 0
        out[:, :, rows, columns.stop:] = 0
        self.inside = out[:, :, rows, columns]
        self.source = (slice(None), slice(None), *source)
        self.place = place


def _target(out: Array, block: Block) -> Array:
    return out[block.image:block.image + block.images, :,
               2 * block.row:2 * (block.row + block.rows),
               2 * block.column:2 * (block.column + block.columns)]


def _combine(parity: Array, axis: int, out: Array) -> Iterator[Call]:
    """B^T d: elements d0 to d3 of a tile are even, odd, next even and next odd along the axis."""
    before = (slice(None),) * (axis + 1)
    d01, d23 = parity[(*before, slice(None, -1))], parity[(*before, slice(1, None))]
    yield np.subtract, d01, d23, out[::3]
    yield np.add, d01[1], d23[0], out[1]
    yield np.subtract, d23[0], d01[1], out[2]


def _gather(m: Array, out: Array) -> Iterator[Call]:
    """A^T m."""
    yield np.add, m[1], m[2], out[0]
    yield np.add, out[0], m[0], out[0]
    yield np.subtract, m[1], m[2], out[1]
    yield np.subtract, out[1], m[3], out[1]


def _scatter(g: Array, out: Array) -> Iterator[Call]:
    """A g."""
    zero = g.dtype.type(0)
    yield np.add, g[0], zero, out[0]
    yield np.add, g[0], g[1], out[1]
    yield np.subtract, g[0], g[1], out[2]
    yield np.subtract, zero, g[1], out[3]


class _Compiled(_Form):
    """The transforms in compiled loops, which read and write the images themselves."""

    def __init__(self, dtype: np.dtype[Any], largest: Block, channels: int,
                 loops: ModuleType) -> None:
        self.dtype = dtype
        self.largest = largest
        self.loops = loops
        s = largest.columns
        self.frame, self.plain = _Frame(dtype), _Frame(dtype)
        self.wide = Workspace(dtype)
        self.lines = Workspace(dtype, (s + 1) * channels * 2)
        self.ring = Workspace(dtype, 16 * s * channels)
        self.beyond = loops.beyond(dtype)

    def read(self, x: Array, win: Windows, block: Block, planes: Array) -> None:
        top, left = 2 * block.row - win.before[0], 2 * block.column - win.before[1]
        x, top, left = self._images(x, block, top, left, 1)
        channels = x.shape[1]
        self.loops.read(x, top, left, planes,
                        self.lines.take((2, (block.columns + 1) * channels)),
                        self.ring.take((4, 4, block.columns * channels)))

    def spread(self, y: Array, block: Block, planes: Array) -> None:
        y, top, left = self._images(y, block, 2 * block.row, 2 * block.column, 0)
        self.loops.spread(y, top, left, planes,
                          self.ring.take((2, 4, block.columns * y.shape[1])))

    def write(self, planes: Array, bias: Array, out: Array, block: Block) -> bool:
        length = block.columns * len(bias)
        sums, lines = self.ring.take((2, 4, length)), self.lines.take((2, length))
        if out.dtype == self.dtype:
            images = out[block.image:block.image + block.images]
            return bool(self.loops.write(planes, bias, images, 2 * block.row, 2 * block.column,
                                         sums, lines))
        target = _target(out, block)
        wide: Array = self.wide.take(target.shape)
        finite = bool(self.loops.write(planes, bias, wide, 0, 0, sums, lines))
        np.copyto(target, wide, casting="unsafe")
        return finite

    def weigh(self, seen: Array, given: Array, totals: Array) -> None:
        self.loops.weigh(seen, given, totals)

    def _images(self, x: Array, block: Block, top: int, left: int, more: int
                ) -> tuple[Array, int, int]:
        """The block's images as loops can read them, and the place of the first tile in them."""
        images = x[block.image:block.image + block.images]
        if x.dtype == self.dtype and images.flags.c_contiguous:
            return images, top, left
        shape = (*images.shape[:2], 2 * (block.rows + more), 2 * (block.columns + more))
        return (self.frame if more else self.plain).take(images, top, left, shape), 0, 0
